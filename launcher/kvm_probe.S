# A boot sector that proves that KVM runs a real guest: what an operating system does first, in 512 bytes.
#
# Some hosts offer /dev/kvm and run the firmware, but fail at the first return from an interrupt. So this goes through
# protected mode with a software interrupt, long mode with paging, and three timer interrupts, and only then writes 42
# to the port of isa-debug-exit, which ends QEMU with exit code 85.
#
#   as -o kvm_probe.o kvm_probe.S && ld -Ttext 0x7c00 --oformat binary -o kvm_probe.bin kvm_probe.o

        .code16
        .globl _start
_start: cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp
        cld
        lgdtl   gdt_pointer
        movl    %cr0, %eax
        orl     $1, %eax
        movl    %eax, %cr0
        ljmpl   $0x08, $protected

        .code32
protected:
        movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $0x7c00, %esp
        xorl    %eax, %eax              # clear the tables: 0x1000 interrupts, 0x2000-0x4fff pages
        movl    $0x1000, %edi
        movl    $0x1000, %ecx
        rep stosl
        movl    $0x00080000, %eax       # gate 0x20: an interrupt gate of the 32-bit code segment
        movw    $handler32, %ax
        movl    %eax, 0x1100
        movl    $0x8e00, 0x1104
        lidtl   idt_pointer
        xorl    %ebx, %ebx
        int     $0x20
        cmpl    $1, %ebx
        jne     fail
        movl    $0x3003, 0x2000         # one 2 MiB page, mapped onto itself
        movl    $0x4003, 0x3000
        movl    $0x0083, 0x4000
        movl    %cr4, %eax
        orl     $0x20, %eax
        movl    %eax, %cr4
        movl    $0x2000, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000000, %eax
        movl    %eax, %cr0
        ljmpl   $0x18, $long
handler32:
        pushal
        popal
        incl    %ebx
        iretl

        .code64
long:   movq    $0x1200, %rdi           # gate 0x20 of 16 bytes
        movl    $0x00180000, %eax
        movw    $handler64, %ax
        movl    %eax, (%rdi)
        movl    $0x8e00, 4(%rdi)
        movl    $0, 8(%rdi)
        lidt    idt_pointer
        movb    $0x11, %al              # the interrupt controllers: first vector 0x20, all masked but the timer
        outb    %al, $0x20
        outb    %al, $0xa0
        movb    $0x20, %al
        outb    %al, $0x21
        movb    $0x28, %al
        outb    %al, $0xa1
        movb    $0x04, %al
        outb    %al, $0x21
        movb    $0x02, %al
        outb    %al, $0xa1
        movb    $0x01, %al
        outb    %al, $0x21
        outb    %al, $0xa1
        movb    $0xfe, %al
        outb    %al, $0x21
        movb    $0xff, %al
        outb    %al, $0xa1
        movb    $0x34, %al              # the timer: a thousand times a second
        outb    %al, $0x43
        movb    $0xa9, %al
        outb    %al, $0x40
        movb    $0x04, %al
        outb    %al, $0x40
        xorl    %ebx, %ebx
wait:   sti
        hlt
        cmpl    $3, %ebx
        jb      wait
        cli
        xorl    %eax, %eax
        cpuid
        movw    $0x501, %dx
        movb    $42, %al
        outb    %al, %dx
fail:   cli
        hlt
        jmp     fail
handler64:
        incl    %ebx
        pushq   %rax
        movb    $0x20, %al
        outb    %al, $0x20
        popq    %rax
        iretq

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9a000000ffff      # 0x08: 32-bit code
        .quad   0x00cf92000000ffff      # 0x10: data
        .quad   0x00af9a000000ffff      # 0x18: 64-bit code
gdt_pointer:
        .word   31
        .long   gdt
idt_pointer:
        .word   0x0fff
        .quad   0x1000

        .org    510
        .word   0xaa55
