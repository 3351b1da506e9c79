/* A guest that draws, for benchmarks/screen.py: a multiboot kernel, started by the firmware, with a standard VGA at 00:02.0.

   fill N     times N fills of each kind, in ns: text, 13h, planar (12h), the frame buffer; five rounds, a line each
   scroll     text that scrolls, a hundred lines a second
   window     1024x768, 32 bits: a window of 320x240 that moves sixty times a second
   full       the same screen filled with another colour as often as it can
   echo       a character on the text screen for each key
   idle       stands still, without a tick
   tick       the same, with the firmware's 18.2 ticks a second
   It says "up" at port e9h before it begins. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

static void outb(u16 port, u8 value) { asm volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static void outw(u16 port, u16 value) { asm volatile("outw %0, %1" : : "a"(value), "Nd"(port)); }
static void outl(u16 port, u32 value) { asm volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }
static u8 inb(u16 port) { u8 value; asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port)); return value; }
static u32 inl(u16 port) { u32 value; asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port)); return value; }
static void fill(u32 to, u32 value, u32 count)
{
    asm volatile("cld; rep stosl" : "+D"(to), "+c"(count) : "a"(value) : "memory");
}
static void move(u32 to, u32 from, u32 count)
{
    asm volatile("cld; rep movsl" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

static void say(const char *text) { while (*text) outb(0xe9, *text++); }
static void number(u32 value)
{
    char digits[12];
    int n = 11;
    digits[n] = 0;
    do digits[--n] = '0' + value % 10; while (value /= 10);
    say(digits + n);
}

/* --- modes */

static void index_registers(u16 port, const u8 *values, int count)
{
    for (int n = 0; n < count; n++) {
        outb(port, n);
        outb(port + 1, values[n]);
    }
}

static const u8 modes[2][61] = {
    {0x63, 0x03, 0x01, 0x0f, 0x00, 0x0e,                                                    /* 13h */
     0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0x41, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
     0x9c, 0x8e, 0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff,
     0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x05, 0x0f, 0xff,
     0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x41, 0x00, 0x0f, 0x00, 0x00},
    {0xe3, 0x03, 0x01, 0x0f, 0x00, 0x06,                                                    /* 12h */
     0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
     0xea, 0x8c, 0xdf, 0x28, 0x00, 0xe7, 0x04, 0xe3, 0xff,
     0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x0f, 0xff,
     0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x01, 0x00, 0x0f, 0x00, 0x00},
};

static void set_mode(int which)
{
    const u8 *row = modes[which];
    outb(0x3c2, row[0]);
    index_registers(0x3c4, row + 1, 5);
    outw(0x3d4, 0x0011);
    index_registers(0x3d4, row + 6, 25);
    index_registers(0x3ce, row + 31, 9);
    inb(0x3da);
    for (int n = 0; n < 21; n++) {
        outb(0x3c0, n);
        outb(0x3c0, row[40 + n]);
    }
    outb(0x3c0, 0x20);
}

static void vbe(u16 index, u16 value)
{
    outw(0x1ce, index);
    outw(0x1cf, value);
}

static u32 frame_buffer(void)
{
    vbe(4, 0);
    vbe(1, 1024);
    vbe(2, 768);
    vbe(3, 32);
    vbe(4, 0x41);
    outl(0xcf8, 0x80001010);
    return inl(0xcfc) & ~15u;
}

/* --- time: the ACPI timer, whose port the firmware has put at b008h or 608h */

static u16 timer_port;
static u32 timer(void) { return inl(timer_port) & 0xffffff; }
static void until(u32 *last, u32 step)
{
    while (((timer() - *last) & 0xffffff) < step)
        ;
    *last = (*last + step) & 0xffffff;
}

/* --- what it does */

static u32 since(u32 began) { return ((timer() - began) & 0xffffff) * 279; }      /* ns, up to 4 s */

