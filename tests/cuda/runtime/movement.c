/* Kernels that move elements without changing them: Gather, Concat, Split.
 *
 * ONNX Runtime passes a divisor as a struct of 12 bytes that begins with it, and a list as its length and then room
 * for a fixed number of values. */
#include "kernels.h"
#include "numbers.h"

struct divisor {
    int value;
    unsigned multiplier, shift;
};

struct pointers {
    int count;
    void *at[32];
};

struct integers {
    int count;
    int at[32];
};

struct long_integers {
    int count;
    int64_t at[32];
};

struct divisors {
    int count;
    struct divisor at[32];
};

/* The bytes of the element type that a mangled name spells at ``type``; 0: another type. */
static size_t element_bytes(const char *type)
{
    switch (*type) {
    case 'a':
    case 'h':
        return 1;
    case 's':
    case 't':
        return 2;
    case 'i':
    case 'j':
        return 4;
    case 'l':
    case 'm':
        return 8;
    case '4':
        return strncmp(type, "4int4", 5) ? 0 : 16;
    default:
        return 0;
    }
}

static void copy_elements(void *to, size_t to_index, const void *from, size_t from_index, size_t count, size_t bytes)
{
    memcpy((char *)to + to_index * bytes, (const char *)from + from_index * bytes, count * bytes);
}

/* Arguments: elements of an outer block of the input, length of the axis, elements of an outer block of the output
 * and of one index (divisors), indices, bytes of an index, input, output, count. */
bool compute_gather(const struct kernel_launch *launch)
{
    size_t bytes = element_bytes(after(launch->name, "13_GatherKernelI"));
    int64_t in_block = ARGUMENT(launch, 0, int64_t), length = ARGUMENT(launch, 1, int64_t);
    int out_block = ARGUMENT(launch, 2, struct divisor).value, block = ARGUMENT(launch, 3, struct divisor).value;
    const void *indices = ARGUMENT(launch, 4, void *);
    bool wide = ARGUMENT(launch, 5, size_t) == 8;
    const void *x = ARGUMENT(launch, 6, void *);
    void *out = ARGUMENT(launch, 7, void *);
    int n = ARGUMENT(launch, 8, int);

    if (!bytes)
        return false;
    for (int i = 0; i < n; i += block) {
        int at = i % out_block / block;
        int64_t index = wide ? ((const int64_t *)indices)[at] : ((const int32_t *)indices)[at];
        index += index < 0 ? length : 0;
        if (index < 0 || index >= length)
            memset((char *)out + i * bytes, 0, block * bytes);
        else
            copy_elements(out, i, x, i / out_block * in_block + index * block, block, bytes);
    }
    return true;
}

/* Inputs of one length along the axis.  Arguments: elements of all inputs together from the axis on, elements behind
 * the axis, length along the axis (divisors), output, inputs, count. */
bool compute_concat_same(const struct kernel_launch *launch)
{
    const char *types = after(launch->name, "26_ConcatKernelSameConcatDimI");
    size_t bytes = element_bytes(types);
    int together = ARGUMENT(launch, 0, struct divisor).value;
    int chunk = ARGUMENT(launch, 1, struct divisor).value * ARGUMENT(launch, 2, struct divisor).value;
    void *out = ARGUMENT(launch, 3, void *);
    const struct pointers *inputs = launch->arguments[4];
    int n = ARGUMENT(launch, 5, int);

    if (!bytes || strncmp(types + 1, "NS0_6TArrayI", 12)) /* else a list in device memory, for more than 32 */
        return false;
    for (int i = 0; i < n; i += chunk)
        copy_elements(out, i, inputs->at[i % together / chunk], (size_t)(i / together) * chunk, chunk, bytes);
    return true;
}

/* Inputs of different lengths whose rows are long.  Arguments: inputs, last block of each, offset of each within a
 * row of the output, elements of a row of each (divisors), rows, elements of a row of the output, output. */
