/* The annotations that CUDA's headers put before declarations.  The real file comes in another wheel (nvidia-cuda-crt);
 * for a C compiler every one of them is empty but the alignment. */
#pragma once

#define CUDARTAPI
#define CUDARTAPI_CDECL
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __builtin_align__(bytes) __align__(bytes)
#define __cudart_builtin__
#define __device__
#define __device_builtin__
#define __device_builtin_surface_type__
#define __device_builtin_texture_type__
#define __host__
