// Values in and out of memory by vectors of up to 16 bytes an access, as fp32 in registers.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "propulsion/bindings.h"

namespace propulsion {

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// What a value is once it has been stored as T.
template <typename T>
__device__ __forceinline__ float rounded(float value) {
  return to_float(from_float<T>(value));
}

template <int kBytes>
struct Word;
template <>
struct Word<2> {
  using type = unsigned short;
};
template <>
struct Word<4> {
  using type = unsigned int;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<16> {
  using type = uint4;
};

// N values of T as the words they are moved in; N * sizeof(T) is a power of two.
template <typename T, int N>
union Packed {
  static constexpr int kBytes = N * static_cast<int>(sizeof(T));
  static constexpr int kWordBytes = kBytes < 16 ? kBytes : 16;
  static constexpr int kWords = kBytes / kWordBytes;
  using WordType = typename Word<kWordBytes>::type;

  WordType words[kWords];
  T values[N];
};

// `from` must be aligned to the words of Packed<T, N>.
template <typename T, int N>
__device__ __forceinline__ void load(float (&to)[N], const T* from) {
  using Pack = Packed<T, N>;
  Pack pack;
#pragma unroll
  for (int i = 0; i < Pack::kWords; ++i) {
    pack.words[i] = reinterpret_cast<const typename Pack::WordType*>(from)[i];
  }
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = to_float(pack.values[i]);
}

// As `load`, through the read-only cache: for memory that no thread of the kernel writes.
template <typename T, int N>
__device__ __forceinline__ void load_constant(float (&to)[N], const T* from) {
  using Pack = Packed<T, N>;
  Pack pack;
#pragma unroll
  for (int i = 0; i < Pack::kWords; ++i) {
    pack.words[i] = __ldg(reinterpret_cast<const typename Pack::WordType*>(from) + i);
  }
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = to_float(pack.values[i]);
}

// Two values as the word that holds them, the first in its lower half.
template <typename T>
__device__ __forceinline__ unsigned pair_of(float first, float second) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 pair = __floats2half2_rn(first, second);
    return reinterpret_cast<const unsigned&>(pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
    return reinterpret_cast<const unsigned&>(pair);
  }
}

// As words and by intrinsics: the compiler would cut a plain store into smaller ones in some places.
template <typename T, int N>
__device__ __forceinline__ void store(T* to, const float (&from)[N]) {
  if constexpr (N == 1) {
    *to = from_float<T>(from[0]);
  } else if constexpr (sizeof(T) == 4) {
    static_assert(N == 4);
    __stwb(reinterpret_cast<float4*>(to), make_float4(from[0], from[1], from[2], from[3]));
  } else {
    static_assert(N == 8);
    __stwb(reinterpret_cast<uint4*>(to),
           make_uint4(pair_of<T>(from[0], from[1]), pair_of<T>(from[2], from[3]),
                      pair_of<T>(from[4], from[5]), pair_of<T>(from[6], from[7])));
  }
}

// Where values lie whose type is known only when the kernel runs; they are read one by one.
struct AnyFloats {
  const void* first;
  ScalarType type;

  __device__ __forceinline__ bool operator==(std::nullptr_t) const { return first == nullptr; }
  __device__ __forceinline__ bool operator==(const AnyFloats& other) const {
    return first == other.first;
  }
  __device__ __forceinline__ AnyFloats operator+(int64_t count) const {
    const int64_t bytes = type == ScalarType::Float ? 4 : 2;
    return {static_cast<const char*>(first) + count * bytes, type};
  }
};

template <int N>
__device__ __forceinline__ void load_constant(float (&to)[N], AnyFloats from) {
  static_assert(N == 1);
  if (from.type == ScalarType::Float) {
    load_constant(to, static_cast<const float*>(from.first));
  } else if (from.type == ScalarType::BFloat16) {
    load_constant(to, static_cast<const __nv_bfloat16*>(from.first));
  } else {
    load_constant(to, static_cast<const __half*>(from.first));
  }
}

// Values of T in a 16-byte access.
template <typename T>
constexpr int kVector = 16 / static_cast<int>(sizeof(T));

}  // namespace propulsion
