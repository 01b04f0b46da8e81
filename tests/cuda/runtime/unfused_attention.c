/* The pieces of packed attention around the kernels of attention.c, and those that do without one (float): tokens
 * are laid out as (sequences, heads, longest, size), multiplied by cuBLAS, and packed again. */
#include "kernels.h"
#include "numbers.h"

#include <math.h>

struct vector {
    enum precision precision;
    int width; /* how many numbers are moved as one */
};

/* The type that a mangled name spells at ``type``, of the kernels below. */
static struct vector vector_at(const char *type)
{
    static const struct {
        const char *name;
        struct vector vector;
    } known[] = {
        {"NS_4cuda5Half4E", {HALF, 4}}, {"7__half2", {HALF, 2}}, {"6__half", {HALF, 1}},
        {"6float4", {FLOAT, 4}},        {"6float2", {FLOAT, 2}}, {"f", {FLOAT, 1}},
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strncmp(type, known[i].name, strlen(known[i].name)))
            return known[i].vector;
    return (struct vector){OTHER, 0};
}

static void add_bias(void *out, size_t to, const void *x, size_t from, const void *bias, size_t bias_from, int n,
                     enum precision precision)
{
    for (int i = 0; i < n; i++) {
        float added = bias ? load(bias, bias_from + i, precision) : 0;
        store(out, to + i, precision, load(x, from + i, precision) + added);
    }
}

/* Arguments: q, k, v, bias or NULL, heads, size of a head of q and k, of v (in vectors), out q, k, v, tokens. */
bool compute_add_bias_packed(const struct kernel_launch *launch)
{
    struct vector vector = vector_at(after(launch->name, "21TransposeQKV_TNH_3TNHI"));
    const void *bias = ARGUMENT(launch, 3, void *);
    int heads = ARGUMENT(launch, 4, int);
    size_t bias_from = 0;

    if (vector.precision == OTHER)
        return false;
    for (int part = 0; part < 3; part++) {
        int width = heads * ARGUMENT(launch, part < 2 ? 5 : 6, int) * vector.width;
        const void *x = ARGUMENT(launch, part, void *);
        void *out = ARGUMENT(launch, 7 + part, void *);
        for (int token = 0; token < ARGUMENT(launch, 10, int); token++) {
            size_t at = (size_t)token * width;
            add_bias(out, at, x, at, bias, bias_from, width, vector.precision);
        }
        bias_from += width;
    }
    return true;
}

/* q, k and v from (tokens, heads, size) each to (tokens, heads, 3, size).  Arguments: q, k, v, bias or NULL, heads,
 * size of a head of q and k, of v (in vectors), output, tokens. */
bool compute_interleave_heads(const struct kernel_launch *launch)
{
    struct vector vector = vector_at(after(launch->name, "21TransposeQKV_TNH_TN3HI"));
    const void *bias = ARGUMENT(launch, 3, void *);
    int heads = ARGUMENT(launch, 4, int), size = ARGUMENT(launch, 5, int) * vector.width;
    void *out = ARGUMENT(launch, 7, void *);
    int tokens = ARGUMENT(launch, 8, int);

    if (vector.precision == OTHER || ARGUMENT(launch, 5, int) != ARGUMENT(launch, 6, int))
        return false;
    for (int part = 0; part < 3; part++) {
        const void *x = ARGUMENT(launch, part, void *);
        for (int i = 0; i < tokens * heads; i++) {
            size_t to = ((size_t)i * 3 + part) * size;
            size_t bias_from = ((size_t)part * heads + i % heads) * size;
            add_bias(out, to, x, (size_t)i * size, bias, bias_from, size, vector.precision);
        }
    }
    return true;
}

/* One of q, k, v (``part``) from (tokens, heads, size) to (sequences, heads, longest, size).  The places of padding are
 * listed in the offsets behind those of the tokens; they get the bias. */
static void pad_heads(const struct kernel_launch *launch, enum precision precision, int part, int heads, int size,
                      size_t bias_from)
{
    const void *x = ARGUMENT(launch, part, void *), *bias = ARGUMENT(launch, 3, void *);
    void *out = ARGUMENT(launch, 7 + part, void *);
    const int *offsets = ARGUMENT(launch, 10, int *);
    int tokens = ARGUMENT(launch, 11, int), longest = launch->grid.x;
    static const float zeros[4096];

    for (int place = 0; place < longest * (int)launch->grid.y; place++) {
        int sequence = offsets[place] / longest, position = offsets[place] % longest;
        for (int head = 0; head < heads; head++) {
            size_t to = (((size_t)sequence * heads + head) * longest + position) * size;
            bool token = place < tokens;
            size_t from = token ? ((size_t)place * heads + head) * size : 0;
            add_bias(out, to, token ? x : zeros, from, bias, bias_from + head * size, size, precision);
        }
    }
}

