/* cuBLAS: the products that graphs of half and float ask for; the others are counted as launches and not computed. */
#include "standin.h"

#define CUBLAS_SUCCESS 0
#define CUBLAS_NOT_INITIALIZED 1
#define CUBLAS_EXECUTION_FAILED 13
#define CUBLAS_COMPUTE_16F 64
#define CUBLAS_COMPUTE_16F_PEDANTIC 65
#define CUDA_R_32F 0

typedef int status;
typedef void *handle;

static status execution(int error)
{
    return error ? CUBLAS_EXECUTION_FAILED : CUBLAS_SUCCESS;
}

status cublasCreate_v2(handle *created)
{
    static int only;
    *created = &only;
    return standin_error() ? CUBLAS_NOT_INITIALIZED : CUBLAS_SUCCESS;
}

status cublasDestroy_v2(handle cublas)
{
    return CUBLAS_SUCCESS;
}

status cublasSetStream_v2(handle cublas, void *stream)
{
    return execution(standin_error());
}

status cublasGetMathMode(handle cublas, int *mode)
{
    *mode = 0;
    return CUBLAS_SUCCESS;
}

status cublasSetMathMode(handle cublas, int mode)
{
    return CUBLAS_SUCCESS;
}

const char *cublasGetStatusName(status code)
{
    switch (code) {
    case CUBLAS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    default:
        return "a status without a name in the stand-in";
    }
}

const char *cublasGetStatusString(status code)
{
    return cublasGetStatusName(code);
}

/* The scalars are in the type that is computed in. */
static float scalar(const void *value, int compute)
{
    if (compute == CUBLAS_COMPUTE_16F || compute == CUBLAS_COMPUTE_16F_PEDANTIC)
        return (float)*(const _Float16 *)value;
    return *(const float *)value;
}

status cublasGemmStridedBatchedEx(handle cublas, int transpose_a, int transpose_b, int m, int n, int k,
                                  const void *alpha, const void *a, int a_type, int lda, long long stride_a,
                                  const void *b, int b_type, int ldb, long long stride_b, const void *beta, void *c,
                                  int c_type, int ldc, long long stride_c, int batches, int compute, int algorithm)
{
    struct standin_product product = {
        .transpose_a = transpose_a != 0,
        .transpose_b = transpose_b != 0,
        .m = m,
        .n = n,
        .k = k,
        .alpha = scalar(alpha, compute),
        .beta = scalar(beta, compute),
        .a = a,
        .b = b,
        .c = c,
        .a_type = a_type,
        .b_type = b_type,
        .c_type = c_type,
        .lda = lda,
        .ldb = ldb,
        .ldc = ldc,
        .stride_a = stride_a,
        .stride_b = stride_b,
        .stride_c = stride_c,
        .batches = batches,
    };
    return execution(standin_multiply(&product));
}

status cublasGemmEx(handle cublas, int transpose_a, int transpose_b, int m, int n, int k, const void *alpha,
                    const void *a, int a_type, int lda, const void *b, int b_type, int ldb, const void *beta, void *c,
                    int c_type, int ldc, int compute, int algorithm)
{
    return cublasGemmStridedBatchedEx(cublas, transpose_a, transpose_b, m, n, k, alpha, a, a_type, lda, 0, b, b_type,
                                      ldb, 0, beta, c, c_type, ldc, 0, 1, compute, algorithm);
}

status cublasSgemmStridedBatched(handle cublas, int transpose_a, int transpose_b, int m, int n, int k,
                                 const float *alpha, const float *a, int lda, long long stride_a, const float *b,
                                 int ldb, long long stride_b, const float *beta, float *c, int ldc, long long stride_c,
                                 int batches)
{
    return cublasGemmStridedBatchedEx(cublas, transpose_a, transpose_b, m, n, k, alpha, a, CUDA_R_32F, lda, stride_a,
                                      b, CUDA_R_32F, ldb, stride_b, beta, c, CUDA_R_32F, ldc, stride_c, batches, 0, 0);
}

status cublasSgemm_v2(handle cublas, int transpose_a, int transpose_b, int m, int n, int k, const float *alpha,
                      const float *a, int lda, const float *b, int ldb, const float *beta, float *c, int ldc)
{
    return cublasSgemmStridedBatched(cublas, transpose_a, transpose_b, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c,
                                     ldc, 0, 1);
}

static status not_computed(const char *name)
{
    if (standin_error())
        return CUBLAS_EXECUTION_FAILED;
    STANDIN_COUNT(launches, 1);
    if (standin_set.computing)
        standin_note_uncomputed(name);
    return CUBLAS_SUCCESS;
}

/* The caller passes more arguments; in C's convention here the callee may leave them. */
#define NOT_COMPUTED(name)           \
    status name(handle cublas)       \
    {                                \
        return not_computed(#name);  \
    }

NOT_COMPUTED(cublasDgeam)
NOT_COMPUTED(cublasDgemmBatched)
NOT_COMPUTED(cublasDgemmStridedBatched)
NOT_COMPUTED(cublasDgemm_v2)
NOT_COMPUTED(cublasDgetrfBatched)
NOT_COMPUTED(cublasDgetriBatched)
NOT_COMPUTED(cublasGemmBatchedEx)
NOT_COMPUTED(cublasScopy_v2)
NOT_COMPUTED(cublasSgeam)
NOT_COMPUTED(cublasSgemmBatched)
NOT_COMPUTED(cublasSgetrfBatched)
NOT_COMPUTED(cublasSgetriBatched)
NOT_COMPUTED(cublasSscal_v2)
