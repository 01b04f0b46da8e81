/* LayerNormalization and SkipLayerNormalization. */
#include "kernels.h"
#include "numbers.h"

#include <math.h>
#include <stdlib.h>

struct norm {
    enum precision precision;
    int columns;
    float epsilon;
    const void *scale;
    const void *shift; /* or NULL */
};

/* Normalizes ``x`` (columns,) into row ``row`` of ``out``. */
static void normalize(const struct norm *norm, const float *x, void *out, size_t row)
{
    double mean = 0, variance = 0;

    for (int i = 0; i < norm->columns; i++)
        mean += x[i];
    mean /= norm->columns;
    for (int i = 0; i < norm->columns; i++)
        variance += (x[i] - mean) * (x[i] - mean);
    variance /= norm->columns;
    double inverse = 1 / sqrt(variance + norm->epsilon);
    for (int i = 0; i < norm->columns; i++) {
        float shift = norm->shift ? load(norm->shift, i, norm->precision) : 0;
        float value = (float)((x[i] - mean) * inverse) * load(norm->scale, i, norm->precision) + shift;
        store(out, row * norm->columns + i, norm->precision, value);
    }
}

/* Arguments: output, mean, inverse deviation, input, rows, columns, epsilon, scale, shift, how scale and shift are
 * broadcast, skip, bias, sum.  Only what LayerNormalization itself asks for is computed. */
bool compute_layer_norm(const struct kernel_launch *launch)
{
    const char *types = after(launch->name, "16cuApplyLayerNormI");
    bool halves = !strncmp(types, "6__halffS2_Lb0E", 15), floats = !strncmp(types, "fffLb0E", 7);
    void *out = ARGUMENT(launch, 0, void *);
    const void *x = ARGUMENT(launch, 3, void *);
    int rows = ARGUMENT(launch, 4, int);
    struct norm norm = {halves ? HALF : FLOAT, ARGUMENT(launch, 5, int), ARGUMENT(launch, 6, float),
                        ARGUMENT(launch, 7, void *), ARGUMENT(launch, 8, void *)};
    bool plain = !ARGUMENT(launch, 1, void *) && !ARGUMENT(launch, 2, void *) && !ARGUMENT(launch, 9, int) &&
                 !ARGUMENT(launch, 10, void *) && !ARGUMENT(launch, 11, void *) && !ARGUMENT(launch, 12, void *);

    if (!(halves || floats) || !plain || !norm.scale)
        return false;
    float *row = malloc(norm.columns * sizeof *row);
    for (int i = 0; row && i < rows; i++) {
        for (int j = 0; j < norm.columns; j++)
            row[j] = load(x, (size_t)i * norm.columns + j, norm.precision);
        normalize(&norm, row, out, i);
    }
    free(row);
    return row != NULL;
}

/* Arguments: output, sum or NULL, input, skip, bias or NULL, scale, shift, epsilon, columns, elements of the skip. */
bool compute_skip_layer_norm(const struct kernel_launch *launch)
{
    const char *types = strstr(launch->name, "KernelSmallI") ? after(launch->name, "KernelSmallI")
                                                            : after(launch->name, "NormKernelI");
    void *out = ARGUMENT(launch, 0, void *), *total = ARGUMENT(launch, 1, void *);
    const void *x = ARGUMENT(launch, 2, void *), *skip = ARGUMENT(launch, 3, void *);
    const void *bias = ARGUMENT(launch, 4, void *);
    struct norm norm = {precision_at(types), ARGUMENT(launch, 8, int), ARGUMENT(launch, 7, float),
                        ARGUMENT(launch, 5, void *), ARGUMENT(launch, 6, void *)};
    int skipped = ARGUMENT(launch, 9, int);
    bool simplified = strstr(launch->name, "Lb1EEE") != NULL; /* without a mean: another operator */

    if (norm.precision == OTHER || simplified)
        return false;
    float *row = malloc(norm.columns * sizeof *row);
    for (size_t i = 0; row && i < launch->grid.x; i++) {
        for (int j = 0; j < norm.columns; j++) {
            size_t at = i * norm.columns + j;
            row[j] = load(x, at, norm.precision) + load(skip, at % skipped, norm.precision);
            row[j] += bias ? load(bias, j, norm.precision) : 0;
            if (total)
                store(total, at, norm.precision, row[j]);
        }
        normalize(&norm, row, out, i);
    }
    free(row);
    return row != NULL;
}
