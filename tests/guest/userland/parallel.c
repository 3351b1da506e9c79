/* What processors that run at once must keep to, and how much they do together.

   parallel check N: N threads; a line for each rule: "name ok", or what was wrong.
   parallel speed N: N threads with a fixed amount of work each; prints the milliseconds. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define ROUNDS 20000
#define SPLITS 200
#define THREADS 16

static int threads;
static volatile int stop;
static pthread_barrier_t barrier;

static void run(void *(*work)(void *))
{
    pthread_t id[THREADS];
    pthread_barrier_init(&barrier, NULL, threads);
    for (long n = 0; n < threads; n++)
        if (pthread_create(&id[n], NULL, work, (void *)n))
            exit(3);
    for (int n = 0; n < threads; n++)
        pthread_join(id[n], NULL);
}

static void tell(const char *name, long wrong)
{
    if (wrong)
        printf("%s WRONG %ld\n", name, wrong);
    else
        printf("%s ok\n", name);
    fflush(stdout);
}

/* --- each read-modify-write with LOCK, of each size, also beside others in the same 8 bytes */

static struct { uint64_t q; uint32_t d; uint16_t w; uint8_t b[2]; uint64_t sub, xadd, adc, neg, odd; } sums;
static struct { char pad[3]; uint32_t d; } __attribute__((packed)) skewed;
static struct {
    char pad[4094];
    union { uint32_t d; struct { uint16_t before, behind; } __attribute__((packed)); } __attribute__((packed));
} __attribute__((packed, aligned(4096))) split;
static volatile int split_done;
static uint16_t split_sum = SPLITS;
static uint64_t bits[64];

static void *add(void *arg)
{
    long me = (long)arg;
    pthread_barrier_wait(&barrier);
    for (int n = 0; n < ROUNDS; n++) {
        uint64_t one = 1;
        __asm__ volatile("lock incq %0" : "+m"(sums.q));
        __asm__ volatile("lock addl $3, %0" : "+m"(sums.d));
        __asm__ volatile("lock incw %0" : "+m"(sums.w));
        __asm__ volatile("lock incb %0" : "+m"(sums.b[me & 1]));
        __asm__ volatile("lock decq %0" : "+m"(sums.sub));
        __asm__ volatile("lock xaddq %1, %0" : "+m"(sums.xadd), "+r"(one));
        __asm__ volatile("stc; lock adcq $1, %0" : "+m"(sums.adc));
        __asm__ volatile("lock xorl %1, %0" : "+m"(sums.odd) : "r"(1u << me));
        __asm__ volatile("lock negq %0" : "+m"(sums.neg));
        __asm__ volatile("lock addl $1, %0" : "+m"(skewed.d));
        __asm__ volatile("lock btsq %1, %0" : "+m"(bits) : "r"((uint64_t)(n & 63) * 64 + me));
        __asm__ volatile("lock btrq %1, %0" : "+m"(bits) : "r"((uint64_t)((n + 1) & 63) * 64 + me));
    }
    /* one adds over the end of a page, which others stand still for; they add to what lies behind it */
    pthread_barrier_wait(&barrier);
    if (me == 0) {
        for (int n = 0; n < SPLITS; n++) {
            uint16_t seen = *(volatile uint16_t *)&split.behind;
            while (threads > 1 && seen == *(volatile uint16_t *)&split.behind)
                ;                               /* somebody else is at it now */
            __asm__ volatile("lock addl $0x10000, %0" : "+m"(split.d));
        }
        split_done = 1;
        return NULL;
    }
    uint16_t mine = 0;
    for (; !split_done; mine++)
        __asm__ volatile("lock incw %0" : "+m"(split.behind));
    __atomic_fetch_add(&split_sum, mine, __ATOMIC_SEQ_CST);
    return NULL;
}

static void check_add(void)
{
    uint64_t all = (uint64_t)threads * ROUNDS, half = (uint64_t)(threads / 2) * ROUNDS, set = 0;
    sums.neg = 5;
    run(add);
    tell("inc", sums.q != all);
    tell("add", sums.d != (uint32_t)(3 * all));
    tell("incw", sums.w != (uint16_t)all);
    tell("incb", sums.b[1] != (uint8_t)half || sums.b[0] != (uint8_t)(all - half));
    tell("dec", sums.sub != -all);
    tell("xadd", sums.xadd != all);
    tell("adc", sums.adc != 2 * all);
    tell("xor", sums.odd != 0);
    tell("neg", sums.neg != (all & 1 ? (uint64_t)-5 : 5));
    tell("skewed", skewed.d != (uint32_t)all);
    tell("split", split.behind != split_sum || split.before);
    for (int n = 0; n < 64; n++)
        set += __builtin_popcountll(bits[n]);
    tell("bts", set != 63ull * threads);        /* each thread has taken back one of its 64 */
}

/* --- a lock by xchg around what is not atomic; a stack by cmpxchg16b */

static volatile int spin;
static long guarded[8];
static struct node { struct node *next; long value; } nodes[64];
static struct { struct node *top; uint64_t count; } __attribute__((aligned(16))) stack;
static long lost;

static int swap16(struct node *top, uint64_t count, struct node *next)
{
    unsigned char done;
    __asm__ volatile("lock cmpxchg16b %1; setz %0"
                     : "=q"(done), "+m"(stack), "+a"(top), "+d"(count) : "b"(next), "c"(count + 1) : "memory", "cc");
    return done;
}

