/*
 * The module `nano`: all that Python sees of the machine. Addresses are physical; nano maps memory one
 * to one, so a buffer's address is what Xen wants in a hypercall's structure.
 */
#include "nano.h"

#include <string.h>
#include <xen/event_channel.h>

#include "py/binary.h"
#include "py/mperrno.h"
#include "py/objarray.h"
#include "py/runtime.h"

#define PORTS_PER_WORD 64

static const void *readable(mp_obj_t object, size_t *length)
{
    mp_buffer_info_t buffer;

    mp_get_buffer_raise(object, &buffer, MP_BUFFER_READ);
    *length = buffer.len;
    return buffer.buf;
}

/* address(buffer) -> int: where the bytes of `buffer` lie. */
static mp_obj_t nano_address(mp_obj_t object)
{
    size_t length;

    return mp_obj_new_int_from_ull((uintptr_t)readable(object, &length));
}
static MP_DEFINE_CONST_FUN_OBJ_1(nano_address_obj, nano_address);

/* hypercall(number, ...) -> int: up to five arguments, integers or buffers; a negative result is -errno. */
static mp_obj_t nano_hypercall(size_t count, const mp_obj_t *arguments)
{
    unsigned long values[6] = {0};

    for (size_t i = 0; i < count; i++) {
        mp_buffer_info_t buffer;

        if (mp_obj_is_int(arguments[i]))
            values[i] = mp_obj_get_int_truncated(arguments[i]);
        else {
            mp_get_buffer_raise(arguments[i], &buffer, MP_BUFFER_READ);
            values[i] = (uintptr_t)buffer.buf;
        }
    }
    if (values[0] >= PAGE_SIZE / 32)
        mp_raise_ValueError(MP_ERROR_TEXT("no such hypercall"));
    return mp_obj_new_int(hypercall(values[0], values[1], values[2], values[3], values[4], values[5]));
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(nano_hypercall_obj, 1, 6, nano_hypercall);

/* memory(address, length, typecode="B") -> memoryview: writable view of `length` items at an address. */
static mp_obj_t nano_memory(size_t count, const mp_obj_t *arguments)
{
    uintptr_t address = mp_obj_get_int_truncated(arguments[0]);
    size_t length = mp_obj_get_int(arguments[1]);
    char typecode = 'B';
    mp_obj_array_t *view;

    if (count > 2) {
        size_t typecode_length;

        typecode = mp_obj_str_get_data(arguments[2], &typecode_length)[0];
    }
    view = MP_OBJ_TO_PTR(mp_obj_new_memoryview(typecode | MP_OBJ_ARRAY_TYPECODE_FLAG_RW, length,
                                               (void *)address));
    return MP_OBJ_FROM_PTR(view);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(nano_memory_obj, 2, 3, nano_memory);

/* start_info() -> int: address of struct hvm_start_info. */
static mp_obj_t nano_start_info(void)
{
    return mp_obj_new_int_from_ull((uintptr_t)start_info);
}
static MP_DEFINE_CONST_FUN_OBJ_0(nano_start_info_obj, nano_start_info);

/* shared_info() -> int: address of struct shared_info; the first page frame after it is free. */
static mp_obj_t nano_shared_info(void)
{
    return mp_obj_new_int_from_ull((uintptr_t)shared_info);
}
static MP_DEFINE_CONST_FUN_OBJ_0(nano_shared_info_obj, nano_shared_info);

/* now() -> int: nanoseconds since Xen's boot. */
static mp_obj_t nano_now(void)
{
    return mp_obj_new_int_from_ull(system_time());
}
static MP_DEFINE_CONST_FUN_OBJ_0(nano_now_obj, nano_now);

/* wall() -> int: nanoseconds since 1970-01-01 UTC. */
static mp_obj_t nano_wall(void)
{
    return mp_obj_new_int_from_ull(wall_time());
}
static MP_DEFINE_CONST_FUN_OBJ_0(nano_wall_obj, nano_wall);

/* Appends each pending port to `ports` and clears it. */
static void collect_ports(mp_obj_t ports)
{
    volatile struct vcpu_info *vcpu = &shared_info->vcpu_info[0];
    unsigned long selected;

    vcpu->evtchn_upcall_pending = 0;
    selected = __atomic_exchange_n((unsigned long *)&vcpu->evtchn_pending_sel, 0, __ATOMIC_SEQ_CST);
    while (selected) {
        unsigned word = __builtin_ctzl(selected);
        unsigned long pending =
            __atomic_exchange_n((unsigned long *)&shared_info->evtchn_pending[word], 0, __ATOMIC_SEQ_CST);

        selected &= selected - 1;
        for (; pending; pending &= pending - 1)
            mp_obj_list_append(ports, mp_obj_new_int(word * PORTS_PER_WORD + __builtin_ctzl(pending)));
    }
}

/*
 * wait(deadline) -> list of ports that fired, cleared. Returns an empty list when system time reaches
 * `deadline` (ns; 0: never).
 */
static mp_obj_t nano_wait(mp_obj_t deadline_object)
{
    uint64_t deadline = mp_obj_get_int_truncated(deadline_object);
    mp_obj_t ports = mp_obj_new_list(0, NULL);
    size_t count;
    mp_obj_t *items;

    for (;;) {
        collect_ports(ports);
        mp_obj_list_get(ports, &count, &items);
        if (count || (deadline && system_time() >= deadline))
            return ports;
        event_sleep(deadline);
    }
}
static MP_DEFINE_CONST_FUN_OBJ_1(nano_wait_obj, nano_wait);

/* bind_timer() -> int: binds the timer anew, after its event channel was closed; 0 or -errno. */
static mp_obj_t nano_bind_timer(void)
{
    return mp_obj_new_int(bind_timer());
}
static MP_DEFINE_CONST_FUN_OBJ_0(nano_bind_timer_obj, nano_bind_timer);

/* inb(port) -> int */
static mp_obj_t nano_inb(mp_obj_t port)
{
    uint8_t value;

    __asm__ volatile("inb %w1, %0" : "=a"(value) : "Nd"((uint16_t)mp_obj_get_int(port)));
    return MP_OBJ_NEW_SMALL_INT(value);
}
static MP_DEFINE_CONST_FUN_OBJ_1(nano_inb_obj, nano_inb);

/* outb(port, value) */
static mp_obj_t nano_outb(mp_obj_t port, mp_obj_t value)
{
    __asm__ volatile("outb %0, %w1" : : "a"((uint8_t)mp_obj_get_int(value)), "Nd"((uint16_t)mp_obj_get_int(port)));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(nano_outb_obj, nano_outb);

/* outs(port, buffer): writes each byte of `buffer`; one exit to Xen for all of them. */
static mp_obj_t nano_outs(mp_obj_t port, mp_obj_t object)
{
    size_t length;
    const void *data = readable(object, &length);

    __asm__ volatile("rep outsb" : "+S"(data), "+c"(length) : "d"((uint16_t)mp_obj_get_int(port)) : "memory");
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(nano_outs_obj, nano_outs);

/* lz4(source, target) -> int: decodes one block; ValueError if it is damaged or does not fit. */
static mp_obj_t nano_lz4(mp_obj_t source, mp_obj_t target)
{
    size_t source_length;
    const void *data = readable(source, &source_length);
    mp_buffer_info_t buffer;
    long length;

    mp_get_buffer_raise(target, &buffer, MP_BUFFER_WRITE);
    length = lz4_decode(data, source_length, buffer.buf, buffer.len);
    if (length < 0)
        mp_raise_ValueError(MP_ERROR_TEXT("damaged LZ4 block"));
    return mp_obj_new_int(length);
}
static MP_DEFINE_CONST_FUN_OBJ_2(nano_lz4_obj, nano_lz4);

/* crc32(data, value=0) -> int: as binascii.crc32. */
static mp_obj_t nano_crc32(size_t count, const mp_obj_t *arguments)
{
    size_t length;
    const uint8_t *data = readable(arguments[0], &length);
    uint32_t crc = ~(count > 1 ? (uint32_t)mp_obj_get_int_truncated(arguments[1]) : 0);

    while (length--) {
        crc ^= *data++;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0xedb88320 & -(crc & 1));
    }
    return mp_obj_new_int_from_uint(~crc);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(nano_crc32_obj, 1, 2, nano_crc32);

static const mp_rom_map_elem_t nano_globals_table[] = {
    {MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_nano)},
    {MP_ROM_QSTR(MP_QSTR_address), MP_ROM_PTR(&nano_address_obj)},
    {MP_ROM_QSTR(MP_QSTR_hypercall), MP_ROM_PTR(&nano_hypercall_obj)},
    {MP_ROM_QSTR(MP_QSTR_memory), MP_ROM_PTR(&nano_memory_obj)},
    {MP_ROM_QSTR(MP_QSTR_start_info), MP_ROM_PTR(&nano_start_info_obj)},
    {MP_ROM_QSTR(MP_QSTR_shared_info), MP_ROM_PTR(&nano_shared_info_obj)},
    {MP_ROM_QSTR(MP_QSTR_now), MP_ROM_PTR(&nano_now_obj)},
    {MP_ROM_QSTR(MP_QSTR_wall), MP_ROM_PTR(&nano_wall_obj)},
    {MP_ROM_QSTR(MP_QSTR_wait), MP_ROM_PTR(&nano_wait_obj)},
    {MP_ROM_QSTR(MP_QSTR_bind_timer), MP_ROM_PTR(&nano_bind_timer_obj)},
    {MP_ROM_QSTR(MP_QSTR_inb), MP_ROM_PTR(&nano_inb_obj)},
    {MP_ROM_QSTR(MP_QSTR_outb), MP_ROM_PTR(&nano_outb_obj)},
    {MP_ROM_QSTR(MP_QSTR_outs), MP_ROM_PTR(&nano_outs_obj)},
    {MP_ROM_QSTR(MP_QSTR_lz4), MP_ROM_PTR(&nano_lz4_obj)},
    {MP_ROM_QSTR(MP_QSTR_crc32), MP_ROM_PTR(&nano_crc32_obj)},
};
static MP_DEFINE_CONST_DICT(nano_globals, nano_globals_table);

const mp_obj_module_t nano_module = {
    .base = {&mp_type_module},
    .globals = (mp_obj_dict_t *)&nano_globals,
};
MP_REGISTER_MODULE(MP_QSTR_nano, nano_module);
