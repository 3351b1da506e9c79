/* Work for a processor, the same natively and in a guest: eight computations, then what only a kernel can do.

   With names as arguments: runs them and prints "name seconds checksum", the seconds being its own CPU time and its
   children's. As process 1 (the init of a Linux guest): says "ready", then runs what it is told, a line each, and says
   "done checksum". Whoever listens takes the time while it waits. "4x10 name" is ten times in each of four processes at
   once. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

typedef uint64_t u64;
typedef uint32_t u32;
#define APART __attribute__((noinline, noclone))

static u64 state;

static u64 chance(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* --- records, strings and calls, as old benchmarks of whole programs have them */

struct record {
    struct record *next;
    int kind, number;
    char name[32];
};

static APART int same(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

static APART int choose(int kind, int number)
{
    switch (kind) {
    case 0: return number + 10;
    case 1: return number > 100 ? number - 7 : number * 3;
    case 2: return number & 0xff;
    default: return number ^ kind;
    }
}

static APART void assign(struct record *to, const struct record *from, int n)
{
    struct record *keep = to->next;
    *to = *from;
    to->next = keep;
    to->kind = n & 3;
    to->number = choose(to->kind, from->number + n);
    to->name[8] = (char)('A' + n % 26);
}

static u64 dhrystone(void)
{
    static struct record a, b;
    static int table[50];
    u64 sum = 0;
    int n, k;
    strcpy(a.name, "A RECORD OF SOME LENGTH");
    a.next = &b;
    b = a;
    b.next = &a;
    for (n = 0; n < 1500000; n++) {
        assign(a.next, &a, n);
        if (!same(a.name, b.name))
            sum += (u64)b.number;
        for (k = n & 7; k < 12; k++)
            table[k + (n & 31)] = table[k] + n / (k + 1);
        assign(b.next, &b, n + 1);
        sum = sum * 3 + (u64)table[n % 50];
    }
    return sum;
}

/* --- SHA-256 (FIPS 180-4); the constants are computed from the primes */

static u32 round_constants[64];

static u32 fraction(int prime)
{
    /* 32 bits of the fraction of the cube root, by bisection in integers */
    u64 low = 0, high = (u64)8 << 32;
    while (high - low > 1) {
        u64 mid = (low + high) / 2;
        unsigned __int128 square = (unsigned __int128)mid * mid >> 32;
        if ((square * mid >> 32) >= (unsigned __int128)prime << 32)
            high = mid;
        else
            low = mid;
    }
    return (u32)low;
}

static u32 turn(u32 v, int by) { return v >> by | v << (32 - by); }

static APART void digest(u32 *h, const u32 *block)
{
    u32 w[64], v[8];
    int n;
    memcpy(w, block, 64);
    for (n = 16; n < 64; n++)
        w[n] = (turn(w[n - 2], 17) ^ turn(w[n - 2], 19) ^ w[n - 2] >> 10) + w[n - 7] + w[n - 16]
            + (turn(w[n - 15], 7) ^ turn(w[n - 15], 18) ^ w[n - 15] >> 3);
    memcpy(v, h, 32);
    for (n = 0; n < 64; n++) {
        u32 one = v[7] + (turn(v[4], 6) ^ turn(v[4], 11) ^ turn(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6]))
            + round_constants[n] + w[n];
        u32 two = (turn(v[0], 2) ^ turn(v[0], 13) ^ turn(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 28);
        v[4] += one;
        v[0] = one + two;
    }
    for (n = 0; n < 8; n++)
        h[n] += v[n];
}

static u64 sha256(void)
{
    u32 h[8] = {1, 2, 3, 4, 5, 6, 7, 8}, block[16];
    int n, found = 0, k;
    for (n = 2; found < 64; n++) {
        for (k = 2; k * k <= n && n % k; k++)
            ;
        if (k * k > n)
            round_constants[found++] = fraction(n);
    }
    for (n = 0; n < 60000; n++) {
        for (k = 0; k < 16; k++)
            block[k] = h[k & 7] + (u32)(n * k);
        digest(h, block);
    }
    return (u64)h[0] << 32 | h[7];
}

/* --- quicksort */

static APART void sort(u32 *a, int low, int high)
{
    while (low < high) {
        u32 middle = a[(low + high) / 2], t;
        int i = low, k = high;
        while (i <= k) {
            while (a[i] < middle)
                i++;
            while (a[k] > middle)
                k--;
            if (i <= k) {
                t = a[i];
                a[i++] = a[k];
                a[k--] = t;
            }
        }
        sort(a, low, k);
        low = i;
    }
}

static u64 quicksort(void)
{
    static u32 a[350000];
    u64 sum = 0;
    int n, count = sizeof a / sizeof *a;
    for (n = 0; n < count; n++)
        a[n] = (u32)chance();
    sort(a, 0, count - 1);
    for (n = 0; n < count; n += 7)
        sum = sum * 31 + a[n];
    return sum;
}

/* --- an interpreter of byte code: indirect jumps */

static u64 bytecode(void)
{
    static const unsigned char program[] = {0, 5, 1, 2, 7, 4, 3, 6, 1, 0, 2, 3, 5, 7, 4, 8};
    static const void *const labels[] = {&&add, &&shift, &&mask, &&times, &&turned, &&swap, &&less, &&store, &&again};
    u64 a = 1, b = 2, t, cells[8] = {0};
    const unsigned char *p = program;
    int left = 2500000;
#define GO goto *labels[*p++]
    GO;
add: a += b; GO;
shift: a ^= a >> 3; GO;
mask: b &= 0xffffffffffff; GO;
times: b = b * 5 + 1; GO;
turned: a = a << 9 | a >> 55; GO;
swap: t = a; a = b; b = t; GO;
less: if (a < b) a++; GO;
store: cells[a & 7] += b; GO;
again:
    p = program;
    if (--left)
        GO;
    return a ^ b ^ cells[3];
}

/* --- memory: whole vectors of integers, and a chain of pointers */

static u64 memory(void)
{
    static u32 a[65536], b[65536], c[65536];
    u32 sum = 0;
    int n, k;
    for (n = 0; n < 65536; n++) {
        a[n] = (u32)n * 2654435761u;
        b[n] = (u32)n ^ 0x5555;
    }
    for (k = 0; k < 800; k++)
        for (n = 0; n < 65536; n += 4)
            __asm__ volatile("movdqa (%0), %%xmm0\n\tpaddd (%1), %%xmm0\n\tpxor %%xmm1, %%xmm1\n\t"
                             "psubd %%xmm0, %%xmm1\n\tpand (%0), %%xmm1\n\tmovdqa %%xmm1, (%2)"
                             : : "r"(a + n), "r"(b + n), "r"(c + (n ^ 64)) : "xmm0", "xmm1", "memory");
    for (n = 0; n < 65536; n++)
        sum = sum * 3 + c[n];
    return sum;
}

static u64 chase(void)
{
    enum { CELLS = (4 << 20) / 64 };
    static struct { u32 next, pad[15]; } cells[CELLS];
    static u32 order[CELLS];
    u32 n, at = 0;
    u64 sum = 0;
    for (n = 0; n < CELLS; n++)
        order[n] = n;
    for (n = CELLS - 1; n; n--) {
        u32 k = (u32)(chance() % n), t = order[n];
        order[n] = order[k];
        order[k] = t;
    }
    for (n = 0; n < CELLS; n++)
        cells[order[n]].next = order[(n + 1) % CELLS];
    for (n = 0; n < 1500000; n++) {
        at = cells[at].next;
        sum += at;
    }
    return sum;
}

/* --- floating point: scalar doubles, packed floats */

static u64 nbody(void)
{
    double x[5][3], v[5][3], m[5], sum = 0;
    int n, i, k, d;
    for (i = 0; i < 5; i++) {
        m[i] = 1.0 / (i + 1);
        for (d = 0; d < 3; d++) {
            x[i][d] = (i * 7 + d * 3) % 11 - 5.0;
            v[i][d] = (i + d) * 0.01;
        }
    }
    for (n = 0; n < 300000; n++) {
        for (i = 0; i < 5; i++)
            for (k = i + 1; k < 5; k++) {
                double e[3], s = 0.01, f;
                for (d = 0; d < 3; d++) {
                    e[d] = x[i][d] - x[k][d];
                    s += e[d] * e[d];
                }
                f = 0.001 / (s * __builtin_sqrt(s));
                for (d = 0; d < 3; d++) {
                    v[i][d] -= e[d] * m[k] * f;
                    v[k][d] += e[d] * m[i] * f;
                }
            }
        for (i = 0; i < 5; i++)
            for (d = 0; d < 3; d++)
                x[i][d] += 0.001 * v[i][d];
    }
    for (i = 0; i < 5; i++)
        sum += x[i][0] + x[i][1] * 3 + x[i][2] * 7;
    memcpy(&state, &sum, 8);
    return state;
}

typedef float vector __attribute__((vector_size(16)));

static u64 packed(void)
{
    static vector a[1024], b[1024];
    vector sum = {0, 0, 0, 0}, low = {-2, -2, -2, -2};
    float out[4];
    u64 bits[2];
    int n, k;
    for (n = 0; n < 1024; n++)
        for (k = 0; k < 4; k++) {
            ((float *)&a[n])[k] = (float)(n % 37) * 0.25f - (float)k;
            ((float *)&b[n])[k] = (float)(n % 11) + 0.5f;
        }
    for (k = 0; k < 5000; k++)
        for (n = 0; n < 1024; n++) {
            vector t = a[n] * b[n] + sum * (vector){0.5f, 0.25f, 0.125f, 0.0625f};
            t = __builtin_ia32_maxps(t, low);
            sum = (t - b[n]) * (vector){0.75f, 0.75f, 0.75f, 0.75f} + a[(n + k) & 1023];
        }
    memcpy(out, &sum, 16);
    memcpy(bits, out, 16);
    return bits[0] ^ bits[1] * 3;
}

/* --- what the kernel does */

static u64 syscalls(void)
{
    u64 sum = 0;
    int n;
    for (n = 0; n < 100000; n++)
        sum += syscall(SYS_getppid) >= 0;
    return sum;
}

static u64 faults(void)
{
    u64 sum = 0;
    int n, k;
    for (n = 0; n < 200; n++) {
        char *p = mmap(NULL, 64 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (k = 0; k < 64; k++)
            sum += (u64)(++p[k << 12]);
        munmap(p, 64 << 12);
    }
    return sum;
}

static u64 forks(void)
{
    static char pages[64 << 12];
    u64 sum = 0;
    int n, k, status;
    for (n = 0; n < 100; n++) {
        pid_t child;
        for (k = 0; k < 64; k++)
            pages[k << 12]++;
        child = fork();
        if (child == 0)
            _exit(pages[0] & 63);
        waitpid(child, &status, 0);
        sum += (u64)WEXITSTATUS(status);
    }
    return sum;
}

static u64 execs(void)
{
    volatile u64 sum = 0;
    int n, status;
    for (n = 0; n < 60; n++) {
        pid_t child = vfork();
        if (child == 0) {
            execl("/proc/self/exe", "kernels", "nothing", (char *)NULL);
            execl("/init", "kernels", "nothing", (char *)NULL);
            _exit(9);
        }
        waitpid(child, &status, 0);
        sum += (u64)WEXITSTATUS(status);
    }
    return sum;
}

static const struct {
    const char *name;
    u64 (*run)(void);
} kernels[] = {
    {"dhrystone", dhrystone}, {"sha256", sha256}, {"quicksort", quicksort}, {"bytecode", bytecode},
    {"memory", memory}, {"chase", chase}, {"nbody", nbody}, {"packed", packed},
    {"syscalls", syscalls}, {"faults", faults}, {"forks", forks}, {"execs", execs},
};

static u64 together(unsigned count, unsigned times, const char *name);

static u64 run(const char *name)
{
    unsigned n, processes, times;
    int at;
    if (sscanf(name, "%ux%u %n", &processes, &times, &at) == 2)
        return together(processes, times, name + at);
    state = 88172645463325252u;
    for (n = 0; n < sizeof kernels / sizeof *kernels; n++)
        if (!strcmp(name, kernels[n].name))
            return kernels[n].run();
    return 0;
}

/* The same work in each of `count` processes; their checksums' exclusive or with the number of those that ended well. */
static u64 together(unsigned count, unsigned times, const char *name)
{
    u64 *sums = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    u64 all = 0;
    unsigned n;
    int status;
    for (n = 0; n < count; n++)
        if (fork() == 0) {
            while (times--)
                sums[n] = run(name);
            _exit(0);
        }
    while (wait(&status) > 0)
        all += status == 0;
    for (n = 0; n < count; n++)
        all ^= sums[n];
    munmap(sums, 4096);
    return all;
}

static double spent(void)
{
    struct rusage own, theirs;
    getrusage(RUSAGE_SELF, &own);
    getrusage(RUSAGE_CHILDREN, &theirs);
    return (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec + theirs.ru_utime.tv_sec + theirs.ru_stime.tv_sec)
        + 1e-6 * (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec + theirs.ru_utime.tv_usec + theirs.ru_stime.tv_usec);
}

int main(int count, char **words)
{
    char line[64];
    int n;
    if (count > 1 && !strcmp(words[1], "nothing"))
        return 3;
    if (getpid() == 1) {
        struct termios raw;
        tcgetattr(0, &raw);
        raw.c_lflag &= ~(tcflag_t)(ECHO | ISIG);
        tcsetattr(0, TCSANOW, &raw);
        printf("ready\n");
        while (fflush(stdout), fgets(line, sizeof line, stdin)) {
            line[strcspn(line, "\r\n")] = 0;
            printf("done %016llx\n", (unsigned long long)run(line));
        }
        return 0;
    }
    for (n = 1; n < count; n++) {
        double began = spent();
        u64 sum = run(words[n]);
        printf("%s %.6f %016llx\n", words[n], spent() - began, (unsigned long long)sum);
    }
    return 0;
}
