/* The first process of the demo's Linux: says where it is, without a C library, and switches the machine off. */
#include <sys/syscall.h>

struct names { char sysname[65], node[65], release[65], version[65], machine[65], domain[65]; };

static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static void say(const char *text)
{
    long size = 0;
    while (text[size])
        size++;
    call(SYS_write, 1, (long)text, size);
}

void _start(void)
{
    static struct names names;
    call(SYS_uname, (long)&names, 0, 0);
    say("Linux ");
    say(names.release);
    say(" on ");
    say(names.machine);
    say(": user space is up.\n");
    call(SYS_reboot, 0xfee1dead, 672274793, 0x4321fedc);
    for (;;)
        ;
}