static struct node *pop(void)
{
    for (;;) {
        uint64_t count = *(volatile uint64_t *)&stack.count;
        struct node *top = *(struct node *volatile *)&stack.top;
        if (!top)
            return NULL;
        if (swap16(top, count, *(struct node *volatile *)&top->next))
            return top;
    }
}

static void push(struct node *node)
{
    for (;;) {
        uint64_t count = *(volatile uint64_t *)&stack.count;
        struct node *top = *(struct node *volatile *)&stack.top;
        *(struct node *volatile *)&node->next = top;
        if (swap16(top, count, node))
            return;
    }
}

static void *guard(void *arg)
{
    (void)arg;
    pthread_barrier_wait(&barrier);
    for (int n = 0; n < ROUNDS / 4; n++) {
        struct node *mine;
        while (__atomic_exchange_n(&spin, 1, __ATOMIC_SEQ_CST))
            sched_yield();
        for (int k = 0; k < 8; k++)
            guarded[k] = guarded[k] + 1;
        __atomic_store_n(&spin, 0, __ATOMIC_RELEASE);
        mine = pop();
        if (mine) {
            if (__atomic_fetch_add(&mine->value, 1, __ATOMIC_SEQ_CST) & 1)
                __atomic_fetch_add(&lost, 1, __ATOMIC_SEQ_CST);         /* two have it */
            __atomic_fetch_add(&mine->value, 1, __ATOMIC_SEQ_CST);
            push(mine);
        }
    }
    return NULL;
}

static void check_guard(void)
{
    long wrong = 0, count = 0;
    struct node *node;
    for (int n = 0; n < 64; n++)
        push(&nodes[n]);
    run(guard);
    for (int k = 0; k < 8; k++)
        wrong += guarded[k] != (long)threads * (ROUNDS / 4);
    tell("xchg", wrong);
    while ((node = pop()) && count++ < 100)
        ;
    tell("cmpxchg16b", lost || count != 64);
}

/* --- the order of stores and loads: with a fence between, two cannot both miss the other's store */

static volatile uint64_t left, right;
static long both, early;
static volatile uint64_t data, flag;

static void *order(void *arg)
{
    long me = (long)arg;
    static volatile uint64_t seen[2];
    for (uint64_t n = 1; n <= 600; n++) {
        pthread_barrier_wait(&barrier);
        if (me < 2) {
            if (me == 0)
                left = n;
            else
                right = n;
            if (n & 1)
                __asm__ volatile("mfence" ::: "memory");
            else
                __asm__ volatile("lock orl $0, (%%rsp)" ::: "memory", "cc");
            seen[me] = me == 0 ? right : left;
        } else if (me == 2) {
            data = n;
            flag = n;
        } else {
            uint64_t f = flag, d = data;
            if (d < f)
                __atomic_fetch_add(&early, 1, __ATOMIC_SEQ_CST);
        }
        pthread_barrier_wait(&barrier);
        if (me == 0 && seen[0] != n && seen[1] != n)
            both++;
    }
    return NULL;
}

static void check_order(void)
{
    run(order);
    tell("fence", both);
    tell("order", early);
}

/* --- a page is replaced: nobody sees the old one afterwards */

static char *place;
static volatile uint64_t published;
static long stale;

static void *mapping(void *arg)
{
    pthread_barrier_wait(&barrier);
    if (arg == NULL) {
        for (uint64_t n = 1; n <= 200; n++) {
            char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            *(volatile uint64_t *)page = n;
            mremap(page, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, place);
            published = n;
        }
        stop = 1;
        return NULL;
    }
    while (!stop) {
        uint64_t least = published, found = *(volatile uint64_t *)place;
        if (found < least)
            __atomic_fetch_add(&stale, 1, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

/* (between the unmapping of the old page and the move nobody may look: the move is one step under the kernel's lock) */
static void check_mapping(void)
{
    place = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    run(mapping);
    tell("unmapped", stale);
}

/* --- code is written by one and run by the others */

static unsigned char *code;
static volatile uint32_t version;
static long old;

static void *writing(void *arg)
{
    uint32_t (*call)(void) = (uint32_t (*)(void))(code + 3);
    pthread_barrier_wait(&barrier);
    if (arg == NULL) {
        for (uint32_t n = 1; n <= 20000; n++) {
            *(volatile uint32_t *)(code + 4) = n;
            version = n;
        }
        stop = 1;
        return NULL;
    }
    while (!stop) {
        uint32_t least = version;
        if (call() < least)
            __atomic_fetch_add(&old, 1, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

static void check_code(void)
{
    stop = 0;
    code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code + 3, "\xb8\x00\x00\x00\x00\xc3", 6);     /* mov $n, %eax; ret, the number on 4 bytes */
    run(writing);
    tell("code", old);
}

/* --- how much they do together */

static void *labour(void *arg)
{
    uint64_t a = (uint64_t)arg + 1, table[256];
    memset(table, 0, sizeof table);
    pthread_barrier_wait(&barrier);
    for (int n = 0; n < 30000000; n++) {
        a = a * 6364136223846793005ull + 1442695040888963407ull;
        table[a >> 56] += a ^ table[(a >> 48) & 255];
    }
    return (void *)table[7];
}

int main(int count, char **words)
{
    threads = count > 2 ? atoi(words[2]) : 4;
    if (count > 1 && !strcmp(words[1], "speed")) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        run(labour);
        clock_gettime(CLOCK_MONOTONIC, &b);
        printf("SPEED %d %ld\n", threads, (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000);
        return 0;
    }
    check_add();
    check_guard();
    check_order();
    check_mapping();
    check_code();
    printf("CHECKED\n");
    return 0;
}
