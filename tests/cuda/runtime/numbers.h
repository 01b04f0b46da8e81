/* Numbers in the two precisions of the graphs.  All arithmetic is in float; what is stored is rounded once. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum precision { HALF, FLOAT, OTHER };

typedef _Float16 half;

static inline float load(const void *numbers, size_t i, enum precision precision)
{
    return precision == HALF ? (float)((const half *)numbers)[i] : ((const float *)numbers)[i];
}

static inline void store(void *numbers, size_t i, enum precision precision, float value)
{
    if (precision == HALF)
        ((half *)numbers)[i] = (half)value;
    else
        ((float *)numbers)[i] = value;
}

static inline size_t bytes_of(enum precision precision)
{
    return precision == HALF ? sizeof(half) : sizeof(float);
}

/* The precision of the type that a mangled name spells at ``name``. */
static inline enum precision precision_at(const char *name)
{
    if (!strncmp(name, "6__half", 7))
        return HALF;
    return *name == 'f' ? FLOAT : OTHER;
}

/* What follows ``part`` in ``name``; "" where it is not in it. */
static inline const char *after(const char *name, const char *part)
{
    const char *found = strstr(name, part);
    return found ? found + strlen(part) : "";
}

/* The argument ``index`` of a launch as a ``type``. */
#define ARGUMENT(launch, index, type) (*(type *)(launch)->arguments[index])
