/* cuBLASLt: the graphs of the project use none of it, so descriptors are empty and a product is only counted. */
#include "standin.h"

#include <stdlib.h>
#include <string.h>

#define SUCCESS 0
#define EXECUTION_FAILED 13

typedef int status;

/* What a search for an algorithm answers. */
struct heuristic_result {
    uint64_t algorithm[8];
    size_t workspace;
    status state;
    float waves;
    int reserved[4];
};

status cublasLtCreate(void **handle)
{
    static int only;
    *handle = &only;
    return SUCCESS;
}

status cublasLtDestroy(void *handle)
{
    return SUCCESS;
}

status cublasLtMatmul(void *handle)
{
    if (standin_error())
        return EXECUTION_FAILED;
    STANDIN_COUNT(launches, 1);
    if (standin_set.computing)
        standin_note_uncomputed("cublasLtMatmul");
    return SUCCESS;
}

status cublasLtMatrixTransform(void *handle)
{
    return cublasLtMatmul(handle);
}

status cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d,
                                      void *preference, int requested, struct heuristic_result *results, int *count)
{
    memset(results, 0, sizeof *results);
    *count = 1;
    return SUCCESS;
}

#define CREATES(name)                      \
    status name(void **made)               \
    {                                      \
        *made = calloc(1, 64);             \
        return *made ? SUCCESS : 3;        \
    }

#define DESTROYS(name)                     \
    status name(void *made)                \
    {                                      \
        free(made);                        \
        return SUCCESS;                    \
    }

#define IGNORES(name)                      \
    status name(void *descriptor)          \
    {                                      \
        return SUCCESS;                    \
    }

CREATES(cublasLtMatmulDescCreate)
CREATES(cublasLtMatmulPreferenceCreate)
CREATES(cublasLtMatrixLayoutCreate)
CREATES(cublasLtMatrixTransformDescCreate)

DESTROYS(cublasLtMatmulDescDestroy)
DESTROYS(cublasLtMatmulPreferenceDestroy)
DESTROYS(cublasLtMatrixLayoutDestroy)
DESTROYS(cublasLtMatrixTransformDescDestroy)

IGNORES(cublasLtMatmulAlgoConfigSetAttribute)
IGNORES(cublasLtMatmulAlgoInit)
IGNORES(cublasLtMatmulDescSetAttribute)
IGNORES(cublasLtMatmulPreferenceSetAttribute)
IGNORES(cublasLtMatrixLayoutSetAttribute)
