/* Packed attention in one kernel: FlashAttention's (half, compute capability 8.0 and up), and for 7.5 TensorRT's, or
 * CUTLASS's where TensorRT has none for the size of a head. */
#include "kernels.h"
#include "numbers.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>

/* All strides are in elements. */
struct attention {
    enum precision precision;
    const void *q, *k, *v; /* (tokens, heads, size) */
    void *out;
    int64_t q_stride, k_stride, v_stride, out_stride; /* from a token to the next */
    int64_t head_stride;                              /* from a head to the next, in q, k and v */
    int sequences, heads, longest;
    int size; /* of a head */
    float scale;
    const int *starts; /* of each sequence among the tokens, and the end of the last */
};

/* Room for one head of one sequence in float: keys as (size, length), values as (length, size), and of one token
 * what it reads as (size,) and its scores as (length,). */
struct room {
    float *keys, *values, *mixed, *scores;
};

static bool make_room(struct room *room, int longest, int size)
{
    size_t all = (size_t)longest * size;
    float *start = malloc((2 * all + size + longest) * sizeof *start);

    *room = (struct room){start, start + all, start + 2 * all, start + 2 * all + size};
    return start != NULL;
}

/* Turns scores into shares that sum to one. */
static void softmax(float *scores, int n)
{
    float largest = -INFINITY, sum = 0;

    for (int i = 0; i < n; i++)
        largest = fmaxf(largest, scores[i]);
    for (int i = 0; i < n; i++)
        sum += scores[i] = expf(scores[i] - largest);
    for (int i = 0; i < n; i++)
        scores[i] /= sum;
}

/* Reads keys and values of the ``length`` tokens from ``first`` on. */
static void read_head(const struct attention *a, int first, int length, int head, struct room *room)
{
    for (int j = 0; j < length; j++) {
        size_t k = (first + j) * a->k_stride + head * a->head_stride;
        size_t v = (first + j) * a->v_stride + head * a->head_stride;
        for (int i = 0; i < a->size; i++) {
            room->keys[(size_t)i * length + j] = load(a->k, k + i, a->precision);
            room->values[(size_t)j * a->size + i] = load(a->v, v + i, a->precision);
        }
    }
}

/* What the token ``token`` of a sequence reads through the head that is in the room. */
static void attend(const struct attention *a, int length, int token, int head, struct room *room)
{
    size_t q = token * a->q_stride + head * a->head_stride, out = token * a->out_stride + (size_t)head * a->size;

    memset(room->scores, 0, length * sizeof *room->scores);
    for (int i = 0; i < a->size; i++) {
        float query = a->scale * load(a->q, q + i, a->precision);
        for (int j = 0; j < length; j++)
            room->scores[j] += query * room->keys[(size_t)i * length + j];
    }
    softmax(room->scores, length);
    memset(room->mixed, 0, a->size * sizeof *room->mixed);
    for (int j = 0; j < length; j++)
        for (int i = 0; i < a->size; i++)
            room->mixed[i] += room->scores[j] * room->values[(size_t)j * a->size + i];
    for (int i = 0; i < a->size; i++)
        store(a->out, out + i, a->precision, room->mixed[i]);
}

static bool attend_all(const struct attention *a)
{
    struct room room;
    bool possible = make_room(&room, a->longest, a->size);

    for (int sequence = 0; possible && sequence < a->sequences; sequence++) {
        int first = a->starts[sequence], length = a->starts[sequence + 1] - first;
        possible = length <= a->longest;
        for (int head = 0; possible && head < a->heads; head++) {
            read_head(a, first, length, head, &room);
            for (int token = first; token < first + length; token++)
                attend(a, length, token, head, &room);
        }
    }
    free(room.keys);
    return possible;
}

/* The fields, up to those that are read, of the struct that FlashAttention's kernel takes.  Strides are in elements. */
struct flash_parameters {
    void *q, *k, *v;
    int64_t q_batch_stride, k_batch_stride, v_batch_stride;
    int64_t q_row_stride, k_row_stride, v_row_stride;
    int64_t q_head_stride, k_head_stride, v_head_stride;
    int heads, key_heads, heads_a_key_head;
    void *out, *partial_out;
    int64_t out_batch_stride, out_row_stride, out_head_stride;
    void *probabilities, *log_sums, *partial_log_sums;
    int sequences, longest_query, longest_key, new_keys;
    int size, rounded_query, rounded_key, rounded_size, rotary, tokens;
    float scale, scale_by_log2, softcap;
    int *query_starts, *key_starts;
};

_Static_assert(offsetof(struct flash_parameters, query_starts) == 232, "as ONNX Runtime 1.31.1 lays it out");

