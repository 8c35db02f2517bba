// From the types and addresses of tensors to a kernel for them, and its start.

#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include <propulsion/stream.h>

#include "propulsion/bindings.h"
#include "propulsion/vectors.cuh"

// The key under which torch's dispatcher finds the kernels.
#ifndef PROPULSION_DEVICE
#define PROPULSION_DEVICE CUDA
#endif

namespace propulsion {

constexpr int kWarp = 32;
constexpr int64_t kMaxGridY = 65535;

template <typename T>
struct Type {
  using type = T;
};

// Calls `run` with the C++ type of a tensor's values.
template <typename Run>
void with_type(const char* op, ScalarType type, Run&& run) {
  switch (type) {
    case ScalarType::Float:
      return run(Type<float>{});
    case ScalarType::BFloat16:
      return run(Type<__nv_bfloat16>{});
    case ScalarType::Half:
      return run(Type<__half>{});
    default:
      check(false, op, "values must be float32, bfloat16 or float16");
  }
}

inline bool is_aligned(const void* address, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(bytes) == 0;
}

// Whether rows at `stride` values from each other can be read `vector` values at a time.
template <typename T>
bool rows_are_aligned(const T* first, int64_t stride, int vector) {
  const int64_t bytes = std::min<int64_t>(16, vector * static_cast<int64_t>(sizeof(T)));
  return is_aligned(first, bytes) && stride * static_cast<int64_t>(sizeof(T)) % bytes == 0;
}

template <typename T>
T* values_of(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int round_to_warps(int64_t threads, int most) {
  return static_cast<int>(std::clamp<int64_t>(ceil_div(threads, kWarp) * kWarp, kWarp, most));
}

template <typename... Parameters, typename... Arguments>
void launch(const char* op, const DeviceStream& device, dim3 grid, dim3 block,
            void (*kernel)(Parameters...), Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.stream = device.stream();
  const cudaError_t error =
      cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  STD_TORCH_CHECK(error == cudaSuccess, op, ": ", cudaGetErrorString(error));
}

}  // namespace propulsion
