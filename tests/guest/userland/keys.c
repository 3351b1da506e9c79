/* Protection keys: what is forbidden, told by SIGSEGV; in the kernel, over a fork, and pages that only execute. */
#define _GNU_SOURCE
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static sigjmp_buf back;
static int key_told, by_key;

static void told(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    key_told = info->si_pkey;
    by_key = info->si_code == SEGV_PKUERR;
    siglongjmp(back, 1);
}

static void forbidden(const char *what, int key)
{
    printf("%s: %d %d\n", what, key_told == key, by_key);
    key_told = by_key = 0;
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = told, .sa_flags = SA_SIGINFO | SA_NODEFER};
    volatile char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int key = pkey_alloc(0, 0), status = -1, n;
    pid_t child;
    sigaction(SIGSEGV, &action, 0);
    page[0] = 5;
    pkey_mprotect((void *)page, 4096, PROT_READ | PROT_WRITE, key);
    pkey_set(key, PKEY_DISABLE_WRITE);
    printf("key %d, byte %d\n", key, page[0]);
    if (!sigsetjmp(back, 1))
        page[0] = 1;
    else
        forbidden("write", key);
    pkey_set(key, PKEY_DISABLE_ACCESS);
    if (!sigsetjmp(back, 1))
        n = page[0];
    else
        forbidden("read", key);
    printf("by the kernel: %d\n", (int)write(1, (void *)page, 1));
    fflush(stdout);
    child = fork();
    if (!child) {
        if (!sigsetjmp(back, 1)) {
            n = page[0];
            _exit(1);
        }
        pkey_set(key, PKEY_DISABLE_ACCESS);
        for (n = 0; n < 1000; n++)
            sched_yield();
        _exit(pkey_get(key) == PKEY_DISABLE_ACCESS ? 7 : 2);
    }
    for (n = 0; n < 1000; n++) {
        pkey_set(key, 0);
        sched_yield();
        page[0] = n;
    }
    waitpid(child, &status, 0);
    printf("child: %d\n", WEXITSTATUS(status));
    mprotect((void *)(page + 4096), 4096, PROT_EXEC);
    if (!sigsetjmp(back, 1))
        n = page[4096];
    else
        printf("code alone: %d\n", by_key);
    return 0;
}
