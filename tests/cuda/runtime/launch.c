/* Kernels: the code that the provider registers when it is loaded, and each launch of it.
 *
 * A kernel is known by the address of its stub in the provider; the registration tells its mangled name. */
#include "cudart.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct kernel {
    const void *stub;
    const char *name;
    kernel_function compute;
};

/* Open addressing; the number of slots is a power of two, at most half of them used. */
static struct kernel *kernels;
static size_t slots, used;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct kernel *slot_of(struct kernel *table, size_t size, const void *stub)
{
    size_t i = ((uintptr_t)stub >> 4) * 2654435761u & (size - 1);

    while (table[i].stub && table[i].stub != stub)
        i = (i + 1) & (size - 1);
    return &table[i];
}

static bool grow(void)
{
    size_t size = slots ? 2 * slots : 1 << 14;
    struct kernel *table = calloc(size, sizeof *table);

    if (!table)
        return false;
    for (size_t i = 0; i < slots; i++)
        if (kernels[i].stub)
            *slot_of(table, size, kernels[i].stub) = kernels[i];
    free(kernels);
    kernels = table;
    slots = size;
    return true;
}

static void enter(const void *stub, const char *name)
{
    pthread_mutex_lock(&lock);
    if (2 * used < slots || grow()) {
        struct kernel *slot = slot_of(kernels, slots, stub);
        used += slot->stub == NULL;
        *slot = (struct kernel){stub, name, kernel_for(name)};
    }
    pthread_mutex_unlock(&lock);
}

static struct kernel find(const void *stub)
{
    struct kernel found = {stub, "a kernel that was not registered", NULL};

    pthread_mutex_lock(&lock);
    if (slots) {
        struct kernel *slot = slot_of(kernels, slots, stub);
        if (slot->stub)
            found = *slot;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static void compute(const struct kernel *kernel, dim3 grid, dim3 block, void **arguments)
{
    struct kernel_launch launch = {kernel->name, grid, block, arguments};

    if (!kernel->compute || !kernel->compute(&launch))
        standin_note_uncomputed(kernel->name);
}

static cudaError_t launch(const void *stub, dim3 grid, dim3 block, void **arguments)
{
    RETURN_IF_FAILING();
    STANDIN_COUNT(launches, 1);
    if (standin_set.computing) {
        struct kernel kernel = find(stub);
        compute(&kernel, grid, block, arguments);
    }
    return cudaSuccess;
}

int standin_launch(const char *name, const unsigned grid[3], const unsigned block[3], void **arguments)
{
    struct kernel kernel = {NULL, name, kernel_for(name)};

    RETURN_IF_FAILING();
    STANDIN_COUNT(launches, 1);
    if (standin_set.computing)
        compute(&kernel, (dim3){grid[0], grid[1], grid[2]}, (dim3){block[0], block[1], block[2]}, arguments);
    return cudaSuccess;
}

/* The compiler's stubs call these; they stand in no header of the wheel. */

void **__cudaRegisterFatBinary(void *binary)
{
    return new_handle();
}

void __cudaRegisterFatBinaryEnd(void **handle)
{
}

void __cudaUnregisterFatBinary(void **handle)
{
}

void __cudaRegisterVar(void **handle, char *variable, char *address, const char *name, int external, size_t bytes,
                       int constant, int global)
{
}

void __cudaRegisterFunction(void **handle, const char *stub, char *device_stub, const char *name, int thread_limit,
                            uint3 *thread, uint3 *block, dim3 *block_size, dim3 *grid_size, int *warp_size)
{
    enter(stub, name);
}

cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *stub)
{
    *kernel = (cudaKernel_t)stub;
    return cudaSuccess;
}

/* What stands between <<< and >>> is pushed, and the stub, which is called next on this thread, pops it. */
#define DEPTH 16

struct configuration {
    dim3 grid, block;
    size_t shared;
    void *stream;
};

static __thread struct configuration pushed[DEPTH];
static __thread unsigned depth;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream)
{
    if (depth == DEPTH)
        return 1;
    pushed[depth++] = (struct configuration){grid, block, shared, stream};
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream)
{
    if (!depth)
        return cudaErrorInvalidValue;
    depth--;
    *grid = pushed[depth].grid;
    *block = pushed[depth].block;
    *shared = pushed[depth].shared;
    *(void **)stream = pushed[depth].stream;
    return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                               cudaStream_t stream)
{
    return launch((const void *)kernel, grid, block, arguments);
}

cudaError_t cudaLaunchKernel(const void *stub, dim3 grid, dim3 block, void **arguments, size_t shared,
                             cudaStream_t stream)
{
    return launch(stub, grid, block, arguments);
}

cudaError_t cudaLaunchCooperativeKernel(const void *stub, dim3 grid, dim3 block, void **arguments, size_t shared,
                                        cudaStream_t stream)
{
    return launch(stub, grid, block, arguments);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *configuration, const void *stub, void **arguments)
{
    return launch(stub, configuration->gridDim, configuration->blockDim, arguments);
}

/* A kernel of a library has no stub, so a copy of its name takes the place; it lives as long as the process. */
cudaError_t cudaLibraryGetKernel(cudaKernel_t *kernel, cudaLibrary_t library, const char *name)
{
    char *copy = strdup(name);

    RETURN_IF_FAILING();
    if (!copy)
        return remember(cudaErrorMemoryAllocation);
    enter(copy, copy);
    *kernel = (cudaKernel_t)copy;
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *stub)
{
    RETURN_IF_FAILING();
    memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 64;
    attributes->ptxVersion = standin_set.capability;
    attributes->binaryVersion = standin_set.capability;
    attributes->maxDynamicSharedSizeBytes = 49152;
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *stub, enum cudaFuncAttribute attribute, int value)
{
    RETURN_IF_FAILING();
    return cudaSuccess;
}

cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t kernel, enum cudaFuncAttribute attribute, int value,
                                            int device)
{
    RETURN_IF_FAILING();
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *stub, int threads,
                                                                   size_t shared, unsigned flags)
{
    RETURN_IF_FAILING();
    *blocks = 2;
    return cudaSuccess;
}
