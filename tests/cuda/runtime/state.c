/* The settings, the counters, and the functions through which standin.py reads and writes them. */
#include "standin.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define DEFAULT_MEMORY ((size_t)80 << 30)
#define NAMES 64
#define NAME_BYTES 512

struct standin_counters standin_counts;
struct standin_settings standin_set = {
    .cards = 1,
    .capability = 90,
    .driver = 13000,
    .memory = DEFAULT_MEMORY,
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t uncomputed;
static char names[NAMES][NAME_BYTES];
static int name_count;

int standin_error(void)
{
    if (standin_set.no_device)
        return standin_set.no_device;
    return standin_set.failure;
}

void standin_counters(struct standin_counters *out)
{
    *out = standin_counts;
}

void standin_fail(int code)
{
    standin_set.failure = code;
}

void standin_no_device(int code)
{
    standin_set.no_device = code;
}

void standin_cards(int count)
{
    standin_set.cards = count < STANDIN_CARDS ? count : STANDIN_CARDS;
}

void standin_capability(int capability)
{
    standin_set.capability = capability;
}

void standin_driver(int version)
{
    standin_set.driver = version;
}

void standin_computing(int on)
{
    standin_set.computing = on != 0;
}

/* 0: the default. */
void standin_limit(size_t bytes)
{
    standin_set.memory = bytes ? bytes : DEFAULT_MEMORY;
}

static bool known_name(const char *name)
{
    for (int i = 0; i < name_count; i++)
        if (!strncmp(names[i], name, NAME_BYTES - 1))
            return true;
    return false;
}

void standin_note_uncomputed(const char *name)
{
    pthread_mutex_lock(&lock);
    uncomputed++;
    if (name_count < NAMES && !known_name(name))
        snprintf(names[name_count++], NAME_BYTES, "%s", name);
    pthread_mutex_unlock(&lock);
}

int64_t standin_uncomputed(void)
{
    return uncomputed;
}

/* The distinct kernels among them, in the order in which they were met; NULL behind the last. */
const char *standin_uncomputed_name(int index)
{
    return index < name_count ? names[index] : NULL;
}

void standin_forget_uncomputed(void)
{
    pthread_mutex_lock(&lock);
    uncomputed = 0;
    name_count = 0;
    pthread_mutex_unlock(&lock);
}
