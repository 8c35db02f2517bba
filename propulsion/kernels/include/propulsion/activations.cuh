// Activation functions of a value in fp32.

#pragma once

#include <cuda_runtime.h>

namespace propulsion {

struct Identity {
  static constexpr bool kIsIdentity = true;
  __device__ __forceinline__ static float of(float x) { return x; }
};

struct Silu {
  static constexpr bool kIsIdentity = false;
  __device__ __forceinline__ static float of(float x) { return x / (1.0f + __expf(-x)); }
};

struct Gelu {
  static constexpr bool kIsIdentity = false;
  __device__ __forceinline__ static float of(float x) {
    return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
  }
};

struct GeluTanh {
  static constexpr bool kIsIdentity = false;
  __device__ __forceinline__ static float of(float x) {
    const float inner = 0.79788456080286536f * (x + 0.044715f * x * x * x);
    return 0.5f * x * (1.0f + tanhf(inner));
  }
};

}  // namespace propulsion
