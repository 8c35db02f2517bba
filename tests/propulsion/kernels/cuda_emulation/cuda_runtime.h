// The part of CUDA's runtime that the kernels use, on the CPU.

#pragma once

#include <cmath>
#include <cstddef>
#include <utility>

#include "fibers.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __shared__ static
// glibc has a symbol of that name.
#define __expf std::exp

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

template <typename T>
void __stwb(T* address, T value) {
  *address = value;
}

template <typename T>
T __ldg(const T* address) {
  return *address;
}

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

inline void __syncthreads() { emulation::block->synchronise(); }

inline float __shfl_xor_sync(unsigned mask, float value, int lane_mask) {
  return emulation::block->exchange(mask, value, lane_mask);
}

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration };
inline const char* cudaGetErrorString(cudaError_t) { return "invalid configuration argument"; }

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const dim3 grid = config->gridDim, threads = config->blockDim;
  const bool is_possible = grid.x > 0 && grid.y > 0 && grid.y < 65536 && grid.z == 1 &&
                           threads.x > 0 && threads.x <= 1024 && threads.y == 1 && threads.z == 1;
  if (!is_possible) return cudaErrorInvalidConfiguration;
  emulation::run_grid(grid, threads.x, [&] { kernel(Parameters(arguments)...); });
  return cudaSuccess;
}
