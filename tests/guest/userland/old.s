# 32 bits: the vdso's own way into the kernel (sysenter or syscall), BCD, segments, string instructions.
        .code32
        .globl _start
_start: mov %esp, %esi
        lodsl
        lea 4(%esi,%eax,4), %esi            # environment
1:      lodsl
        test %eax, %eax
        jnz 1b
2:      lodsl                               # auxiliary vector
        test %eax, %eax
        jz 4f
        cmp $32, %eax                       # AT_SYSINFO
        lodsl
        jne 2b
        mov %eax, %ebp
        mov $text, %edi
        mov $0x79, %al
        add $0x38, %al
        daa
        stosb
        mov $0x35, %al
        aam
        stosw
        mov $text, %esi
        mov $out, %edi
        mov $3, %ecx
3:      lodsb
        and $15, %al
        add $'0', %al
        stosb
        loop 3b
        movb $'\n', (%edi)
        push %ds
        pop %es
        mov $4, %eax
        mov $1, %ebx
        mov $out, %ecx
        mov $4, %edx
        call *%ebp
        mov $1, %eax
        mov $7, %ebx
        call *%ebp
4:      mov $1, %eax
        mov $9, %ebx
        int $0x80
        .data
text:   .skip 8
out:    .skip 8