static void fills(u32 count)
{
    u32 lfb;
    u32 began;
    for (int round = 0; round < 5; round++) {
        u32 took[4];
        began = timer();
        for (u32 n = 0; n < 10 * count; n++)
            fill(0xb8000, 0x07410720 + n, 1000);
        took[0] = since(began) / (10 * count);
        set_mode(0);
        fill(0xa0000, 0, 16000);
        began = timer();
        for (u32 n = 0; n < count; n++)
            fill(0xa0000, n * 0x01010101, 16000);
        took[1] = since(began) / count;
        set_mode(1);
        fill(0xa0000, 0, 9600);
        began = timer();
        for (u32 n = 0; n < count; n++) {
            outw(0x3c4, 0x0102 << (n & 3));
            fill(0xa0000, n * 0x01010101, 9600);
        }
        took[2] = since(began) / count;
        lfb = frame_buffer();
        fill(lfb, 0, 1024 * 768);
        began = timer();
        for (u32 n = 0; n < count; n++)
            fill(lfb, n * 0x01010101, 1024 * 768);
        took[3] = since(began) / count;
        vbe(4, 0);
        for (int n = 0; n < 4; n++) {
            number(took[n]);
            say(n < 3 ? " " : "\n");
        }
        outw(0x3c4, 0x0302);                    /* text again, near enough: odd and even addresses */
        outw(0x3c4, 0x0204);
        outw(0x3ce, 0x1005);
        outw(0x3ce, 0x0e06);
    }
}

static void scroll(void)
{
    u32 last = timer(), line = 0;
    for (;; line++) {
        move(0xb8000, 0xb8000 + 160, 960);
        for (int n = 0; n < 80; n++)
            ((volatile u16 *)0xb8f00)[n] = 0x0700 | ('!' + (line * 7 + n * (line & 15)) % 90);
        until(&last, 35795);
    }
}

static void window(void)
{
    u32 lfb = frame_buffer(), last = timer();
    fill(lfb, 0x00204060, 1024 * 768);
    for (int step = 0;; step++) {
        int x = step * 4 % 700, y = step * 2 % 500;
        for (int line = 0; line < 240; line++)
            fill(lfb + ((y + line) * 1024 + x) * 4, (0x808080 + line * 0x10203) & 0xffffff, 320);
        until(&last, 59659);
        for (int line = 0; line < 240; line++)
            fill(lfb + ((y + line) * 1024 + x) * 4, 0x00204060, 320);
    }
}

static void full(void)
{
    u32 lfb = frame_buffer(), last = timer();
    for (u32 n = 0;; n++) {
        for (int line = 0; line < 768; line++)
            fill(lfb + line * 4096, (n * 0x050301 + line) & 0xffffff, 1024);
        until(&last, 11931);                    /* three hundred a second at most */
    }
}

static void echo(void)
{
    for (u16 at = 0;;) {
        if (!(inb(0x64) & 1))
            continue;
        u8 code = inb(0x60);
        if (code & 0x80)
            continue;
        ((volatile u16 *)0xb8000)[at++ % 2000] = 0x1f00 | ('A' + code % 26);
    }
}

void begin(u32 magic, const u32 *info)
{
    const char *words = info[0] & 4 ? (const char *)info[4] : "";
    u32 count = 0;
    while (*words && *words != ' ')
        words++;
    while (*words == ' ')
        words++;
    for (const char *at = words; *at; at++)
        if (*at >= '0' && *at <= '9')
            count = count * 10 + *at - '0';
    outl(0xcf8, 0x80000b40);
    timer_port = (inl(0xcfc) & 0xffc0) + 8;
    if (timer_port == 8)
        timer_port = 0xb008;
    say("up\n");
    switch (words[0]) {
    case 'f':
        if (words[1] == 'u')
            full();
        fills(count ? count : 10);
        outb(0xf4, 0);
        outb(0x501, 0);
        break;
    case 's': scroll(); break;
    case 'w': window(); break;
    case 'e': echo(); break;
    case 'i':
        outb(0x43, 0x30);                       /* the firmware's tick stops: a count is waited for that never comes */
        break;
    }
    for (;;)
        asm volatile("cli; hlt");
}

asm(".section .multiboot, \"a\"\n .align 4\n .long 0x1badb002, 0, -0x1badb002\n"
    ".text\n .globl _start\n _start: movl $stack_end, %esp\n pushl %ebx\n pushl %eax\n call begin\n 1: hlt\n jmp 1b\n"
    ".bss\n .align 16\n .space 16384\n stack_end:\n .text\n");