/* Arguments: q, k, v, bias or NULL, heads, size of a head of q and k, of v (in vectors), out q, k, v, offsets, tokens;
 * the grid is (longest, sequences). */
bool compute_pad_heads(const struct kernel_launch *launch)
{
    struct vector vector = vector_at(after(launch->name, "22TransposeQKV_TNH_3BNSHI"));
    int heads = ARGUMENT(launch, 4, int);
    int size = ARGUMENT(launch, 5, int) * vector.width, v_size = ARGUMENT(launch, 6, int) * vector.width;

    if (vector.precision == OTHER || size > 4096 || v_size > 4096)
        return false;
    pad_heads(launch, vector.precision, 0, heads, size, 0);
    pad_heads(launch, vector.precision, 1, heads, size, (size_t)heads * size);
    pad_heads(launch, vector.precision, 2, heads, v_size, (size_t)2 * heads * size);
    return true;
}

/* One row of scores: the first ``end`` get their shares, the others zero. */
static void softmax_row(const void *x, void *out, size_t at, int end, int width, enum precision precision)
{
    float largest = -INFINITY;
    double sum = 0;

    for (int i = 0; i < end; i++)
        largest = fmaxf(largest, load(x, at + i, precision));
    for (int i = 0; i < end; i++)
        sum += expf(load(x, at + i, precision) - largest);
    for (int i = 0; i < width; i++)
        store(out, at + i, precision, i < end ? (float)(expf(load(x, at + i, precision) - largest) / sum) : 0);
}

/* Arguments: scores, bias on them or NULL, two ways of broadcasting it, starts of the sequences, width of a row,
 * queries of a sequence, output; the grid is (heads x queries, sequences). */
bool compute_softmax_packed(const struct kernel_launch *launch)
{
    enum precision precision = precision_at(after(launch->name, "WithCumSeqLenI"));
    const void *x = ARGUMENT(launch, 0, void *);
    const int *starts = ARGUMENT(launch, 4, int *);
    int width = ARGUMENT(launch, 5, int);
    void *out = ARGUMENT(launch, 7, void *);

    if (precision == OTHER || ARGUMENT(launch, 1, void *))
        return false;
    for (unsigned sequence = 0; sequence < launch->grid.y; sequence++) {
        int end = starts[sequence + 1] - starts[sequence];
        for (unsigned row = 0; row < launch->grid.x; row++)
            softmax_row(x, out, ((size_t)sequence * launch->grid.x + row) * width, end, width, precision);
    }
    return true;
}

/* The bytes of the types by which TransposeRemovePadding moves: int4, long, int or short, as the size of a head allows. */
static size_t moved_bytes(const char *type)
{
    if (!strncmp(type, "4int4", 5))
        return 16;
    return *type == 'l' ? 8 : *type == 'i' ? 4 : *type == 's' ? 2 : 0;
}

/* From (sequences, heads, longest, size) to (tokens, heads, size); a token for each block.  Arguments: output, input,
 * offsets, sequences, longest, heads, size of a head (in what is moved as one). */
bool compute_unpad_heads(const struct kernel_launch *launch)
{
    char *out = ARGUMENT(launch, 0, void *);
    const char *x = ARGUMENT(launch, 1, void *);
    const int *offsets = ARGUMENT(launch, 2, int *);
    int longest = ARGUMENT(launch, 4, int), heads = ARGUMENT(launch, 5, int);
    size_t size = ARGUMENT(launch, 6, int) * moved_bytes(after(launch->name, "22TransposeRemovePaddingI"));

    if (!size)
        return false;
    for (size_t token = 0; token < launch->grid.x; token++) {
        size_t sequence = offsets[token] / longest, position = offsets[token] % longest;
        for (int head = 0; head < heads; head++) {
            memcpy(out, x + ((sequence * heads + head) * longest + position) * size, size);
            out += size;
        }
    }
    return true;
}