/* The argument is that struct. */
bool compute_flash_attention(const struct kernel_launch *launch)
{
    const struct flash_parameters *p = launch->arguments[0];
    struct attention attention = {
        .precision = HALF,
        .q = p->q,
        .k = p->k,
        .v = p->v,
        .out = p->out,
        .q_stride = p->q_row_stride,
        .k_stride = p->k_row_stride,
        .v_stride = p->v_row_stride,
        .out_stride = p->out_row_stride,
        .head_stride = p->q_head_stride,
        .sequences = p->sequences,
        .heads = p->heads,
        .longest = p->longest_query,
        .size = p->size,
        .scale = p->scale,
        .starts = p->query_starts,
    };
    bool half_precision = strstr(launch->name, "7cutlass6half_t") != NULL;
    bool plain = p->heads == p->key_heads && p->query_starts && p->query_starts == p->key_starts && !p->softcap &&
                 p->k_head_stride == p->q_head_stride && p->v_head_stride == p->q_head_stride &&
                 p->out_head_stride == p->size;

    return half_precision && plain && attend_all(&attention);
}

/* The struct that CUTLASS's kernel takes.  Strides are in elements. */
struct cutlass_parameters {
    void *q, *k, *v, *bias;
    int *query_starts, *key_starts, *key_lengths;
    unsigned causal_offset;
    void *out, *partial_out, *log_sums;
    int window;
    float scale, softcap;
    int size, value_size, queries, keys, all_keys;
    uint8_t mask;
    int q_stride, k_stride, v_stride, bias_stride, out_stride;
    int q_head_stride, k_head_stride, v_head_stride;
    int64_t bias_head_stride, q_batch_stride, k_batch_stride, v_batch_stride;
    int bias_batch_stride, unused;
    int sequences, heads;
};

_Static_assert(offsetof(struct cutlass_parameters, sequences) == 200, "as ONNX Runtime 1.31.1 lays it out");

/* The argument is that struct. */
bool compute_cutlass_attention(const struct kernel_launch *launch)
{
    const char *type = after(launch->name, "15AttentionKernelI");
    const struct cutlass_parameters *p = launch->arguments[0];
    struct attention attention = {
        .precision = strncmp(type, "N7cutlass6half_tE", 17) ? precision_at(type) : HALF,
        .q = p->q,
        .k = p->k,
        .v = p->v,
        .out = p->out,
        .q_stride = p->q_stride,
        .k_stride = p->k_stride,
        .v_stride = p->v_stride,
        .out_stride = p->out_stride,
        .head_stride = p->q_head_stride,
        .sequences = p->sequences,
        .heads = p->heads,
        .longest = p->queries,
        .size = p->size,
        .scale = p->scale,
        .starts = p->query_starts,
    };
    bool plain = !p->bias && p->query_starts && p->query_starts == p->key_starts && !p->mask && !p->softcap &&
                 p->size == p->value_size && p->k_head_stride == p->q_head_stride &&
                 p->v_head_stride == p->q_head_stride;

    return attention.precision != OTHER && plain && attend_all(&attention);
}

/* The struct that TensorRT's kernels take: (tokens, heads, 3, size) of q, k and v.  A scale is a pair of equal
 * halves. */
struct tensorrt_parameters {
    void *qkv, *mask, *out;
    int64_t stride_bytes, mask_stride_bytes, out_stride_bytes;
    int sequences, heads, longest, size;
    half scale[2], softmax_scale[2], out_scale[2];
    bool integer_trick;
    int *starts;
};

_Static_assert(offsetof(struct tensorrt_parameters, starts) == 80, "as ONNX Runtime 1.31.1 lays it out");

/* The argument is that struct. */
bool compute_tensorrt_attention(const struct kernel_launch *launch)
{
    const struct tensorrt_parameters *p = launch->arguments[0];
    struct attention attention = {
        .precision = HALF,
        .q = p->qkv,
        .k = (half *)p->qkv + p->size,
        .v = (half *)p->qkv + 2 * p->size,
        .out = p->out,
        .q_stride = p->stride_bytes / sizeof(half),
        .k_stride = p->stride_bytes / sizeof(half),
        .v_stride = p->stride_bytes / sizeof(half),
        .out_stride = p->out_stride_bytes / sizeof(half),
        .head_stride = 3 * p->size,
        .sequences = p->sequences,
        .heads = p->heads,
        .longest = p->longest,
        .size = p->size,
        .scale = (float)p->scale[0],
        .starts = p->starts,
    };
    bool plain = strstr(launch->name, "_fp16_") && !strstr(launch->name, "causal") && (float)p->out_scale[0] == 1;

    return plain && attend_all(&attention);
}
