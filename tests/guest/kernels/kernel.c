/* A kernel that says what its loader gave it, on COM1, and leaves through isa-debug-exit.
 *
 * -DMB1, -DMB2, -DPVH, -DBOOT_PARAMS choose how it is entered; the last also as 64-bit code.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef __UINTPTR_TYPE__ word;

static inline void outb(u16 port, u8 value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static inline u8 inb(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void say(const char *text)
{
    for (; *text; text++) {
        while (!(inb(0x3fd) & 0x20))
            ;
        outb(0x3f8, *text);
    }
}

static void number(u64 value)
{
    char text[17];
    int n = 16;
    text[16] = 0;
    do
        text[--n] = "0123456789abcdef"[value & 15];
    while (value >>= 4);
    say(text + n);
}

static void row(const char *name, u64 value)
{
    say(name);
    say(" ");
    number(value);
    say("\n");
}

static void line(const char *name, word text)
{
    say(name);
    say(" [");
    say(text ? (const char *)text : "");
    say("]\n");
}

static void range(const char *name, u64 addr, u64 size, u32 type)
{
    say(name);
    say(" ");
    number(addr);
    say(" ");
    number(size);
    say(" ");
    number(type);
    say("\n");
}

static void sum(const char *name, word at, word size)
{
    u32 total = 0;
    while (size--)
        total += *(u8 *)at++;
    row(name, total);
}

static void rsdp(u64 at)
{
    row("rsdp", at ? *(u64 *)(word)at : 0);
}

/* What every way of starting must leave behind. */
extern u32 cleared;
static void state(void)
{
    word cr0, flags, cr4;
    u16 cs, ss;
    __asm__ volatile("mov %%cr0, %0; mov %%cr4, %1; mov %%cs, %2; mov %%ss, %3; pushf; pop %4"
                     : "=r"(cr0), "=r"(cr4), "=r"(cs), "=r"(ss), "=r"(flags));
    row("paging", cr0 >> 31 & 1);
    row("protected", cr0 & 1);
    row("interrupts", flags >> 9 & 1);
    row("bss", cleared);
    cleared = 1;
    sum("rom", 0xffff0, 5);
    outb(0x3f8 + 3, 3);
}

static void leave(u8 code)
{
    outb(0x501, code);
    for (;;)
        __asm__ volatile("cli; hlt");
}

u32 cleared;

#ifdef MB1
struct mods { u32 start, end, text, zero; };
void kernel(u32 magic, u32 *info)
{
    u32 flags = info[0], n, at;
    row("magic", magic);
    state();
    row("flags", flags);
    if (flags & 1) {
        row("lower", info[1]);
        row("upper", info[2]);
    }
    if (flags & 4)
        line("cmdline", info[4]);
    if (flags & 8) {
        struct mods *mods = (struct mods *)info[6];
        for (n = 0; n < info[5]; n++) {
            line("module", mods[n].text);
            row("size", mods[n].end - mods[n].start);
            row("misaligned", mods[n].start & 4095);
            sum("sum", mods[n].start, mods[n].end - mods[n].start);
        }
    }
    if (flags & 64)
        for (at = info[12]; at < info[12] + info[11]; at += *(u32 *)at + 4)
            range("memory", *(u64 *)(at + 4), *(u64 *)(at + 12), *(u32 *)(at + 20));
    if (flags & 512)
        line("loader", info[16]);
    leave(0x21);
}
#endif

#ifdef MB2
void kernel(u32 magic, u32 info)
{
    u32 at = info + 8, n;
    row("magic", magic);
    state();
    row("misaligned", info & 7);
    for (; at < info + *(u32 *)info; at += (((u32 *)at)[1] + 7) & ~7u) {
        u32 *tag = (u32 *)at;
        if (tag[0] == 0)
            break;
        if (tag[0] == 1)
            line("cmdline", at + 8);
        if (tag[0] == 2)
            line("loader", at + 8);
        if (tag[0] == 3) {
            line("module", at + 16);
            row("size", tag[3] - tag[2]);
            row("misaligned", tag[2] & 4095);
            sum("sum", tag[2], tag[3] - tag[2]);
        }
        if (tag[0] == 4) {
            row("lower", tag[2]);
            row("upper", tag[3]);
        }
        if (tag[0] == 6)
            for (n = at + 16; n < at + tag[1]; n += tag[2])
                range("memory", *(u64 *)n, *(u64 *)(n + 8), *(u32 *)(n + 16));
        if (tag[0] == 14)
            rsdp(at + 8);
        if (tag[0] == 21)
            row("base", tag[2]);
    }
    leave(0x22);
}
#endif

#ifdef PVH
struct start { u32 magic, version, flags, modules; u64 list, cmdline, rsdp, map; u32 entries, zero; };
void kernel(u32 magic, struct start *info)
{
    u32 n;
    (void)magic;
    row("magic", info->magic);
    state();
    row("version", info->version);
    line("cmdline", info->cmdline);
    for (n = 0; n < info->modules; n++) {
        u64 *module = (u64 *)(word)info->list + 4 * n;
        row("size", module[1]);
        sum("sum", module[0], module[1]);
    }
    if (info->version)
        for (n = 0; n < info->entries; n++) {
            u64 *entry = (u64 *)(word)(info->map + 24 * n);
            range("memory", entry[0], entry[1], (u32)entry[2]);
        }
    rsdp(info->rsdp);
    leave(0x23);
}
#endif

#ifdef BOOT_PARAMS
void kernel(word params)
{
    u8 *page = (u8 *)params;
    u32 n;
    row("magic", *(u32 *)(page + 0x202));
    state();
    row("bits", 8 * sizeof(word));
    row("loader", page[0x210]);
    line("cmdline", *(u16 *)(page + 0x20) == 0xa33f ? params + *(u16 *)(page + 0x22) : *(u32 *)(page + 0x228));
    row("size", *(u32 *)(page + 0x21c));
    if (*(u32 *)(page + 0x21c))
        sum("sum", *(u32 *)(page + 0x218), *(u32 *)(page + 0x21c));
    for (n = 0; n < page[0x1e8]; n++) {
        u8 *entry = page + 0x2d0 + 20 * n;
        range("memory", *(u64 *)entry, *(u64 *)(entry + 8), *(u32 *)(entry + 16));
    }
    rsdp(*(u64 *)(page + 0x70));
    leave(0x24);
}
#endif
