/*
 * What a bare PVH domain needs of Xen: hypercalls, shared info, time, sleep, console output, its end.
 * Sources: xen/include/public/{xen.h,vcpu.h,memory.h,hvm/params.h}, docs/misc/pvh.pandoc.
 */
#include "nano.h"

#include <stdbool.h>
#include <string.h>
#include <xen/event_channel.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/vcpu.h>

#include <xen/arch-x86/cpuid.h>

#define UPCALL_VECTOR 0x20
#define IDT_ENTRIES (UPCALL_VECTOR + 1)
#define MAX_RESERVED 16
#define MAX_RAM_RANGES 32
#define REACH 0xc0000000UL /* RAM above this is left alone: device space follows it */

extern char hypercall_page[], fault_stubs[], event_upcall[], _start[], _end[];
extern void event_halt(void);

struct hvm_start_info *start_info;
volatile struct shared_info *shared_info;
static evtchn_port_t timer_port;

static struct {
    uint64_t start, end;
} ram[MAX_RAM_RANGES];
static unsigned ram_ranges;

static struct {
    uint16_t offset_low, selector;
    uint8_t stack, type;
    uint16_t offset_middle;
    uint32_t offset_high, zero;
} idt[IDT_ENTRIES] __attribute__((aligned(16)));

long hypercall(unsigned number, unsigned long a1, unsigned long a2, unsigned long a3, unsigned long a4,
               unsigned long a5)
{
    long result;
    register unsigned long r10 __asm__("r10") = a4;
    register unsigned long r8 __asm__("r8") = a5;

    __asm__ volatile("call *%[page]"
                     : "=a"(result), "+D"(a1), "+S"(a2), "+d"(a3), "+r"(r10), "+r"(r8)
                     : [page] "r"(hypercall_page + number * 32)
                     : "memory", "rcx", "r11");
    return result;
}

static void set_gate(unsigned vector, const char *handler)
{
    uintptr_t address = (uintptr_t)handler;

    idt[vector].offset_low = address;
    idt[vector].selector = 0x08;
    idt[vector].type = 0x8e; /* present, 64-bit interrupt gate */
    idt[vector].offset_middle = address >> 16;
    idt[vector].offset_high = address >> 32;
}

static void load_idt(void)
{
    struct {
        uint16_t limit;
        void *base;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, idt};

    for (unsigned vector = 0; vector < 32; vector++)
        set_gate(vector, fault_stubs + vector * 16);
    set_gate(UPCALL_VECTOR, event_upcall);
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

static void find_hypercall_page(void)
{
    uint32_t leaf, eax, ebx, ecx, edx;

    for (leaf = XEN_CPUID_FIRST_LEAF; leaf < XEN_CPUID_FIRST_LEAF + 0x10000; leaf += 0x100) {
        __asm__ volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(leaf), "c"(0));
        if (ebx == XEN_CPUID_SIGNATURE_EBX && ecx == XEN_CPUID_SIGNATURE_ECX && edx == XEN_CPUID_SIGNATURE_EDX)
            break;
    }
    __asm__ volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(leaf + 2), "c"(0));
    __asm__ volatile("wrmsr" : : "c"(ebx), "a"((uint32_t)(uintptr_t)hypercall_page), "d"(0) : "memory");
}

static void add_ram(uint64_t start, uint64_t size, uint32_t type)
{
    if (type != XEN_HVM_MEMMAP_TYPE_RAM || start + size > REACH || ram_ranges == MAX_RAM_RANGES)
        return;
    ram[ram_ranges].start = start;
    ram[ram_ranges++].end = start + size;
}

/* The start info has the memory map from its version 1 on; dom0 gets version 0 and has to ask Xen. */
static void find_ram(void)
{
    static struct {
        uint64_t start, size;
        uint32_t type;
    } __attribute__((packed)) e820[128];
    struct xen_memory_map request = {.nr_entries = sizeof(e820) / sizeof(e820[0])};

    if (start_info->version > 0) {
        const struct hvm_memmap_table_entry *map = (void *)start_info->memmap_paddr;

        for (unsigned i = 0; i < start_info->memmap_entries; i++)
            add_ram(map[i].addr, map[i].size, map[i].type);
        return;
    }
    set_xen_guest_handle(request.buffer, (void *)e820);
    if (hypercall(__HYPERVISOR_memory_op, XENMEM_memory_map, (uintptr_t)&request, 0, 0, 0) != 0)
        domain_end(SHUTDOWN_crash);
    for (unsigned i = 0; i < request.nr_entries; i++)
        add_ram(e820[i].start, e820[i].size, e820[i].type);
}

/* The first page frame after RAM: a low maximum keeps Xen's p2m and its dirty bitmap small. */
static unsigned long end_of_ram(void)
{
    uint64_t end = 0;

    for (unsigned i = 0; i < ram_ranges; i++)
        if (ram[i].end > end)
            end = ram[i].end;
    return (end + PAGE_SIZE - 1) / PAGE_SIZE;
}

/* A builder that has placed the shared info page says so: it is reserved memory right after RAM. */
static bool is_placed(unsigned long gfn)
{
    const struct hvm_memmap_table_entry *map = (void *)start_info->memmap_paddr;

    for (unsigned i = 0; start_info->version > 0 && i < start_info->memmap_entries; i++)
        if (map[i].addr == gfn * PAGE_SIZE && map[i].type == XEN_HVM_MEMMAP_TYPE_RESERVED)
            return true;
    return false;
}

