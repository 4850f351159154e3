/* What the C files of the nano port share. */
#ifndef NANO_H
#define NANO_H

#include <stddef.h>
#include <stdint.h>

#include <xen/xen.h>
#include <xen/arch-x86/hvm/start_info.h>

#define PAGE_SIZE 4096UL

/* Addresses are physical ones: nano maps memory one to one. */
extern struct hvm_start_info *start_info;
extern volatile struct shared_info *shared_info;

long hypercall(unsigned number, unsigned long a1, unsigned long a2, unsigned long a3, unsigned long a4,
               unsigned long a5);

/* xen.c: finds the hypercall page, shared info and the free memory for the heap. */
void xen_start(struct hvm_start_info *info, uintptr_t *heap_start, uintptr_t *heap_end);
void console_write(const char *text, size_t length);
_Noreturn void domain_end(unsigned reason);

/* Nanoseconds since Xen's boot, and since 1970-01-01. */
uint64_t system_time(void);
uint64_t wall_time(void);

/* Sleeps until an unmasked event is pending or `deadline` (system time, ns; 0: no deadline) has passed. */
void event_sleep(uint64_t deadline);

/* Binds the timer's event channel, which nothing else may be bound to; 0 or -errno. */
long bind_timer(void);

/* lz4.c: decodes one LZ4 block; the decoded length, or -1 if the block is not valid or does not fit. */
long lz4_decode(const uint8_t *source, size_t source_length, uint8_t *target, size_t target_length);

#endif
