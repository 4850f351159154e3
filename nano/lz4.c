/*
 * Decoder of one LZ4 block, after the format's description (lz4_Block_format.md): sequences of
 * token, literals, two-byte offset, match. Every length is checked against both buffers.
 */
#include "nano.h"

#include <string.h>

#define MIN_MATCH 4

/* Adds the bytes of a length that did not fit the token's four bits; -1 if the input ends. */
static long extend_length(const uint8_t **source, const uint8_t *end, unsigned long length)
{
    uint8_t byte;

    if (length != 15)
        return length;
    do {
        if (*source == end)
            return -1;
        byte = *(*source)++;
        length += byte;
    } while (byte == 255);
    return length;
}

long lz4_decode(const uint8_t *source, size_t source_length, uint8_t *target, size_t target_length)
{
    const uint8_t *source_end = source + source_length;
    uint8_t *const start = target, *const target_end = target + target_length;

    while (source < source_end) {
        unsigned token = *source++;
        long length = extend_length(&source, source_end, token >> 4);
        size_t offset;

        if (length < 0 || length > source_end - source || length > target_end - target)
            return -1;
        memcpy(target, source, length);
        source += length;
        target += length;
        if (source == source_end)
            return target - start;

        if (source_end - source < 2)
            return -1;
        offset = source[0] | source[1] << 8;
        source += 2;
        length = extend_length(&source, source_end, token & 15);
        if (length < 0 || offset == 0 || offset > (size_t)(target - start) ||
            length + MIN_MATCH > target_end - target)
            return -1;
        length += MIN_MATCH;
        if (offset >= (size_t)length) {
            memcpy(target, target - offset, length);
            target += length;
        } else
            while (length--) {
                *target = target[-(long)offset];
                target++;
            }
    }
    return -1;
}
