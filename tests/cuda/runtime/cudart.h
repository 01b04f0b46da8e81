/* What the files of libcudart.so.13 share, over CUDA's own declarations from the installed wheel, against which the
 * compiler checks every function here. */
#pragma once

#include "standin.h"

#include <cuda_runtime_api.h>

/* Keeps ``error`` for cudaGetLastError, and returns it. */
cudaError_t remember(cudaError_t error);

/* Not remembered: the error lasts as long as the failure, which a test may end. */
#define RETURN_IF_FAILING()              \
    do {                                 \
        int failing = standin_error();   \
        if (failing)                     \
            return (cudaError_t)failing; \
    } while (0)

/* The card that this thread chose with cudaSetDevice. */
int chosen_card(void);

/* A new value for a handle that is never looked into. */
void *new_handle(void);

/* Computes what ``kernel`` of that mangled name does with ``arguments``; false where it is not known here. */
struct kernel_launch {
    const char *name;
    dim3 grid;
    dim3 block;
    void **arguments;
};

typedef bool (*kernel_function)(const struct kernel_launch *launch);

/* The function for kernels of that name, or NULL. */
kernel_function kernel_for(const char *name);
