/*
 * Entry of a nano domain: Xen starts a PVH vCPU here in 32-bit protected mode without paging,
 * %ebx = physical address of struct hvm_start_info (xen/include/public/arch-x86/hvm/start_info.h,
 * docs/misc/pvh.pandoc). We map the first 4 GiB one to one, leave page 0 unmapped so that a null
 * pointer faults, switch to 64-bit mode and call nano_main().
 */
#include <xen/elfnote.h>

#define PAGE_PRESENT 0x1
#define PAGE_WRITE 0x2
#define PAGE_LARGE 0x80
#define STACK_SIZE 0x40000

        .section .note.Xen, "a", @note
        .align 4
        .long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY
        .asciz "Xen"
        .long entry
        .align 4

        .section .text.entry, "ax"
        .code32
        .global entry
entry:
        cld
        mov     $stack_top, %esp
        mov     %ebx, %ebp

        /* level 4 -> level 3 -> four level 2 tables of 2 MiB pages */
        movl    $(level3 + PAGE_PRESENT + PAGE_WRITE), level4
        movl    $(level2 + PAGE_PRESENT + PAGE_WRITE), %eax
        mov     $level3, %edi
        mov     $4, %ecx
1:      mov     %eax, (%edi)
        add     $0x1000, %eax
        add     $8, %edi
        loop    1b

        mov     $(PAGE_PRESENT + PAGE_WRITE + PAGE_LARGE), %eax
        mov     $level2, %edi
        mov     $2048, %ecx
1:      mov     %eax, (%edi)
        add     $0x200000, %eax
        add     $8, %edi
        loop    1b

        /* the first 2 MiB in 4 KiB pages, all but page 0 */
        movl    $(level1 + PAGE_PRESENT + PAGE_WRITE), level2
        mov     $(0x1000 + PAGE_PRESENT + PAGE_WRITE), %eax
        mov     $(level1 + 8), %edi
        mov     $511, %ecx
1:      mov     %eax, (%edi)
        add     $0x1000, %eax
        add     $8, %edi
        loop    1b

        mov     %cr4, %eax
        or      $0x20, %eax             /* PAE */
        mov     %eax, %cr4
        mov     $level4, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx       /* EFER */
        rdmsr
        or      $0x100, %eax            /* LME */
        wrmsr
        mov     %cr0, %eax
        or      $0x80010001, %eax       /* PG, WP, PE */
        mov     %eax, %cr0
        lgdt    gdt_pointer
        ljmp    $0x08, $1f

        .code64
1:      mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        xor     %eax, %eax
        mov     %eax, %fs
        mov     %eax, %gs
        mov     $stack_top, %rsp
        mov     %ebp, %edi
        xor     %ebp, %ebp
        call    nano_main
2:      cli
        hlt
        jmp     2b

/*
 * CPU exceptions: each stub leaves an error code and the vector on the stack; fault() reports, and
 * returns to raise_fault(), which turns the fault into a Python exception.
 */
        .macro  stub vector, has_error
        .align  16
        .if     \has_error == 0
        push    $0
        .endif
        push    $\vector
        jmp     common_fault
        .endm

        .align  16
        .global fault_stubs
fault_stubs:
        .set    vector, 0
        .rept   32
        .if     vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
        stub    vector, 1
        .else
        stub    vector, 0
        .endif
        .set    vector, vector + 1
        .endr

common_fault:
        mov     (%rsp), %rdi            /* vector */
        mov     8(%rsp), %rsi           /* error code */
        mov     16(%rsp), %rdx          /* rip */
        mov     %cr2, %rcx
        mov     40(%rsp), %rsp          /* the faulting code does not go on: take its stack over */
        and     $-16, %rsp
        call    raise_fault             /* does not return */

/*
 * event_halt(): sleeps until an event; called and left with interrupts off. Between sti and hlt the
 * processor lets no interrupt in, but an emulated one may forget that when Xen runs in between (seen with
 * QEMU's TCG). The upcall then finds the hlt still ahead and steps over it: to halt after the event would
 * be to miss it, and to halt with interrupts off is, to Xen, to power off.
 */
        .global event_halt
event_halt:
        sti
halt:   hlt
        cli
        ret

/*
 * Xen's event upcall: all it has to do is end the hlt; the waiting code looks at the pending bits itself.
 * It returns with interrupts off, since the upcall stays asserted until those bits have been looked at.
 */
        .align  16
        .global event_upcall
event_upcall:
        cmpq    $halt, (%rsp)
        jne     1f
        incq    (%rsp)
1:      andq    $~0x200, 16(%rsp)
        iretq

        .section .rodata
        .align  8
gdt:    .quad   0
        .quad   0x00af9b000000ffff      /* 64-bit code */
        .quad   0x00cf93000000ffff      /* data */
gdt_pointer:
        .word   . - gdt - 1
        .quad   gdt

        .section .bss
        .align  4096
level4: .skip   4096
level3: .skip   4096
level2: .skip   4 * 4096
level1: .skip   4096
        .global hypercall_page
hypercall_page:
        .skip   4096
        .global stack_bottom
stack_bottom:
        .skip   STACK_SIZE
        .global stack_top
stack_top:

        .section .note.GNU-stack, "", @progbits
