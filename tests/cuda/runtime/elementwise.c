/* Kernels that work on one element at a time: sums, products, activations, casts, biases. */
#include "kernels.h"
#include "numbers.h"

#include <math.h>

static float gelu(float x)
{
    return 0.5f * x * (1 + erff(x * 0.70710678f));
}

static float gelu_by_tanh(float x)
{
    return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
}

static float same(float x)
{
    return x;
}

static float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

static float relu(float x)
{
    return fmaxf(x, 0);
}

struct unary {
    const char *part;
    float (*function)(float);
};

static const struct unary unaries[] = {
    {"7OP_CastI", same}, {"7OP_TanhI", tanhf}, {"10OP_SigmoidI", sigmoid}, {"7OP_ReluI", relu},
    {"7OP_GeluI", gelu}, {"6OP_ErfI", erff},   {"6OP_ExpI", expf},
};

static void apply(float (*function)(float), const void *x, enum precision from, void *y, enum precision to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        store(y, i, to, function(load(x, i, from)));
}

static void leaky_relu(float alpha, const void *x, void *y, enum precision precision, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float value = load(x, i, precision);
        store(y, i, precision, value > 0 ? value : alpha * value);
    }
}

/* What ONNX Runtime makes of x * sigmoid(alpha * x): SiLU with an alpha of one. */
static void quick_gelu(float alpha, const void *x, void *y, enum precision precision, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float value = load(x, i, precision);
        store(y, i, precision, value * sigmoid(alpha * value));
    }
}

/* The result's type is spelled S2_ where it is half like the input's. */
static enum precision result_precision(const char *types, enum precision from)
{
    const char *second = types + (from == HALF ? strlen("6__half") : 1);
    return *second == 'S' ? from : precision_at(second);
}

/* Arguments: input, output, functor, count. */
bool compute_unary(const struct kernel_launch *launch)
{
    const char *types = after(launch->name, "17_UnaryElementWiseI");
    enum precision from = precision_at(types);
    enum precision to = from == OTHER ? OTHER : result_precision(types, from);
    const void *x = ARGUMENT(launch, 0, void *);
    void *y = ARGUMENT(launch, 1, void *);
    int64_t n = ARGUMENT(launch, 3, int64_t);

    if (to == OTHER)
        return false;
    if (strstr(launch->name, "12OP_LeakyReluI")) {
        leaky_relu(ARGUMENT(launch, 2, float), x, y, from, n);
        return true;
    }
    if (strstr(launch->name, "12OP_QuickGeluI")) {
        quick_gelu(ARGUMENT(launch, 2, float), x, y, from, n);
        return true;
    }
    for (size_t i = 0; i < sizeof unaries / sizeof *unaries; i++) {
        if (strstr(launch->name, unaries[i].part)) {
            apply(unaries[i].function, x, from, y, to, n);
            return true;
        }
    }
    return false;
}

static float sum(float a, float b)
{
    return a + b;
}

static float difference(float a, float b)
{
    return a - b;
}

static float product(float a, float b)
{
    return a * b;
}

static float quotient(float a, float b)
{
    return a / b;
}

struct binary {
    const char *part;
    float (*function)(float, float);
};

static const struct binary binaries[] = {
    {"6OP_AddI", sum},      {"6OP_SubI", difference}, {"6OP_MulI", product},
    {"6OP_DivI", quotient}, {"6OP_MinI", fminf},      {"6OP_MaxI", fmaxf},
};

static float (*binary_of(const char *name))(float, float)
{
    for (size_t i = 0; i < sizeof binaries / sizeof *binaries; i++)
        if (strstr(name, binaries[i].part))
            return binaries[i].function;
    return NULL;
}

/* Whether the types of output and both inputs, at the start of ``types``, are the same. */
static bool one_type(const char *types, enum precision precision)
{
    return !strncmp(types, precision == HALF ? "6__halfS2_S2_NS" : "fffNS", precision == HALF ? 15 : 5);
}

/* Counts and lengths are 64-bit integers. */
static bool compute_integers(const struct kernel_launch *launch, bool each_left, bool each_right, int64_t n)
{
    const int64_t *left = ARGUMENT(launch, 0, int64_t *), *right = ARGUMENT(launch, 1, int64_t *);
    int64_t *out = ARGUMENT(launch, 2, int64_t *);
    bool add = strstr(launch->name, "6OP_AddI"), subtract = strstr(launch->name, "6OP_SubI");
    bool least = strstr(launch->name, "6OP_MinI"), most = strstr(launch->name, "6OP_MaxI");

    if (!(add || subtract || least || most))
        return false;
    for (int64_t i = 0; i < n; i++) {
        int64_t a = left[each_left ? i : 0], b = right[each_right ? i : 0];
        if (add)
            out[i] = a + b;
        else if (subtract)
            out[i] = a - b;
        else
            out[i] = (a < b) == least ? a : b;
    }
    return true;
}

