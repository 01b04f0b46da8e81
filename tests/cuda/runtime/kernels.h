/* The kernels of ONNX Runtime 1.31.1's CUDA provider that are computed here.
 *
 * Each function takes a launch, reads its arguments as the kernel of that name declares them, and does the work of the
 * whole grid at once.  It returns false where the launch is of a variant that it does not compute. */
#pragma once

#include "cudart.h"

/* elementwise.c */
bool compute_unary(const struct kernel_launch *launch);
bool compute_binary(const struct kernel_launch *launch);
bool compute_broadcast_bias(const struct kernel_launch *launch);
bool compute_bias_gelu(const struct kernel_launch *launch);
bool compute_fast_gelu(const struct kernel_launch *launch);
bool compute_fast_gelu_pairs(const struct kernel_launch *launch);

/* normalization.c */
bool compute_layer_norm(const struct kernel_launch *launch);
bool compute_skip_layer_norm(const struct kernel_launch *launch);

/* movement.c */
bool compute_gather(const struct kernel_launch *launch);
bool compute_concat_same(const struct kernel_launch *launch);
bool compute_concat_by_input(const struct kernel_launch *launch);
bool compute_concat_by_output(const struct kernel_launch *launch);
bool compute_split_same(const struct kernel_launch *launch);
bool compute_split_inner(const struct kernel_launch *launch);

/* attention.c: what packed attention consists of, by the way that the provider chooses for card and precision */
bool compute_flash_attention(const struct kernel_launch *launch);
bool compute_cutlass_attention(const struct kernel_launch *launch);
bool compute_tensorrt_attention(const struct kernel_launch *launch);

/* unfused_attention.c */
bool compute_add_bias_packed(const struct kernel_launch *launch);
bool compute_interleave_heads(const struct kernel_launch *launch);
bool compute_pad_heads(const struct kernel_launch *launch);
bool compute_softmax_packed(const struct kernel_launch *launch);
bool compute_unpad_heads(const struct kernel_launch *launch);
bool compute_nothing(const struct kernel_launch *launch);
