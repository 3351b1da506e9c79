#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static sigjmp_buf back;

static void caught(int number, siginfo_t *info, void *context)
{
    (void)context;
    printf("signal %d code %d at %p\n", number, info->si_code, number == SIGSEGV ? info->si_addr : NULL);
    siglongjmp(back, 1);
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
    volatile int zero = 0, result = 0;
    volatile uint8_t *page;
    long double x = 1.0L / 3;
    __int128 wide = (__int128)INT64_MAX * INT64_MAX;
    double field[64], sum = 0;
    float small = 0;
    int n;
    printf("hello %d %s\n", 42, "world");
    printf("%.19Lg %.17g %a %.9g\n", x, (double)x, 0.1, (float)x);
    printf("%016llx%016llx\n", (unsigned long long)(wide >> 64), (unsigned long long)wide);
    for (n = 0; n < 64; n++) {
        field[n] = sqrt(n * 1.25) / (n + 0.5);
        small += (float)field[n] * 0.3f;
    }
    for (n = 0; n < 64; n++)
        sum += field[n] * field[63 - n];
    printf("%.17g %.9g %ld %d\n", sum, small, lrint(sum * 1000), (int)floor(-2.5));
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGTRAP, &action, NULL);
    if (!sigsetjmp(back, 1))
        result = 1000 / zero;
    page = mmap((void *)0x10000000, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (!sigsetjmp(back, 1))
        page[4097] = 1;
    if (!sigsetjmp(back, 1))
        result = *(volatile int *)0x20;
    if (!sigsetjmp(back, 1))
        __asm__ volatile("ud2");
    if (!sigsetjmp(back, 1))
        __asm__ volatile("int3");
    if (!sigsetjmp(back, 1))
        __asm__ volatile("hlt");
    if (!sigsetjmp(back, 1))
        __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; nop; nop" ::: "cc", "memory");
    mprotect((void *)page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
    for (n = 0; n < 5; n++) {                   /* mov $n, %eax; ret, written anew each time */
        memcpy((void *)page, (uint8_t[]){0xB8, (uint8_t)n, 0, 0, 0, 0xC3}, 6);
        printf("%d ", ((int (*)(void))page)());
    }
    printf("%d\n", result);
    return 0;
}
