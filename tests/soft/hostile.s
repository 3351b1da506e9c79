# Long mode with an IDT whose handlers log vector, error code and CR2, and go on at the address in `resume`.
# Put in front of the cases; the log is dwords on port 0xe9, a write to port 0xf4 ends.
#   0x8000 resume, 0x8008 its stack, 0x9000 IDT, 0x10000 page tables: 2 MiB by 4 KiB pages, identity; 0x13000 the PT
        .set    resume, 0x8000
        .set    kept, 0x8008
        .set    table, 0x13000
        .macro  out value
        movl    \value, %eax
        call    log
        .endm
        .macro  try                     # what follows is expected to fault
        movq    %rsp, kept
        leaq    9f(%rip), %rax
        movq    %rax, resume
        .endm
        .macro  done                    # it did not
        out     $0x600d
9:
        .endm
        .text
        .code16
        .globl  start
start:  cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        lgdtl   %cs:gdtr - 0xf0000
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $8, $protected
        .code32
protected:
        movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $0x7000, %esp
        movl    $0x10000, %edi
        xorl    %eax, %eax
        movl    $0x1000, %ecx
        rep stosl
        movl    $0x11007, 0x10000
        movl    $0x12007, 0x11000
        movl    $0x13007, 0x12000
        movl    $0x07, %eax
        movl    $0x13000, %edi
        movl    $512, %ecx
1:      movl    %eax, (%edi)
        addl    $0x1000, %eax
        addl    $8, %edi
        loop    1b
        movl    $0x620, %eax            # PAE, OSFXSR, OSXMMEXCPT
        movl    %eax, %cr4
        movl    $0x10000, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx
        movl    $0x901, %eax            # SCE LME NXE
        xorl    %edx, %edx
        wrmsr
        movl    $0x80010033, %eax       # PG WP NE ET MP PE
        movl    %eax, %cr0
        ljmp    $0x18, $long
        .code64
long:   movl    $0x7000, %esp
        movl    $0x9000, %edi           # gates to `stubs`, 16 bytes each
        leaq    stubs(%rip), %rax
        movl    $32, %ecx
1:      movw    %ax, (%rdi)
        movl    $0x8e000018, 2(%rdi)
        movq    %rax, %rdx
        shrq    $16, %rdx
        movl    %edx, 6(%rdi)
        movl    $0, 10(%rdi)
        movw    $0, 14(%rdi)
        addq    $16, %rax
        addq    $16, %rdi
        loop    1b
        lidt    idtr(%rip)
        jmp     cases

log:    movl    $4, %ecx                # EAX
1:      outb    %al, $0xe9
        shrl    $8, %eax
        loop    1b
        ret

        .balign 16
stubs:
        .set    n, 0
        .rept   32
        .balign 16
        .if     n != 8 && n != 10 && n != 11 && n != 12 && n != 13 && n != 14 && n != 17
        pushq   $0
        .endif
        pushq   $n
        jmp     handler
        .set    n, n + 1
        .endr
handler:
        movl    (%rsp), %eax
        call    log
        movl    8(%rsp), %eax
        call    log
        cmpl    $14, (%rsp)
        jne     1f
        movq    %cr2, %rax
        call    log
1:      movq    kept, %rsp
        pushq   $0x10
        leaq    8(%rsp), %rax
        pushq   %rax
        pushq   $2
        pushq   $0x18
        pushq   resume
        movl    $0x80010033, %eax
        movq    %rax, %cr0
        iretq

        .balign 8
gdt:    .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
        .quad   0x00cf13000000ffff      # 20: data, not present
        .quad   0x00cfff000000ffff      # 28: conforming code of ring 3
gdtr:   .word   0x2f
        .long   gdt
idtr:   .word   32 * 16 - 1
        .quad   0x9000
cases:
