/* The first instructions of kernel.c, with the headers that loaders look for. */
#ifdef MB1
    .section .head, "ax"
    .align 4
    .long 0x1badb002, MB1_FLAGS, -(0x1badb002 + MB1_FLAGS)
#if MB1_FLAGS & 0x10000
    .long header_at, load_at, load_end, bss_end, entry
header_at = load_at
#endif
#endif
#ifdef MB2
    .section .head, "ax"
    .align 8
head:
    .long 0xe85250d6, 0, head_end - head, -(0xe85250d6 + (head_end - head))
    .align 8
    .short 1, 0                     /* information request: memory map, ACPI */
    .long 16, 6, 14
    .align 8
    .short 6, 0                     /* modules on pages */
    .long 8
    .align 8
    .short 0, 0
    .long 8
head_end:
#endif
#ifdef PVH
    .section .note.Xen, "a", @note
    .align 4
    .long 4, 4, 18
    .asciz "Xen"
    .long entry
#endif

    .section .start, "ax"
    .globl entry
#if defined(BOOT_PARAMS)
#ifdef FLAT64                       /* a bzImage: 32-bit code first, 64-bit code 512 bytes later */
    .code32
    cli
    hlt
    .org 0x200
    .code64
#endif
entry:
#if defined(__x86_64__)
    leaq stack(%rip), %rsp
    movq %rsi, %rdi
    call kernel
#else
    movl $stack, %esp
    pushl %esi
    call kernel
#endif
#else
entry:
    movl $stack, %esp
    pushl $0
    popf
    pushl %ebx
    pushl %eax
    call kernel
#endif
    hlt
    .bss
    .align 16
    .skip 4096
stack:
    .section .note.GNU-stack, "", @progbits