bool compute_concat_by_input(const struct kernel_launch *launch)
{
    size_t bytes = element_bytes(after(launch->name, "23_ConcatKernelInputMajorI"));
    const struct pointers *inputs = launch->arguments[0];
    const struct integers *offsets = launch->arguments[2];
    const struct divisors *widths = launch->arguments[3];
    int rows = ARGUMENT(launch, 4, int), width = ARGUMENT(launch, 5, int);
    void *out = ARGUMENT(launch, 6, void *);

    if (!bytes)
        return false;
    for (int input = 0; input < inputs->count; input++) {
        size_t own = widths->at[input].value;
        for (size_t row = 0; row < (size_t)rows; row++)
            copy_elements(out, row * width + offsets->at[input], inputs->at[input], row * own, own, bytes);
    }
    return true;
}

/* Inputs of different lengths whose rows are short.  Arguments: elements of a row of the output and behind the axis
 * (divisors), sums of the lengths along the axis, output, inputs, count. */
bool compute_concat_by_output(const struct kernel_launch *launch)
{
    size_t bytes = element_bytes(after(launch->name, "24_ConcatKernelOutputMajorI"));
    size_t width = ARGUMENT(launch, 0, struct divisor).value, inner = ARGUMENT(launch, 1, struct divisor).value;
    const struct long_integers *ends = launch->arguments[2];
    void *out = ARGUMENT(launch, 3, void *);
    const struct pointers *inputs = launch->arguments[4];
    size_t rows = ARGUMENT(launch, 5, int) / width;

    if (!bytes)
        return false;
    for (size_t row = 0; row < rows; row++) {
        for (int input = 0; input < inputs->count; input++) {
            size_t start = input ? ends->at[input - 1] * inner : 0;
            size_t own = ends->at[input] * inner - start;
            copy_elements(out, row * width + start, inputs->at[input], row * own, own, bytes);
        }
    }
    return true;
}

/* Outputs of one length along the axis.  Arguments: elements of the input from the axis on, behind the axis, length
 * along the axis of an output (divisors), outputs' number, input, outputs, count. */
bool compute_split_same(const struct kernel_launch *launch)
{
    const char *types = after(launch->name, "24_SplitKernelSameSplitDimI");
    size_t bytes = element_bytes(types);
    int together = ARGUMENT(launch, 0, struct divisor).value;
    int chunk = ARGUMENT(launch, 1, struct divisor).value * ARGUMENT(launch, 2, struct divisor).value;
    const void *x = ARGUMENT(launch, 4, void *);
    const struct pointers *outputs = launch->arguments[5];
    int n = ARGUMENT(launch, 6, int);

    if (!bytes || strncmp(types + 1, "NS0_6TArrayI", 12))
        return false;
    for (int i = 0; i < n; i += chunk)
        copy_elements(outputs->at[i % together / chunk], (size_t)(i / together) * chunk, x, i, chunk, bytes);
    return true;
}

/* Along the last axis, to four outputs at most.  Arguments: bytes of a row of each output, input, outputs, bytes of
 * a row of the input, how many elements of the type that is copied at once. */
bool compute_split_inner(const struct kernel_launch *launch)
{
    size_t bytes = element_bytes(after(launch->name, "22_SplitSmallInnerKernelI"));
    const struct long_integers *widths = launch->arguments[0]; /* with room for four, of which no more are read */
    const char *x = ARGUMENT(launch, 1, void *);
    const struct pointers *outputs = launch->arguments[2];
    size_t width = ARGUMENT(launch, 3, int64_t);
    size_t rows = ARGUMENT(launch, 4, int) * bytes / width;

    if (!bytes)
        return false;
    for (size_t row = 0; row < rows; row++) {
        for (int output = 0; output < outputs->count; output++) {
            size_t own = widths->at[output];
            memcpy((char *)outputs->at[output] + row * own, x, own);
            x += own;
        }
    }
    return true;
}