/* Template: whether the left and the right side have an element each or one for all (Lb1E or Lb0E), then the types.
 * Arguments: left, right, output, functor, count. */
bool compute_binary(const struct kernel_launch *launch)
{
    const char *sides = after(launch->name, "24_BinaryElementWiseSimpleI");
    const char *types = sides + strlen("Lb1ELb1E");
    enum precision precision = precision_at(types);
    float (*function)(float, float) = binary_of(launch->name);
    const void *left = ARGUMENT(launch, 0, void *), *right = ARGUMENT(launch, 1, void *);
    void *out = ARGUMENT(launch, 2, void *);
    bool each_left = sides[2] == '1', each_right = sides[6] == '1';
    bool wide = strstr(launch->name, "ElEEvPKT2_") != NULL; /* the type of the count, at the template's end */
    int64_t n = wide ? ARGUMENT(launch, 4, int64_t) : ARGUMENT(launch, 4, int32_t);

    if (!strncmp(types, "lllNS", 5))
        return compute_integers(launch, each_left, each_right, n);
    if (precision == OTHER || !function || !one_type(types, precision))
        return false;
    for (int64_t i = 0; i < n; i++) {
        float a = load(left, each_left ? i : 0, precision);
        float b = load(right, each_right ? i : 0, precision);
        store(out, i, precision, function(a, b));
    }
    return true;
}

/* Lays out the bias that a Gemm then adds to.  Arguments: bias, output, count, columns (a divisor), the bias's
 * strides of row and column, scale. */
bool compute_broadcast_bias(const struct kernel_launch *launch)
{
    enum precision precision = precision_at(after(launch->name, "19BroadcastBiasKernelI"));
    const void *bias = ARGUMENT(launch, 0, void *);
    void *out = ARGUMENT(launch, 1, void *);
    int64_t n = ARGUMENT(launch, 2, int64_t);
    int columns = ARGUMENT(launch, 3, int);
    int row_stride = ARGUMENT(launch, 4, int), column_stride = ARGUMENT(launch, 5, int);

    if (precision == OTHER || !strstr(launch->name, "iLb0EEEv")) /* Lb1: it scales */
        return false;
    for (int64_t i = 0; i < n; i++) {
        int64_t from = i / columns * row_stride + i % columns * column_stride;
        store(out, i, precision, load(bias, from, precision));
    }
    return true;
}

/* Arguments: columns, input, bias, output; a row for each block in x. */
bool compute_bias_gelu(const struct kernel_launch *launch)
{
    enum precision precision = precision_at(after(launch->name, "BiasGeluKernelI"));
    int64_t columns = ARGUMENT(launch, 0, int64_t);
    const void *x = ARGUMENT(launch, 1, void *);
    const void *bias = ARGUMENT(launch, 2, void *);
    void *out = ARGUMENT(launch, 3, void *);

    if (precision == OTHER)
        return false;
    for (int64_t i = 0; i < launch->grid.x * columns; i++)
        store(out, i, precision, gelu(load(x, i, precision) + load(bias, i % columns, precision)));
    return true;
}

/* Arguments: three constants, count, columns, input, bias or NULL, output; ``width`` elements are counted as one. */
static void fast_gelu(const struct kernel_launch *launch, enum precision precision, int width)
{
    int64_t n = (int64_t)ARGUMENT(launch, 3, int) * width;
    int64_t columns = (int64_t)ARGUMENT(launch, 4, int) * width;
    const void *x = ARGUMENT(launch, 5, void *);
    const void *bias = ARGUMENT(launch, 6, void *);
    void *out = ARGUMENT(launch, 7, void *);

    for (int64_t i = 0; i < n; i++) {
        float added = bias ? load(bias, i % columns, precision) : 0;
        store(out, i, precision, gelu_by_tanh(load(x, i, precision) + added));
    }
}

bool compute_fast_gelu(const struct kernel_launch *launch)
{
    enum precision precision = precision_at(after(launch->name, "14FastGeluKernelI"));

    if (precision == OTHER)
        return false;
    fast_gelu(launch, precision, 1);
    return true;
}

/* Two halves at a time. */
bool compute_fast_gelu_pairs(const struct kernel_launch *launch)
{
    fast_gelu(launch, HALF, 2);
    return true;
}
