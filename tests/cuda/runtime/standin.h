/* What the files of the stand-in share: its settings, its counters, and the way from a launch to its computing.
 *
 * The settings and counters live in libcudart.so.13; the other libraries are linked to it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STANDIN_CARDS 16 /* at most */

/* Sums since the library was loaded; standin.py subtracts two readings.  Its Counters has the same fields. */
struct standin_counters {
    int64_t launches;
    int64_t h2d;
    int64_t d2h;
    int64_t d2d;
    int64_t h2d_bytes;
    int64_t d2h_bytes;
    int64_t d2d_bytes;
    int64_t waits;
    int64_t allocations;
};

/* What a test sets.  Plain words, for a test sets them between runs, not during one. */
struct standin_settings {
    int failure;    /* the error that every call returns, or 0 */
    int no_device;  /* the error of a machine without a usable card, or 0 */
    int cards;
    int capability; /* 90 is 9.0 */
    int driver;     /* 13000 is 13.0 */
    bool computing;
    size_t memory;  /* of each card, in bytes */
};

extern struct standin_counters standin_counts;
extern struct standin_settings standin_set;

/* The error that a call on the card returns now, or 0: its own failure, or that there is no card. */
int standin_error(void);

/* What the driver says of an error. */
const char *standin_driver_error_name(int code);
const char *standin_error_text(int code);

/* Adds to a counter from any thread. */
#define STANDIN_COUNT(field, amount) __atomic_fetch_add(&standin_counts.field, (amount), __ATOMIC_RELAXED)

/* Notes a launch that ``computing`` met and that has no function here; ``name`` may be a mangled one. */
void standin_note_uncomputed(const char *name);

/* Counts the launch of a kernel that the driver loaded, and computes it where computing is on. */
int standin_launch(const char *name, const unsigned grid[3], const unsigned block[3], void **arguments);

/* A product as cuBLAS defines it (column-major), for one batch or many.  False: not of types that are computed. */
struct standin_product {
    bool transpose_a, transpose_b;
    int m, n, k;
    float alpha, beta;
    const void *a, *b;
    void *c;
    int a_type, b_type, c_type; /* of cudaDataType: 0 is float, 2 is half */
    int lda, ldb, ldc;
    long long stride_a, stride_b, stride_c;
    int batches;
};

/* Counts the product as a launch, and computes it where computing is on.  Returns 0, or an error of the card. */
int standin_multiply(const struct standin_product *product);
