/* Device and pinned memory: both are the host's, and a table tells which address is which. */
#include "cudart.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct block {
    char *start;
    size_t bytes;
    enum cudaMemoryType type;
    int card;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct block *blocks;
static size_t count, room;
static size_t live, peak; /* of all cards */
static size_t live_on[STANDIN_CARDS];

size_t standin_live(void)
{
    return live;
}

size_t standin_peak(void)
{
    return peak;
}

/* The peak begins again at what is allocated now. */
void standin_reset_peak(void)
{
    peak = live;
}

static size_t pages(size_t bytes)
{
    return (bytes + 4095) & ~(size_t)4095;
}

/* Pages are the host's only once they are written, so a large arena costs nothing. */
static void *reserve(size_t bytes)
{
    void *start = mmap(NULL, pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return start == MAP_FAILED ? NULL : start;
}

/* Called with the lock held. */
static bool enter(void *start, size_t bytes, enum cudaMemoryType type)
{
    if (count == room) {
        size_t more = room ? 2 * room : 256;
        struct block *moved = realloc(blocks, more * sizeof *blocks);
        if (!moved)
            return false;
        blocks = moved;
        room = more;
    }
    blocks[count++] = (struct block){start, bytes, type, chosen_card()};
    return true;
}

static cudaError_t allocate(void **start, size_t bytes, enum cudaMemoryType type)
{
    cudaError_t error = cudaSuccess;
    size_t least = bytes ? bytes : 1;
    size_t *used = &live_on[chosen_card()];

    *start = NULL;
    pthread_mutex_lock(&lock);
    if (type == cudaMemoryTypeDevice && *used + least > standin_set.memory)
        error = cudaErrorMemoryAllocation;
    else if (!(*start = reserve(least)) || !enter(*start, least, type))
        error = cudaErrorMemoryAllocation;
    else if (type == cudaMemoryTypeDevice) {
        live += least;
        *used += least;
        if (live > peak)
            peak = live;
        STANDIN_COUNT(allocations, 1);
    }
    pthread_mutex_unlock(&lock);
    return remember(error);
}

/* Frees even on a card that fails, so that a test of failures does not run out of the host's memory. */
static void release(void *start)
{
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < count; i++) {
        if (blocks[i].start != start)
            continue;
        if (blocks[i].type == cudaMemoryTypeDevice) {
            live -= blocks[i].bytes;
            live_on[blocks[i].card] -= blocks[i].bytes;
        }
        munmap(start, pages(blocks[i].bytes));
        blocks[i] = blocks[--count];
        break;
    }
    pthread_mutex_unlock(&lock);
}

/* The block that holds ``address``; one of the host's own memory where none does. */
static struct block block_of(const void *address)
{
    struct block found = {.type = cudaMemoryTypeUnregistered};
    const char *byte = address;

    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < count; i++) {
        if (byte >= blocks[i].start && byte < blocks[i].start + blocks[i].bytes) {
            found = blocks[i];
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    return found;
}

cudaError_t cudaMalloc(void **start, size_t bytes)
{
    RETURN_IF_FAILING();
    return allocate(start, bytes, cudaMemoryTypeDevice);
}

cudaError_t cudaMallocFromPoolAsync(void **start, size_t bytes, cudaMemPool_t pool, cudaStream_t stream)
{
    return cudaMalloc(start, bytes);
}

cudaError_t cudaMallocHost(void **start, size_t bytes)
{
    RETURN_IF_FAILING();
    return allocate(start, bytes, cudaMemoryTypeHost);
}

cudaError_t cudaHostAlloc(void **start, size_t bytes, unsigned flags)
{
    return cudaMallocHost(start, bytes);
}

cudaError_t cudaFree(void *start)
{
    if (start)
        release(start);
    return (cudaError_t)standin_error();
}

cudaError_t cudaFreeAsync(void *start, cudaStream_t stream)
{
    return cudaFree(start);
}

cudaError_t cudaFreeHost(void *start)
{
    return cudaFree(start);
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    size_t used = live_on[chosen_card()];

    RETURN_IF_FAILING();
    *total = standin_set.memory;
    *available = used < standin_set.memory ? standin_set.memory - used : 0;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *address)
{
    struct block block = block_of(address);

    RETURN_IF_FAILING();
    memset(attributes, 0, sizeof *attributes);
    attributes->type = block.type;
    attributes->device = block.card;
    attributes->devicePointer = block.type == cudaMemoryTypeDevice ? (void *)address : NULL;
    attributes->hostPointer = block.type == cudaMemoryTypeDevice ? NULL : (void *)address;
    return cudaSuccess;
}

/* The direction comes from the addresses, for a caller may pass cudaMemcpyDefault. */
static void count_copy(const void *to, const void *from, size_t bytes)
{
    bool to_device = block_of(to).type == cudaMemoryTypeDevice;
    bool from_device = block_of(from).type == cudaMemoryTypeDevice;

    if (to_device && from_device) {
        STANDIN_COUNT(d2d, 1);
        STANDIN_COUNT(d2d_bytes, bytes);
    } else if (to_device) {
        STANDIN_COUNT(h2d, 1);
        STANDIN_COUNT(h2d_bytes, bytes);
    } else if (from_device) {
        STANDIN_COUNT(d2h, 1);
        STANDIN_COUNT(d2h_bytes, bytes);
    }
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    RETURN_IF_FAILING();
    count_copy(to, from, bytes);
    memmove(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    return cudaMemcpy(to, from, bytes, kind);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    RETURN_IF_FAILING();
    count_copy(to, from, width * height);
    for (size_t row = 0; row < height; row++)
        memmove((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
    return cudaSuccess;
}

/* Variables of the device's code are not kept: they read as zeros. */
cudaError_t cudaMemcpyFromSymbol(void *to, const void *symbol, size_t bytes, size_t offset, enum cudaMemcpyKind kind)
{
    RETURN_IF_FAILING();
    memset(to, 0, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *start, int value, size_t bytes)
{
    RETURN_IF_FAILING();
    memset(start, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *start, int value, size_t bytes, cudaStream_t stream)
{
    return cudaMemset(start, value, bytes);
}
