/* The few functions of string.h that MicroPython calls; in 8-byte steps where they move much. */
#include "nano.h"

#include <string.h>

void *memcpy(void *target, const void *source, size_t length)
{
    void *result = target;
    size_t words = length / 8, rest = length % 8;

    __asm__ volatile("rep movsq" : "+D"(target), "+S"(source), "+c"(words) : : "memory");
    __asm__ volatile("rep movsb" : "+D"(target), "+S"(source), "+c"(rest) : : "memory");
    return result;
}

void *memmove(void *target, const void *source, size_t length)
{
    uint8_t *to = target;
    const uint8_t *from = source;

    /*
     * Not to touch what stays where it is matters: assigning a slice of a memoryview, MicroPython "moves" all
     * that follows the slice to its own place. In a page shared with another domain that would undo what
     * the other one writes meanwhile.
     */
    if (to == from)
        return target;
    if (to <= from || to >= from + length)
        return memcpy(target, source, length);
    while (length--)
        to[length] = from[length];
    return target;
}

void *memset(void *target, int value, size_t length)
{
    void *result = target;
    uint64_t pattern = 0x0101010101010101UL * (uint8_t)value;
    size_t words = length / 8, rest = length % 8;

    __asm__ volatile("rep stosq" : "+D"(target), "+c"(words) : "a"(pattern) : "memory");
    __asm__ volatile("rep stosb" : "+D"(target), "+c"(rest) : "a"(pattern) : "memory");
    return result;
}

int memcmp(const void *first, const void *second, size_t length)
{
    const uint8_t *a = first, *b = second;

    for (; length--; a++, b++)
        if (*a != *b)
            return *a - *b;
    return 0;
}

size_t strlen(const char *text)
{
    size_t length = 0;

    while (text[length])
        length++;
    return length;
}

int strcmp(const char *first, const char *second)
{
    for (; *first && *first == *second; first++, second++)
        ;
    return (uint8_t)*first - (uint8_t)*second;
}

int strncmp(const char *first, const char *second, size_t length)
{
    for (; length; first++, second++, length--)
        if (*first != *second || !*first)
            return (uint8_t)*first - (uint8_t)*second;
    return 0;
}

char *strchr(const char *text, int character)
{
    for (; *text != (char)character; text++)
        if (!*text)
            return NULL;
    return (char *)text;
}
