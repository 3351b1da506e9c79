/* Performance counters of the second processor through perf_event_open: instructions of a loop, of the kernel's, and a
   signal for so many of them. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile int signals;

static void came(int number) { signals++; (void)number; }

static int counter(unsigned long config, int user, int kernel, unsigned long period)
{
    struct perf_event_attr attr;
    int fd;
    memset(&attr, 0, sizeof attr);
    attr.type = PERF_TYPE_HARDWARE;
    attr.size = sizeof attr;
    attr.config = config;
    attr.disabled = 1;
    attr.exclude_user = !user;
    attr.exclude_kernel = !kernel;
    attr.exclude_hv = 1;
    attr.sample_period = period;
    attr.wakeup_events = period != 0;
    fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
    if (fd < 0)
        perror("perf_event_open");
    return fd;
}

static void loop(long rounds)
{
    __asm__ volatile("1: add %0, %%rax; dec %0; jnz 1b" : "+r"(rounds) : : "rax", "cc");
}

static long long value(int fd)
{
    long long found = -1;
    ioctl(fd, PERF_EVENT_IOC_DISABLE, 0);
    return read(fd, &found, sizeof found) == sizeof found ? found : -1;
}

int main(void)
{
    int fd = counter(PERF_COUNT_HW_INSTRUCTIONS, 1, 0, 0), n;
    long long found;
    cpu_set_t second;
    CPU_ZERO(&second);
    CPU_SET(1, &second);
    if (sched_setaffinity(0, sizeof second, &second))
        perror("sched_setaffinity");
    ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
    loop(1000000);
    found = value(fd);
    printf("user: %s\n", found >= 3000000 && found < 3005000 ? "as many" : "other");
    if (!(found >= 3000000 && found < 3005000))
        printf("%lld\n", found);

    fd = counter(PERF_COUNT_HW_INSTRUCTIONS, 0, 1, 0);
    ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
    for (n = 0; n < 1000; n++)
        syscall(SYS_getppid);
    found = value(fd);
    printf("kernel: %s\n", found > 20000 && found < 2000000 ? "so many" : "other");
    if (!(found > 20000 && found < 2000000))
        printf("%lld\n", found);

    fd = counter(PERF_COUNT_HW_CPU_CYCLES, 1, 1, 0);
    ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
    loop(1000000);
    printf("cycles: %d\n", value(fd) > 0);

    signal(SIGIO, came);
    fd = counter(PERF_COUNT_HW_INSTRUCTIONS, 1, 0, 100000);
    fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK);
    fcntl(fd, F_SETOWN, getpid());
    ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
    loop(1000000);
    ioctl(fd, PERF_EVENT_IOC_DISABLE, 0);
    printf("signals: %s\n", signals >= 28 && signals <= 32 ? "as many" : "other");
    if (!(signals >= 28 && signals <= 32))
        printf("%d\n", signals);
    return 0;
}
