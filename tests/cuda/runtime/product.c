/* Matrix products, in cuBLAS's column-major sense: c (m, n) = alpha a (m, k) b (k, n) + beta c.
 *
 * Both operands are turned into floats first; the sums run over several columns of c at once, so that each row of a is
 * read from memory once for all of them. */
#include "standin.h"

#include "numbers.h"

#include <stdlib.h>

#define COLUMNS 8

static enum precision precision_of(int type)
{
    return type == 2 ? HALF : type == 0 ? FLOAT : OTHER;
}

/* ``out`` (k, m) rows of m, from a stored as (m, k) columns or, transposed, rows. */
static void unpack_a(const struct standin_product *p, const void *a, float *out)
{
    enum precision precision = precision_of(p->a_type);

    for (int i = 0; i < p->m; i++)
        for (int j = 0; p->transpose_a && j < p->k; j++)
            out[(size_t)j * p->m + i] = load(a, (size_t)i * p->lda + j, precision);
    for (int j = 0; !p->transpose_a && j < p->k; j++)
        for (int i = 0; i < p->m; i++)
            out[(size_t)j * p->m + i] = load(a, (size_t)j * p->lda + i, precision);
}

static float element_of_b(const struct standin_product *p, const void *b, int row, int column)
{
    size_t at = p->transpose_b ? (size_t)row * p->ldb + column : (size_t)column * p->ldb + row;
    return load(b, at, precision_of(p->b_type));
}

/* sums (count, m) = the columns ``first`` to ``first + count`` of a b. */
static void multiply_columns(const struct standin_product *p, const float *a, const void *b, int first, int count,
                             float *sums)
{
    memset(sums, 0, (size_t)count * p->m * sizeof *sums);
    for (int j = 0; j < p->k; j++) {
        const float *row = a + (size_t)j * p->m;
        for (int column = 0; column < count; column++) {
            float factor = element_of_b(p, b, j, first + column);
            float *sum = sums + (size_t)column * p->m;
            for (int i = 0; i < p->m; i++)
                sum[i] += factor * row[i];
        }
    }
}

static void store_columns(const struct standin_product *p, const float *sums, void *c, int first, int count)
{
    enum precision precision = precision_of(p->c_type);

    for (int column = 0; column < count; column++) {
        for (int i = 0; i < p->m; i++) {
            size_t at = (size_t)(first + column) * p->ldc + i;
            float before = p->beta != 0 ? p->beta * load(c, at, precision) : 0;
            store(c, at, precision, p->alpha * sums[(size_t)column * p->m + i] + before);
        }
    }
}

static const void *batch_of(const void *start, long long stride, int batch, int type)
{
    return (const char *)start + stride * batch * (long long)bytes_of(precision_of(type));
}

static bool multiply(const struct standin_product *p)
{
    if (precision_of(p->a_type) == OTHER || precision_of(p->b_type) == OTHER || precision_of(p->c_type) == OTHER)
        return false;
    float *a = malloc((size_t)p->m * p->k * sizeof *a);
    float *sums = malloc((size_t)p->m * COLUMNS * sizeof *sums);
    for (int batch = 0; a && sums && batch < p->batches; batch++) {
        const void *b = batch_of(p->b, p->stride_b, batch, p->b_type);
        void *c = (void *)batch_of(p->c, p->stride_c, batch, p->c_type);
        unpack_a(p, batch_of(p->a, p->stride_a, batch, p->a_type), a);
        for (int first = 0; first < p->n; first += COLUMNS) {
            int count = p->n - first < COLUMNS ? p->n - first : COLUMNS;
            multiply_columns(p, a, b, first, count, sums);
            store_columns(p, sums, c, first, count);
        }
    }
    bool done = a && sums;
    free(a);
    free(sums);
    return done;
}

int standin_multiply(const struct standin_product *product)
{
    if (standin_error())
        return standin_error();
    STANDIN_COUNT(launches, 1);
    if (standin_set.computing && !multiply(product))
        standin_note_uncomputed("a product of other types than half and float");
    return 0;
}
