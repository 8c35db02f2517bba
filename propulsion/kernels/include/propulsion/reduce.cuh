// Sums over a warp and over a block, in an order that is always the same.

#pragma once

#include <cuda_runtime.h>

namespace propulsion {

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) value += __shfl_xor_sync(0xffffffffu, value, mask);
  return value;
}

// The sum of all threads' values, in every thread. The block is of whole warps, 32 at the most.
__device__ __forceinline__ float block_sum(float value) {
  __shared__ float of_warps[32];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  value = warp_sum(value);
  __syncthreads();  // the last sum may still be being read
  if (lane == 0) of_warps[warp] = value;
  __syncthreads();
  return warp_sum(lane < blockDim.x / 32 ? of_warps[lane] : 0.0f);
}

}  // namespace propulsion
