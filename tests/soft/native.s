# Runs test cases one after the other: loads a record's registers, jumps to its code, keeps what came out in the record.
# The same bytes run as a function of a host process and as a guest at the same linear addresses (native.py).
#
# A record: 0 registers by number, 128 flags, 136 entry, 32 bits and selector (in), outcome (out: 0 fell through, 1 branched, 0x100 + vector),
# 144 error code, 152 CR2, 160 RIP of a fault, 168 ES SS DS (in), 192 FXSAVE image with an XSAVE header and the upper halves of
# YMM registers behind it (1024), then the memory window.

    .set BASE, 0x20000000
    .set DATA, BASE + 0x8000
    .set CUR, DATA                  # record at work
    .set LAST, DATA + 8             # end of the records
    .set GUEST, DATA + 16           # 1: a guest
    .set USEFX, DATA + 24           # 1: with the FXSAVE image
    .set TARGET, DATA + 32
    .set USEYMM, DATA + 40          # 1: with the upper halves
    .set LDT_COUNT, DATA + 48
    .set LDT, DATA + 0x400          # its user_desc entries
    .set SAVE, DATA + 0x100
    .set STACK, BASE + 0xC000
    .set ALT, BASE + 0xC000
    .set WINDOW, BASE + 0x11F00
    .set GS, BASE + 0x11000
    .set RECORD, 1792
    .set UPPER, 192 + 576
    .set PLACE, 192 + 1024 + 64

    .code64
    .globl entry, after_fall, after_taken, vectors
entry:
    cmpb $0, GUEST
    jne next
    call set_up
next:
    mov CUR, %rbx
    cmp LAST, %rbx
    jae finish
    cld
    lea PLACE(%rbx), %rsi
    mov $WINDOW, %edi
    mov $64, %ecx
    rep movsq
    cmpb $0, USEFX
    je 1f
    cmpb $0, USEYMM
    je 2f
    mov $7, %eax
    xor %edx, %edx
    xrstor64 192(%rbx)
    jmp 1f
2:  fxrstor64 192(%rbx)
1:  mov $STACK, %esp
    mov 168(%rbx), %es
    mov 170(%rbx), %ss
    mov 172(%rbx), %ds
    mov 136(%rbx), %rax
    mov %rax, TARGET
    pushq 128(%rbx)
    popfq
    mov (%rbx), %rax
    mov 8(%rbx), %rcx
    mov 16(%rbx), %rdx
    mov 32(%rbx), %rsp
    mov 40(%rbx), %rbp
    mov 48(%rbx), %rsi
    mov 56(%rbx), %rdi
    mov 64(%rbx), %r8
    mov 72(%rbx), %r9
    mov 80(%rbx), %r10
    mov 88(%rbx), %r11
    mov 96(%rbx), %r12
    mov 104(%rbx), %r13
    mov 112(%rbx), %r14
    mov 120(%rbx), %r15
    mov 24(%rbx), %rbx
    ljmp *TARGET

after_taken:
    movq $1, SAVE+136
    jmp after
after_fall:
    movq $0, SAVE+136
after:
    .macro general
    mov %rax, SAVE
    mov %rcx, SAVE+8
    mov %rdx, SAVE+16
    mov %rbx, SAVE+24
    mov %rbp, SAVE+40
    mov %rsi, SAVE+48
    mov %rdi, SAVE+56
    mov %r8, SAVE+64
    mov %r9, SAVE+72
    mov %r10, SAVE+80
    mov %r11, SAVE+88
    mov %r12, SAVE+96
    mov %r13, SAVE+104
    mov %r14, SAVE+112
    mov %r15, SAVE+120
    .endm
    general
    mov %rsp, SAVE+32
    mov $STACK, %esp
    pushfq
    popq SAVE+128
    movq $0, SAVE+144
    movq $0, SAVE+152
    movq $0, SAVE+160
store:
    mov CUR, %rbx
    cmpb $0, USEFX
    je store_rest
    fxsave64 192(%rbx)
    cmpb $0, USEYMM
    je store_rest
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vextractf128 $1, %ymm\n, UPPER+16*\n(%rbx)
    .endr
store_rest:
    cld
    mov %rbx, %rdi
    mov $SAVE, %esi
    mov $21, %ecx
    rep movsq
    lea PLACE(%rbx), %rdi
    mov $WINDOW, %esi
    mov $64, %ecx
    rep movsq
    addq $RECORD, CUR
    jmp next

finish:
    cmpb $0, GUEST
    jne 1f
    mov $231, %eax                  # exit_group
    xor %edi, %edi
    syscall
1:  mov $0xF4, %dx
    out %al, %dx
    jmp 1b

# --- exceptions of the guest: an entry each, 16 bytes apart
    .balign 16
vectors:
    .set vector, 0
    .rept 32
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17
    .else
    push $0
    .endif
    push $vector
    jmp caught
    .set vector, vector + 1
    .endr
caught:
    general
    pop %rax
    add $0x100, %rax
    mov %rax, SAVE+136
    popq SAVE+144
    popq SAVE+160
    pop %rax
    popq SAVE+128
    popq SAVE+32
    mov %cr2, %rax
    mov %rax, SAVE+152
    mov $STACK, %esp
    push $0x2B
    push $STACK
    push $0x3002
    push $0x33
    push $store
    iretq

# --- signals of the host
set_up:
    mov $158, %eax                  # arch_prctl(ARCH_SET_GS)
    mov $0x1001, %edi
    mov $GS, %esi
    syscall
    mov $131, %eax                  # sigaltstack
    mov $alternate, %edi
    xor %esi, %esi
    syscall
    mov $LDT, %ebx
    mov LDT_COUNT, %ebp
1:  mov $154, %eax                  # modify_ldt
    mov $0x11, %edi
    mov %rbx, %rsi
    mov $16, %edx
    syscall
    add $16, %rbx
    dec %ebp
    jnz 1b
    .irp signal, 4, 5, 7, 8, 11
    mov $13, %eax                   # rt_sigaction
    mov $\signal, %edi
    mov $action, %esi
    xor %edx, %edx
    mov $8, %r10d
    syscall
    .endr
    ret

    .balign 8
alternate:
    .quad ALT, 0, 0x4000
action:
    .quad signalled, 0x4C000004, 0, 0   # SIGINFO ONSTACK NODEFER RESTORER

signalled:                          # rdx: ucontext
    .macro keep from to
    mov 40+\from(%rdx), %rax
    mov %rax, SAVE+\to
    .endm
    .set n, 0
    .irp from, 104, 112, 96, 88, 120, 80, 72, 64, 0, 8, 16, 24, 32, 40, 48, 56, 136
    keep \from, n
    .set n, n + 8
    .endr
    keep 152, 144
    keep 176, 152
    keep 128, 160
    mov 40+160(%rdx), %rax
    add $0x100, %rax
    mov %rax, SAVE+136
    mov CUR, %rbx
    mov 224(%rdx), %rsi
    lea 192(%rbx), %rdi
    mov $64, %ecx
    cld
    rep movsq
    cmpb $0, USEYMM
    je 1f
    add $64, %rsi                   # its state is XSAVE's; what it does not hold is zero
    lea UPPER(%rbx), %rdi
    mov $32, %ecx
    testb $4, -64(%rsi)
    jnz 2f
    xor %eax, %eax
    rep stosq
2:  rep movsq
1:  mov $STACK, %esp
    jmp store_rest
