/* Starts MicroPython on the bare domain, runs the frozen module `main`, and ends the domain with it. */
#include "nano.h"

#include <string.h>

#include <xen/sched.h>

#include "py/builtin.h"
#include "py/cstack.h"
#include "py/gc.h"
#include "py/mperrno.h"
#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stackctrl.h"
#include "shared/runtime/gchelper.h"

#define STACK_RESERVE 0x4000 /* what C may use below the limit at which Python raises RecursionError */

#define GC_THRESHOLD 0x80000 /* bytes allocated between two collections */

extern char stack_bottom[], stack_top[];

static bool python_runs;

void nano_main(struct hvm_start_info *info)
{
    uintptr_t heap_start, heap_end;
    nlr_buf_t nlr;

    xen_start(info, &heap_start, &heap_end);
    mp_cstack_init_with_top(stack_top, stack_top - stack_bottom - STACK_RESERVE);
    gc_init((void *)heap_start, (void *)heap_end);
    /* collect before the heap is full of garbage: what lives stays together, and large objects find room */
    MP_STATE_MEM(gc_alloc_threshold) = GC_THRESHOLD / MICROPY_BYTES_PER_GC_BLOCK;
    mp_init();
    python_runs = true;
    if (nlr_push(&nlr) == 0) {
        mp_import_name(MP_QSTR_main, mp_const_none, MP_OBJ_NEW_SMALL_INT(0));
        nlr_pop();
        domain_end(SHUTDOWN_poweroff);
    }
    mp_obj_print_exception(&mp_plat_print, MP_OBJ_FROM_PTR(nlr.ret_val));
    domain_end(SHUTDOWN_crash);
}

/* A CPU fault becomes a Python exception, so that the traceback says which line it was. */
_Noreturn void raise_fault(unsigned long vector, unsigned long error, unsigned long rip, unsigned long address)
{
    if (!python_runs) {
        mp_printf(&mp_plat_print, "nano: CPU fault %d, error 0x%x, at 0x%x, address 0x%x, before Python\n",
                  (int)vector, (unsigned)error, (unsigned)rip, (unsigned)address);
        domain_end(SHUTDOWN_crash);
    }
    mp_raise_msg_varg(&mp_type_RuntimeError, MP_ERROR_TEXT("CPU fault %d, error 0x%x, at 0x%x, address 0x%x"),
                      (int)vector, (unsigned)error, (unsigned)rip, (unsigned)address);
}

void gc_collect(void)
{
    gc_collect_start();
    gc_helper_collect_regs_and_stack();
    gc_collect_end();
}

mp_uint_t mp_hal_stdout_tx_strn(const char *text, mp_uint_t length)
{
    console_write(text, length);
    return length;
}

void mp_hal_stdout_tx_strn_cooked(const char *text, mp_uint_t length)
{
    console_write(text, length);
}

mp_uint_t mp_hal_ticks_ms(void)
{
    return system_time() / 1000000;
}

/* There are no files: the only modules are the frozen ones. */
mp_import_stat_t mp_import_stat(const char *path)
{
    (void)path;
    return MP_IMPORT_STAT_NO_EXIST;
}

_Noreturn void nlr_jump_fail(void *value)
{
    static const char text[] = "nano: an exception that nothing could catch\n";

    (void)value;
    console_write(text, sizeof(text) - 1);
    domain_end(SHUTDOWN_crash);
}

_Noreturn void __assert_func(const char *file, int line, const char *function, const char *expression)
{
    (void)line, (void)function, (void)expression;
    console_write(file, strlen(file));
    domain_end(SHUTDOWN_crash);
}
