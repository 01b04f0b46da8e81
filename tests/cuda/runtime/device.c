/* The cards: how many, which one is chosen, what they say of themselves; versions. */
#include "cudart.h"

#include <stdio.h>
#include <string.h>

/* What differs between the cards that the stand-in plays, by compute capability. */
struct model {
    int capability;
    int processors;
    int shared_memory;       /* of a multiprocessor, bytes */
    int shared_memory_block; /* that a block can opt in to, bytes */
    int threads;             /* of a multiprocessor */
};

static const struct model models[] = {
    {75, 40, 65536, 65536, 1024},
    {80, 108, 167936, 166912, 2048},
    {86, 84, 102400, 101376, 1536},
    {90, 132, 233472, 232448, 2048},
};

static __thread int chosen;

static const struct model *model(void)
{
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        if (models[i].capability == standin_set.capability)
            return &models[i];
    return &models[sizeof models / sizeof *models - 1];
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = standin_set.driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 0;
    RETURN_IF_FAILING();
    *count = standin_set.cards;
    return remember(standin_set.cards ? cudaSuccess : cudaErrorNoDevice);
}

static cudaError_t check_card(int device)
{
    RETURN_IF_FAILING();
    if (!standin_set.cards)
        return remember(cudaErrorNoDevice);
    return remember(device >= 0 && device < standin_set.cards ? cudaSuccess : cudaErrorInvalidDevice);
}

int chosen_card(void)
{
    return chosen;
}

cudaError_t cudaGetDevice(int *device)
{
    RETURN_IF_FAILING();
    *device = chosen;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    cudaError_t error = check_card(device);
    if (!error)
        chosen = device;
    return error;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    const struct model *card = model();
    cudaError_t error = check_card(device);

    if (error)
        return error;
    memset(properties, 0, sizeof *properties);
    snprintf(properties->name, sizeof properties->name, "Stand-in for a card of %d.%d", standin_set.capability / 10,
             standin_set.capability % 10);
    properties->major = standin_set.capability / 10;
    properties->minor = standin_set.capability % 10;
    properties->totalGlobalMem = standin_set.memory;
    properties->multiProcessorCount = card->processors;
    properties->sharedMemPerBlock = 49152;
    properties->sharedMemPerBlockOptin = card->shared_memory_block;
    properties->sharedMemPerMultiprocessor = card->shared_memory;
    properties->maxThreadsPerMultiProcessor = card->threads;
    properties->maxBlocksPerMultiProcessor = 16;
    properties->regsPerBlock = 65536;
    properties->regsPerMultiprocessor = 65536;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsDim[0] = 1024;
    properties->maxThreadsDim[1] = 1024;
    properties->maxThreadsDim[2] = 64;
    properties->maxGridSize[0] = 2147483647;
    properties->maxGridSize[1] = 65535;
    properties->maxGridSize[2] = 65535;
    properties->l2CacheSize = 40 << 20;
    properties->textureAlignment = 512;
    properties->unifiedAddressing = 1;
    properties->concurrentKernels = 1;
    properties->cooperativeLaunch = 1;
    properties->memoryPoolsSupported = 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    struct cudaDeviceProp properties;
    cudaError_t error = cudaGetDeviceProperties(&properties, device);

    if (error)
        return error;
    switch ((int)attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = properties.maxThreadsPerBlock;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = (int)properties.sharedMemPerBlock;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)properties.sharedMemPerBlockOptin;
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = (int)properties.sharedMemPerMultiprocessor;
        break;
    case cudaDevAttrWarpSize:
        *value = properties.warpSize;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = properties.multiProcessorCount;
        break;
    case cudaDevAttrL2CacheSize:
        *value = properties.l2CacheSize;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = properties.major;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = properties.minor;
        break;
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrMemoryPoolsSupported:
        *value = 1;
        break;
    default:
        *value = 0;
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    RETURN_IF_FAILING();
    STANDIN_COUNT(waits, 1);
    return cudaSuccess;
}
