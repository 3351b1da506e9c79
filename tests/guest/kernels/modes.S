/* A boot sector that sets every mode of the video BIOS in turn, those of the VGA and those that VBE lists, fills the
   video memory of each with a pattern, says `MODE KIND WIDTH HEIGHT BITS` on port 0xe9 and waits for a key. */
    .code16
    .intel_syntax noprefix
    .equ INFO, 0x8c00           /* VBE's description of a mode */
    .equ LIST, 0x9000           /* the modes of VBE, 0xffff behind the last */
    .globl _start
_start:
    cli
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    sti
    cld
    mov ax, 0x0204              /* the four sectors behind this one */
    mov bx, 0x7e00
    mov cx, 2
    mov dh, 0
    int 0x13
    jmp begin
    .org 510
    .word 0xaa55

begin:
    mov si, offset legacy
1:  lodsb
    cmp al, 0xff
    je vbe
    push si
    movzx bx, al
    mov [mode], bx
    mov ah, 0
    int 0x10
    mov ah, 1                   /* no cursor: it blinks */
    mov cx, 0x2000
    int 0x10
    call draw_legacy
    call report
    pop si
    jmp 1b

vbe:
    mov di, INFO
    mov dword ptr [di], 0x32454256
    mov ax, 0x4f00
    int 0x10
    cmp ax, 0x004f
    jne finished
    lds si, [INFO + 14]
    mov di, LIST
    mov cx, 200
1:  lodsw
    stosw
    cmp ax, 0xffff
    loopne 1b
    xor ax, ax
    mov ds, ax
    mov si, LIST
2:  lodsw
    cmp ax, 0xffff
    je finished
    push si
    mov [mode], ax
    call one_vbe
    pop si
    jmp 2b
finished:
    mov si, offset end
    call say
3:  hlt
    jmp 3b

one_vbe:
    mov cx, [mode]
    mov di, INFO
    mov ax, 0x4f01
    int 0x10
    cmp ax, 0x004f
    jne 9f
    mov al, [INFO]
    and al, 0x11                /* supported, graphics */
    cmp al, 0x11
    jne 9f
    mov ax, [INFO + 0x12]
    mov [width], ax
    mov ax, [INFO + 0x14]
    mov [height], ax
    movzx ax, byte ptr [INFO + 0x19]
    mov [bits], ax
    mov bx, [mode]
    mov byte ptr [kind], 'p'
    cmp byte ptr [INFO + 0x1b], 3
    je 1f
    mov byte ptr [kind], 'b'
    test byte ptr [INFO], 0x80
    jz 1f
    mov byte ptr [kind], 'l'
    or bx, 0x4000
1:  mov ax, 0x4f02
    int 0x10
    cmp ax, 0x004f
    je 2f
    mov byte ptr [kind], 'f'
    jmp report
2:  cmp byte ptr [kind], 'p'
    jne 3f
    call planes
    jmp report
3:  cmp byte ptr [kind], 'l'
    jne report
    call unreal
    movzx eax, word ptr [INFO + 0x10]
    movzx ecx, word ptr [INFO + 0x14]
    mul ecx
    shr eax, 2
    mov ecx, eax
    mov edi, [INFO + 0x28]
    mov eax, 0x12345678
4:  mov fs:[edi], eax
    rol eax, 5
    add eax, 0x9e3779b9
    add edi, 4
    dec ecx
    jnz 4b
    jmp report
9:  ret

/* by the number of the mode; width and so on as they are known to whoever looks at the picture */
draw_legacy:
    xor ax, ax
    mov [width], ax
    mov [height], ax
    mov [bits], ax
    mov al, [mode]
    cmp al, 7
    je 1f
    cmp al, 3
    ja 2f
1:  mov byte ptr [kind], 't'
    mov bx, 0xb800
    cmp al, 7
    jne 3f
    mov bx, 0xb000
3:  mov es, bx
    xor di, di
    mov cx, 2000
    xor bx, bx
4:  mov ax, bx
    and al, 0xf0
    cmp al, 0xb0                /* whose ninth dot is drawn differently */
    mov al, bl
    jne 5f
    mov al, 'A'
5:  mov ah, bl
    add ah, bh
    and ah, 0x7f                /* not blinking */
    stosw
    add bx, 37
    loop 4b
    jmp 8f
2:  cmp al, 6
    ja 6f
    mov byte ptr [kind], 'c'
    mov bx, 0xb800
    mov cx, 0x4000
    jmp 7f
6:  mov byte ptr [kind], 'p'
    cmp al, 0x13
    jne planes
    mov byte ptr [kind], 'l'
    mov bx, 0xa000
    mov cx, 64000
7:  mov es, bx
    xor di, di
    call bytes
8:  xor ax, ax
    mov es, ax
    ret

/* 64 KiB of each plane */
planes:
    mov bx, 0xa000
    mov es, bx
    mov bl, 1
1:  mov dx, 0x3c4
    mov al, 2
    mov ah, bl
    out dx, ax
    xor di, di
    mov cx, 0xffff
    call bytes
    shl bl, 1
    cmp bl, 0x10
    jne 1b
    mov ax, 0x0f02
    out dx, ax
    xor ax, ax
    mov es, ax
    ret

bytes:
    mov al, bl
    mov ah, 0
1:  stosb
    rol al, 1
    add al, 0x3b
    adc al, ah
    inc ah
    loop 1b
    ret

/* fs reaches all memory */
unreal:
    cli
    lgdt [table]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp 1f
1:  mov bx, 8
    mov fs, bx
    and al, 0xfe
    mov cr0, eax
    jmp 2f
2:  xor bx, bx
    mov fs, bx
    sti
    ret

report:
    mov ax, [mode]
    call hex
    mov al, [kind]
    out 0xe9, al
    mov al, ' '
    out 0xe9, al
    mov ax, [width]
    call hex
    mov ax, [height]
    call hex
    mov ax, [bits]
    call hex
    mov al, 10
    out 0xe9, al
    mov ah, 0
    int 0x16
    ret

hex:
    mov cx, 4
1:  rol ax, 4
    push ax
    and al, 15
    cmp al, 10
    jb 2f
    add al, 39
2:  add al, 48
    out 0xe9, al
    pop ax
    loop 1b
    mov al, ' '
    out 0xe9, al
    ret

say:
    lodsb
    or al, al
    jz 1f
    out 0xe9, al
    jmp say
1:  ret

    .align 8
gdt:
    .quad 0, 0x00cf92000000ffff
table:
    .word 15
    .long gdt
mode:   .word 0
width:  .word 0
height: .word 0
bits:   .word 0
kind:   .byte 0
end:    .asciz "END\n"
legacy: .byte 0, 1, 2, 3, 4, 5, 6, 7, 0x0d, 0x0e, 0x0f, 0x10, 0x11, 0x12, 0x13, 0xff
    .org 2560
