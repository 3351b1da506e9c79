/* Something to debug: in 64-bit mode it counts in `work`, and leaves when `counter` is LAST. */
    .section .note.Xen, "a", @note
    .align 4
    .long 4, 4, 18
    .asciz "Xen"
    .long entry

    .section .start, "ax"
    .globl entry, long_mode, work, own_trap, finish, counter, other
    .code32
entry:
    movl $stack, %esp
    movl $pdpt + 3, pml4
    movl $pd + 3, pdpt
    movl $0x83, pd
    movl $0x200083, pd + 8
    movl $pml4, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x620, %eax                /* PAE, OSFXSR, OSXMMEXCPT */
    movl %eax, %cr4
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    andl $~0xc, %eax                /* no EM, no TS */
    orl $0x80000001, %eax
    movl %eax, %cr0
    lgdt gdt_pointer
    ljmp $8, $long_mode

    .code64
long_mode:
    xorl %eax, %eax
    movw %ax, %ss
    movq $stack, %rsp
    movq $own_trap, %rax            /* the gate of vector 3 */
    movw %ax, idt + 48
    movw $8, idt + 50
    movb $0x8e, idt + 53
    shrq $16, %rax
    movw %ax, idt + 54
    lidt idt_pointer
    movq $0x123456789abcdef0, %rax
    movq %rax, %r15
#ifdef FLOAT                        /* a KVM that emulates the guest does not know these */
    fld1
    fldpi
    movq %rax, %xmm1
    int3                            /* the guest's own */
#endif
again:
    call work
    jmp again

work:
    incl counter
    movl counter, %eax
    addl %eax, other
    cmpl $LAST, %eax
    je finish
    ret

finish:
    movw $0x501, %dx
    xorl %eax, %eax
    outb %al, %dx
    hlt

own_trap:
    movl $0x77, trapped
    iretq

    .align 8
gdt:
    .quad 0, 0x00209b0000000000
gdt_pointer:
    .word 15
    .quad gdt
idt_pointer:
    .word 255
    .quad idt
    .bss
    .align 4096
pml4: .skip 4096
pdpt: .skip 4096
pd: .skip 4096
idt: .skip 256
counter: .skip 8
other: .skip 8
    .globl trapped
trapped: .skip 8
    .skip 4096
    .align 16
stack:
    .section .note.GNU-stack, "", @progbits
