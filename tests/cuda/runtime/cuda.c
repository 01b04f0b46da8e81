/* The driver, libcuda.so.1: what tells a program which card and driver there are, and what the provider asks of it.
 *
 * The machine has a driver but no card where no_device is 100; with 35 the driver is there and too old for the runtime,
 * which only the runtime says. */
#include "standin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda.h>

static CUresult card_error(void)
{
    if (standin_set.no_device && standin_set.no_device != 35)
        return (CUresult)standin_set.no_device;
    return (CUresult)standin_set.failure;
}

CUresult cuInit(unsigned flags)
{
    return standin_set.cards ? card_error() : CUDA_ERROR_NO_DEVICE;
}

CUresult cuDriverGetVersion(int *version)
{
    *version = standin_set.driver;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count)
{
    *count = standin_set.no_device && standin_set.no_device != 35 ? 0 : standin_set.cards;
    return CUDA_SUCCESS;
}

static CUresult check_card(CUdevice device)
{
    CUresult error = card_error();

    if (error)
        return error;
    return device >= 0 && device < standin_set.cards ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    *device = ordinal;
    return check_card(ordinal);
}

CUresult cuDeviceGetName(char *name, int room, CUdevice device)
{
    snprintf(name, room, "Stand-in for a card of %d.%d", standin_set.capability / 10, standin_set.capability % 10);
    return check_card(device);
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    *bytes = standin_set.memory;
    return check_card(device);
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    *value = 0;
    if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
        *value = standin_set.capability / 10;
    if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
        *value = standin_set.capability % 10;
    return check_card(device);
}

CUresult cuGetErrorName(CUresult error, const char **name)
{
    *name = standin_driver_error_name(error);
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **text)
{
    *text = standin_error_text(error);
    return CUDA_SUCCESS;
}

/* Modules: code that the provider carries for older cards.  A function is a copy of its name, kept as long as the
 * process. */

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    static int only;
    *module = (CUmodule)&only;
    return (CUresult)standin_error();
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    *function = (CUfunction)strdup(name);
    return *function ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuModuleUnload(CUmodule module)
{
    return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value)
{
    return CUDA_SUCCESS;
}

CUresult cuFuncSetCacheConfig(CUfunction function, CUfunc_cache configuration)
{
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared, CUstream stream, void **arguments,
                        void **extra)
{
    const unsigned grid[] = {grid_x, grid_y, grid_z}, block[] = {block_x, block_y, block_z};

    return (CUresult)standin_launch((const char *)function, grid, block, arguments);
}

CUresult cuLaunchCooperativeKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                                   CUstream stream, void **arguments)
{
    return cuLaunchKernel(function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared, stream, arguments, NULL);
}

/* The provider looks these up and calls none of them for the project's graphs. */

CUresult cuLinkCreate_v2(unsigned count, CUjit_option *options, void **values, CUlinkState *state)
{
    return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuLinkAddData_v2(CUlinkState state, CUjitInputType type, void *data, size_t bytes, const char *name,
                          unsigned count, CUjit_option *options, void **values)
{
    return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuLinkAddFile_v2(CUlinkState state, CUjitInputType type, const char *path, unsigned count,
                          CUjit_option *options, void **values)
{
    return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuLinkComplete(CUlinkState state, void **image, size_t *bytes)
{
    return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuLinkDestroy(CUlinkState state)
{
    return CUDA_SUCCESS;
}

CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                const cuuint64_t *sizes, const cuuint64_t *strides, const cuuint32_t *box,
                                const cuuint32_t *element_strides, CUtensorMapInterleave interleave,
                                CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                                CUtensorMapFloatOOBfill fill)
{
    return CUDA_ERROR_NOT_SUPPORTED;
}
