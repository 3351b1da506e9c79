/* How long a processor's exits take while a disk and a screen are at work: a multiboot kernel for latency.py.

   For the ticks of its time-stamp counter that the command line says (in units of 2^20), it reads 32 MiB from the first
   IDE disk by one READ DMA EXT after the other, and meanwhile times single accesses: the alternate status, the start of
   the bus master, the clock's register C, whose periodic flag comes 1024 times a second. A picture of 1024 by 768 is
   shown, a line of which changes. At the end it prints at port 402h:

     ticks of 2^19 periods of the PM timer, flags seen, units run, transfers done
     a line each for status, start, clock: count, most ticks, then how many took less than 2^1, 2^2, … 2^32 ticks

   and leaves by port 501h. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned u32;
typedef unsigned long long u64;

__attribute__((section(".multiboot"), aligned(4), used))
static const u32 header[3] = {0x1BADB002, 0, -0x1BADB002u};

static void out8(u16 port, u8 value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static void out16(u16 port, u16 value) { __asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port)); }
static void out32(u16 port, u32 value) { __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port)); }
static u8 in8(u16 port) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static u32 in32(u16 port) { u32 v; __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static u64 ticks(void) { u32 a, d; __asm__ volatile("lfence; rdtsc" : "=a"(a), "=d"(d)); return (u64)d << 32 | a; }

static struct kind { u32 count, most, less[32]; } kinds[3];

static void record(struct kind *kind, u64 spent)
{
    u32 short_of = spent >> 32 ? ~0u : (u32)spent, n = 0;
    while (n < 31 && short_of >> (n + 1))
        n++;
    kind->less[n]++;
    kind->count++;
    if (short_of > kind->most)
        kind->most = short_of;
}

static u32 config(u32 function, u32 offset)
{
    out32(0xCF8, 0x80000000 | 1 << 11 | function << 8 | offset);
    return in32(0xCFC);
}

static void print(u32 value)
{
    char text[10];
    int n = 0;
    do {
        text[n++] = '0' + value % 10;
        value /= 10;
    } while (value);
    while (n)
        out8(0x402, text[--n]);
    out8(0x402, ' ');
}

static void vbe(u16 index, u16 value)
{
    out16(0x1CE, index);
    out16(0x1CF, value);
}

#define TABLE ((volatile u32 *)0x200000)
#define TARGET 0x1000000
#define PIECES 512

static u16 master;

static void prepare(void)
{
    static const u8 registers[][2] = {{2, 0}, {3, 0}, {4, 0}, {5, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 0}, {6, 0x40}};
    for (u32 n = 0; n < sizeof registers / 2; n++)
        out8(0x1F0 + registers[n][0], registers[n][1]);
    out32(master + 4, (u32)TABLE);
    out8(master + 2, 6);
    out8(master, 8);
    out8(0x1F7, 0x25);              /* 65,536 sectors */
}

void work(const u32 *info)
{
    u32 units = 0, seen = 0, done = 0, start, calibrated;
    u64 begin, before;
    volatile u32 *screen;
    const char *line = (const char *)info[4];

    while (*line && !(*line == ' ' && line[1] >= '0' && line[1] <= '9'))
        line++;
    while (*line == ' ')
        line++;
    while (*line >= '0' && *line <= '9')
        units = units * 10 + *line++ - '0';

    start = config(3, 0x40) & 0xFFC0;   /* PMBA */
    start += 8;
    u32 from = in32(start);
    begin = ticks();
    while (((in32(start) - from) & 0xFFFFFF) < 1 << 19)
        ;
    calibrated = (u32)(ticks() - begin);

    for (u32 n = 0; n < PIECES; n++) {
        TABLE[2 * n] = TARGET + n * 0x10000;
        TABLE[2 * n + 1] = n == PIECES - 1 ? 0x80000000 : 0;
    }
    out32(0xCF8, 0x80000000 | 1 << 11 | 1 << 8 | 4);
    out32(0xCFC, 5);
    master = config(1, 0x20) & 0xFFF0;
    out32(0xCF8, 0x80000000 | 2 << 11 | 0x10);
    screen = (volatile u32 *)(in32(0xCFC) & ~15u);
    vbe(4, 0);
    vbe(1, 1024);
    vbe(2, 768);
    vbe(3, 32);
    vbe(4, 0x41);
    out8(0x70, 0x0A);
    out8(0x71, 0x26);
    out8(0x70, 0x0B);
    out8(0x71, 0x42);
    out8(0x3F6, 2);

    for (const char *text = "begin\n"; *text; text++)
        out8(0x402, *text);
    prepare();
    before = ticks();
    out8(master, 9);
    record(&kinds[1], ticks() - before);
    begin = ticks();
    while ((u32)((ticks() - begin) >> 20) < units) {
        before = ticks();
        u8 status = in8(0x3F6);
        record(&kinds[0], ticks() - before);
        if (!(status & 0x80)) {
            done++;
            in8(0x1F7);
            out8(master, 0);
            prepare();
            before = ticks();
            out8(master, 9);
            record(&kinds[1], ticks() - before);
        }
        out8(0x70, 0x0C);
        before = ticks();
        u8 flags = in8(0x71);
        record(&kinds[2], ticks() - before);
        seen += flags >> 6 & 1;
        screen[(done & 511) * 1024 + (seen & 1023)] = seen * 0x01010101;
    }
    u32 ran = (u32)((ticks() - begin) >> 20);
    print(calibrated);
    print(seen);
    print(ran);
    print(done);
    for (u32 n = 0; n < 3; n++) {
        out8(0x402, '\n');
        print(kinds[n].count);
        print(kinds[n].most);
        for (u32 i = 0; i < 32; i++)
            print(kinds[n].less[i]);
    }
    out8(0x402, '\n');
    out8(0x501, 0);
    for (;;)
        __asm__ volatile("cli; hlt");
}

__asm__(".globl _start\n_start: mov $stack_end, %esp\n push %ebx\n call work\n .bss\n .space 16384\nstack_end:\n .text");
