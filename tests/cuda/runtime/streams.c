/* Streams, events, memory pools and libraries.  Every call is done when it returns, so they hold nothing. */
#include "cudart.h"

#include <stdint.h>

void *new_handle(void)
{
    static intptr_t last = 4096;
    return (void *)__atomic_add_fetch(&last, 16, __ATOMIC_RELAXED);
}

/* Most calls: nothing to do on a card that works. */
static cudaError_t nothing(void)
{
    RETURN_IF_FAILING();
    return cudaSuccess;
}

static cudaError_t give_handle(void *place)
{
    RETURN_IF_FAILING();
    *(void **)place = new_handle();
    return cudaSuccess;
}

static cudaError_t wait_done(void)
{
    RETURN_IF_FAILING();
    STANDIN_COUNT(waits, 1);
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return give_handle(stream);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    return give_handle(stream);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    return nothing();
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    return wait_done();
}

/* The card waits, not the host: no wait is counted. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    return nothing();
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
    RETURN_IF_FAILING();
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

/* The sizes of a kernel's arguments are not known here, so its launch cannot be kept and repeated. */
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    return remember(cudaErrorNotSupported);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    return remember(cudaErrorNotSupported);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags)
{
    return remember(cudaErrorNotSupported);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream)
{
    return remember(cudaErrorNotSupported);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    return nothing();
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable)
{
    return nothing();
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data)
{
    RETURN_IF_FAILING();
    function(data);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return give_handle(event);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    return give_handle(event);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    return nothing();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    return nothing();
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags)
{
    return nothing();
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    return wait_done();
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end)
{
    RETURN_IF_FAILING();
    *milliseconds = 0;
    return cudaSuccess;
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t *pool, const struct cudaMemPoolProps *properties)
{
    return give_handle(pool);
}

cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool)
{
    return nothing();
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr attribute, void *value)
{
    RETURN_IF_FAILING();
    *(uint64_t *)value = 0;
    return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr attribute, void *value)
{
    return nothing();
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t bytes)
{
    return nothing();
}

cudaError_t cudaLibraryLoadData(cudaLibrary_t *library, const void *code, enum cudaJitOption *jit_options,
                                void **jit_values, unsigned jit_count, enum cudaLibraryOption *options,
                                void **values, unsigned count)
{
    return give_handle(library);
}

cudaError_t cudaLibraryUnload(cudaLibrary_t library)
{
    return nothing();
}

/* Callers look for functions of newer drivers, and do without them. */
cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version,
                                             unsigned long long flags, enum cudaDriverEntryPointQueryResult *status)
{
    RETURN_IF_FAILING();
    *function = NULL;
    if (status)
        *status = cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
