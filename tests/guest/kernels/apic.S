/* Two processors and their local APICs, by the multiboot way in. On COM1 it says, letter by letter, what worked:
 * T one-shot timer, P periodic timer, A second processor up by INIT and SIPI, I interrupt from one to the other,
 * B and the same back, M held while the task priority forbids it, R and delivered when that ends.
 */
    .set APIC, 0xfee00000
    .set TRAMPOLINE, 0x9000

    .macro out_letter letter
    movb $\letter, %al
    movw $0x3f8, %dx
    outb %al, %dx
    .endm

    .macro go_back                  /* iret, which a KVM that emulates code without paging does not know */
    pushl 8(%esp)
    popfl
    ret $8
    .endm

    .macro wait_for what, least
1:  pause
    cmpl $\least, \what
    jb 1b
    .endm

    .section .head, "ax"
    .align 4
    .long 0x1badb002, 3, -(0x1badb002 + 3)

    .section .start, "ax"
    .globl entry
entry:
    movl $stack, %esp
    lgdt gdt_pointer
    ljmp $8, $1f
1:  movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $timer, %eax
    movl $0x40, %ecx
    call gate
    movl $ipi, %eax
    movl $0x41, %ecx
    call gate
    lidt idt_pointer
    movl $APIC, %ebx
    movl $0x1ff, 0xf0(%ebx)         /* on, spurious vector ffh */
    movl $0x10000, 0x350(%ebx)      /* nothing from the 8259A */
    movl $0xb, 0x3e0(%ebx)          /* the timer counts every tick */
    sti

    movl $0x40, 0x320(%ebx)
    movl $100000, 0x380(%ebx)
    wait_for ticks, 1
    out_letter 'T'
    movl $0x20040, 0x320(%ebx)
    movl $100000, 0x380(%ebx)
    wait_for ticks, 6
    movl $0x10040, 0x320(%ebx)
    out_letter 'P'

    movl $trampoline, %esi
    movl $TRAMPOLINE, %edi
    movl $trampoline_end - trampoline, %ecx
    rep movsb
    movl $0xc4500, 0x300(%ebx)      /* INIT to all others */
    movl $0x10000, %ecx
1:  pause
    loop 1b
    movl $0xc4600 | TRAMPOLINE >> 12, 0x300(%ebx)
    wait_for second_up, 1
    out_letter 'A'

    movl $1 << 24, 0x310(%ebx)
    movl $0x4041, 0x300(%ebx)
    wait_for ipis + 4, 1
    out_letter 'I'
    wait_for ipis, 1                /* its answer */
    out_letter 'B'

    movl $0x50, 0x80(%ebx)          /* task priority above 41h */
    movl $0x44041, 0x300(%ebx)      /* to itself */
    movl $0x10000, %ecx
1:  pause
    loop 1b
    cmpl $1, ipis
    jne 2f
    out_letter 'M'
2:  movl $0, 0x80(%ebx)
    wait_for ipis, 2
    out_letter 'R'
    movb $0x25, %al
    movw $0x501, %dx
    outb %al, %dx
    cli
    hlt

gate:                               /* vector %ecx leads to %eax */
    movw %ax, idt(, %ecx, 8)
    shrl $16, %eax
    movw %ax, idt + 6(, %ecx, 8)
    movw $8, idt + 2(, %ecx, 8)
    movw $0x8e00, idt + 4(, %ecx, 8)
    ret

timer:
    incl ticks
    movl $0, APIC + 0xb0
    go_back

ipi:                                /* counted by processor; the second one answers the first */
    pushl %eax
    movl APIC + 0x20, %eax
    shrl $24, %eax
    lock incl ipis(, %eax, 4)
    movl $0, APIC + 0xb0
    testl %eax, %eax
    jz 1f
    movl $0, APIC + 0x310
    movl $0x4041, APIC + 0x300
1:  popl %eax
    go_back

second:
    movl $second_stack, %esp
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    lidt idt_pointer
    movl $0x1ff, APIC + 0xf0
    movl $1, second_up
1:  sti
    hlt
    jmp 1b

    .code16
trampoline:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl TRAMPOLINE + 2f - trampoline
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $8, $second
    .align 4
2:  .short 23
    .long gdt
trampoline_end:
    .code32

    .data
    .align 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    .short 23
    .long gdt
idt_pointer:
    .short 0x42 * 8 - 1
    .long idt

    .bss
    .align 16
idt:
    .skip 0x42 * 8
ticks:
    .skip 4
second_up:
    .skip 4
ipis:
    .skip 8
    .skip 1024
second_stack:
    .skip 1024
stack:
    .section .note.GNU-stack, "", @progbits