static void map_shared_info(unsigned long gfn)
{
    struct xen_add_to_physmap request = {
        .domid = DOMID_SELF, .space = XENMAPSPACE_shared_info, .idx = 0, .gpfn = gfn};

    if (!is_placed(gfn) &&
        hypercall(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, (uintptr_t)&request, 0, 0, 0) != 0)
        domain_end(SHUTDOWN_crash);
    shared_info = (volatile struct shared_info *)(gfn * PAGE_SIZE);
}

long bind_timer(void)
{
    struct evtchn_bind_virq timer = {.virq = VIRQ_TIMER, .vcpu = 0};
    long result = hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_virq, (uintptr_t)&timer, 0, 0, 0);

    if (result == 0)
        timer_port = timer.port;
    return result;
}

static void set_up_events(void)
{
    struct xen_hvm_param callback = {
        .domid = DOMID_SELF, .index = HVM_PARAM_CALLBACK_IRQ,
        .value = ((uint64_t)HVM_PARAM_CALLBACK_TYPE_VECTOR << 56) | UPCALL_VECTOR};

    if (hypercall(__HYPERVISOR_hvm_op, HVMOP_set_param, (uintptr_t)&callback, 0, 0, 0) != 0 || bind_timer() != 0)
        domain_end(SHUTDOWN_crash);
    memset((void *)shared_info->evtchn_mask, 0, sizeof(shared_info->evtchn_mask));
}

/*
 * The largest gap of RAM above 1 MiB that neither the image, a boot
 * module nor the start info occupies.
 */
static void find_heap(uintptr_t *heap_start, uintptr_t *heap_end)
{
    const struct hvm_modlist_entry *modules = (void *)start_info->modlist_paddr;
    struct {
        uint64_t start, end;
    } taken[MAX_RESERVED + 3];
    unsigned count = 0;

    taken[count].start = (uintptr_t)_start, taken[count++].end = (uintptr_t)_end;
    taken[count].start = (uintptr_t)start_info, taken[count++].end = (uintptr_t)start_info + PAGE_SIZE;
    taken[count].start = start_info->cmdline_paddr, taken[count++].end = start_info->cmdline_paddr + PAGE_SIZE;
    for (unsigned i = 0; i < start_info->nr_modules && i < MAX_RESERVED; i++, count++)
        taken[count].start = modules[i].paddr, taken[count].end = modules[i].paddr + modules[i].size;

    *heap_start = *heap_end = 0;
    for (unsigned i = 0; i < ram_ranges; i++) {
        uint64_t position = ram[i].start, end = ram[i].end;

        if (position < 0x100000)
            position = 0x100000;
        while (position < end) {
            uint64_t gap_end = end, next = end;

            for (unsigned j = 0; j < count; j++)
                if (taken[j].end > position && taken[j].start < gap_end) {
                    gap_end = taken[j].start > position ? taken[j].start : position;
                    next = taken[j].end;
                }
            if (gap_end > position && gap_end - position > *heap_end - *heap_start)
                *heap_start = position, *heap_end = gap_end;
            position = (next + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
        }
    }
}

void xen_start(struct hvm_start_info *info, uintptr_t *heap_start, uintptr_t *heap_end)
{
    start_info = info;
    load_idt();
    find_hypercall_page();
    find_ram();
    map_shared_info(end_of_ram());
    set_up_events();
    find_heap(heap_start, heap_end);
}

void console_write(const char *text, size_t length)
{
    hypercall(__HYPERVISOR_console_io, CONSOLEIO_write, length, (uintptr_t)text, 0, 0);
}

_Noreturn void domain_end(unsigned reason)
{
    struct sched_shutdown shutdown = {.reason = reason};

    for (;;)
        hypercall(__HYPERVISOR_sched_op, SCHEDOP_shutdown, (uintptr_t)&shutdown, 0, 0, 0);
}

/* public/xen.h, struct vcpu_time_info: read again while Xen changes it (odd or changed version). */
uint64_t system_time(void)
{
    volatile struct vcpu_time_info *time = &shared_info->vcpu_info[0].time;
    uint32_t version, low, high;
    uint64_t base, delta;

    do {
        version = time->version;
        __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
        delta = (((uint64_t)high << 32) | low) - time->tsc_timestamp;
        delta = time->tsc_shift < 0 ? delta >> -time->tsc_shift : delta << time->tsc_shift;
        base = time->system_time + (uint64_t)(((unsigned __int128)delta * time->tsc_to_system_mul) >> 32);
    } while ((version & 1) || version != time->version);
    return base;
}

uint64_t wall_time(void)
{
    uint32_t version;
    uint64_t boot;

    do {
        version = shared_info->wc_version;
        __asm__ volatile("" : : : "memory");
        boot = (((uint64_t)shared_info->wc_sec_hi << 32) | shared_info->wc_sec) * 1000000000UL +
               shared_info->wc_nsec;
        __asm__ volatile("" : : : "memory");
    } while ((version & 1) || version != shared_info->wc_version);
    return boot + system_time();
}

/* Interrupts are on only in event_halt(). A spurious return is allowed: callers look at the pending bits. */
void event_sleep(uint64_t deadline)
{
    volatile struct vcpu_info *vcpu = &shared_info->vcpu_info[0];

    if (deadline) {
        struct vcpu_set_singleshot_timer timer = {.timeout_abs_ns = deadline};

        if (hypercall(__HYPERVISOR_vcpu_op, VCPUOP_set_singleshot_timer, 0, (uintptr_t)&timer, 0, 0) != 0)
            return;
    }
    if (!vcpu->evtchn_upcall_pending)
        event_halt();
    if (deadline)
        hypercall(__HYPERVISOR_vcpu_op, VCPUOP_stop_singleshot_timer, 0, 0, 0, 0);
    shared_info->evtchn_pending[timer_port / 64] &= ~(1UL << (timer_port % 64));
}
