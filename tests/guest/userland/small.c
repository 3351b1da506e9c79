/* A 32-bit program without a library: integers, x87 and SSE through int 0x80. */
static int call(int number, int a, int b, int c)
{
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}

static void number(unsigned value)
{
    char text[11], *at = text + 10;
    *at = '\n';
    do
        *--at = (char)('0' + value % 10);
    while (value /= 10);
    call(4, 1, (int)at, (int)(text + 11 - at));
}

void _start(void)
{
    unsigned n, hash = 5381, crc = 0xFFFFFFFF;
    volatile long double x = 1;
    volatile double y = 0;
    for (n = 1; n < 100000; n++)
        hash = (hash << 5) + hash + n % 251, crc = (crc >> 1) ^ (0xEDB88320 & -((crc ^ n) & 1));
    number(hash);
    number(crc);
    for (n = 1; n < 30; n++)
        x = x * n / (n + 0.5L), y += 1.0 / n;
    number((unsigned)(x * 1e9L));
    number((unsigned)(y * 1e8));
    number((unsigned)call(20, 0, 0, 0) > 1);   /* getpid */
    call(1, 0, 0, 0);
}
