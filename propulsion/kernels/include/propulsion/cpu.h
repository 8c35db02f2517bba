// What the CPU operators share: conversions, scaling, and vectorised elementary functions.
//
// A row is taken through fp32 in pieces that stay in the first-level cache: widen and scale, compute,
// narrow. So each value is read and written once in memory, and each step is a plain loop that the
// compiler vectorises for every kind of processor.

#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "propulsion/bindings.h"

// Compiled for each level of vector instructions; the loader picks what the processor has.
#define FOR_EVERY_PROCESSOR \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), flatten, unused))

namespace propulsion::cpu {

struct BFloat16 {
  uint16_t bits;
};
using Half = _Float16;

inline float widen(float value) { return value; }
inline float widen(Half value) { return static_cast<float>(value); }
inline float widen(BFloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

inline void narrow(float value, float* out) { *out = value; }
inline void narrow(float value, Half* out) { *out = static_cast<Half>(value); }
inline void narrow(float value, BFloat16* out) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  out->bits = static_cast<uint16_t>(value == value ? rounded : 0x7fc0);
}

// e^x to 2 units in the last place, without a branch, so that loops over it vectorise.
inline float exponential(float x) {
  const float clamped = std::min(std::max(x, -87.0f), 88.0f);
  const float rounds = clamped * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds
  const float whole = rounds - 12582912.0f;
  const float rest = (clamped - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float power = 1.9875691500e-4f;
  power = power * rest + 1.3981999507e-3f;
  power = power * rest + 8.3334519073e-3f;
  power = power * rest + 4.1665795894e-2f;
  power = power * rest + 1.6666665459e-1f;
  power = power * rest + 5.0000001201e-1f;
  power = (power * rest * rest + rest) + 1.0f;
  const int32_t exponent = static_cast<int32_t>(std::bit_cast<uint32_t>(rounds) << 23);
  return std::bit_cast<float>(std::bit_cast<int32_t>(power) + exponent);
}

// The error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26).
inline float error_function(float x) {
  const float size = std::fabs(x);
  const float t = 1.0f / (1.0f + 0.3275911f * size);
  float sum = 1.061405429f;
  sum = sum * t - 1.453152027f;
  sum = sum * t + 1.421413741f;
  sum = sum * t - 0.284496736f;
  sum = sum * t + 0.254829592f;
  return std::copysign(1.0f - sum * t * exponential(-size * size), x);
}

inline float silu(float x) { return x / (1.0f + exponential(-x)); }

inline float gelu(float x) {
  return 0.5f * x * (1.0f + error_function(x * 0.70710678118654752f));
}

// 1 + tanh(u) = 2 / (1 + e^-2u)
inline float gelu_tanh(float x) {
  const float inner = 0.79788456080286536f * (x + 0.044715f * x * x * x);
  return x / (1.0f + exponential(-2.0f * inner));
}

// Values of a piece: 4 KiB of fp32.
constexpr int64_t kPiece = 1024;

// Fewer values than this are not worth another thread.
constexpr int64_t kValuesPerTask = 32768;

inline int64_t rows_per_task(int64_t width) {
  return std::max<int64_t>(1, kValuesPerTask / std::max<int64_t>(1, width));
}

// One token's rows of s - 1 for values >= 0 and < 0; null where it is the base model's.
template <typename B>
struct TokenScale {
  const B* above;
  const B* below;

  bool is_base() const { return above == nullptr && below == nullptr; }
  bool is_pair() const { return above != below; }
};

template <typename B>
TokenScale<B> of_token(const BankView& bank, int64_t token) {
  const auto row = [&](int32_t slot) {
    return slot <= 0 ? nullptr : static_cast<const B*>(bank.rows) + slot * bank.stride;
  };
  const B* above = row(bank.slots[token]);
  return {above, bank.negative == nullptr ? above : row(bank.negative[token])};
}

inline void check_slots(const char* op, const BankView& bank, int64_t num_tokens) {
  for (int64_t token = 0; token < num_tokens; ++token) {
    check(bank.slots[token] < bank.num_rows, op, "a slot is not in the bank");
    check(bank.negative == nullptr || bank.negative[token] < bank.num_rows, op,
          "a negative slot is not in the bank");
  }
}

// Function templates cannot be cloned per processor, so each pair of types is spelled out.
// scaled: out[i] = x[i] * s[i] in fp32, `offset` being a null row's.
#define PROPULSION_DEFINE_SCALED(X, B)                                                   \
  FOR_EVERY_PROCESSOR void scaled_by(const X* __restrict__ x, const B* __restrict__ row, \
                                            float* __restrict__ out, int64_t size) {     \
    for (int64_t i = 0; i < size; ++i) out[i] = widen(x[i]) * (1.0f + widen(row[i]));    \
  }                                                                                      \
  FOR_EVERY_PROCESSOR void scaled_by_sign(                                               \
      const X* __restrict__ x, const B* __restrict__ above, const B* __restrict__ below, \
      float* __restrict__ out, int64_t size) {                                           \
    for (int64_t i = 0; i < size; ++i) {                                                 \
      const float value = widen(x[i]);                                                   \
      out[i] = value * (1.0f + (value < 0 ? widen(below[i]) : widen(above[i])));         \
    }                                                                                    \
  }

#define PROPULSION_DEFINE_CONVERSIONS(X)                                              \
  FOR_EVERY_PROCESSOR void widened(const X* __restrict__ x, float* __restrict__ out,  \
                                          int64_t size) {                             \
    for (int64_t i = 0; i < size; ++i) out[i] = widen(x[i]);                          \
  }                                                                                   \
  FOR_EVERY_PROCESSOR void narrowed(const float* __restrict__ x, X* __restrict__ out, \
                                           int64_t size) {                            \
    for (int64_t i = 0; i < size; ++i) narrow(x[i], &out[i]);                         \
  }                                                                                   \
  PROPULSION_DEFINE_SCALED(X, float)                                                  \
  PROPULSION_DEFINE_SCALED(X, BFloat16)                                               \
  PROPULSION_DEFINE_SCALED(X, Half)

namespace {

PROPULSION_DEFINE_CONVERSIONS(float)
PROPULSION_DEFINE_CONVERSIONS(BFloat16)
PROPULSION_DEFINE_CONVERSIONS(Half)

// out[i] = x[column + i] * s[column + i] for one token, i < size <= kPiece.
template <typename X, typename B>
void scaled(const X* x, const TokenScale<B>& scale, int64_t column, int64_t size, float* out) {
  static const B zeros[kPiece] = {};
  if (scale.is_base()) return widened(x + column, out, size);
  const B* above = scale.above == nullptr ? zeros : scale.above + column;
  if (!scale.is_pair()) return scaled_by(x + column, above, out, size);
  scaled_by_sign(x + column, above, scale.below == nullptr ? zeros : scale.below + column, out,
                 size);
}

}  // namespace

template <typename T>
struct Type {
  using type = T;
};

template <typename Run>
void with_type(const char* op, ScalarType type, Run&& run) {
  switch (type) {
    case ScalarType::Float:
      return run(Type<float>{});
    case ScalarType::BFloat16:
      return run(Type<BFloat16>{});
    case ScalarType::Half:
      return run(Type<Half>{});
    default:
      check(false, op, "values must be float32, bfloat16 or float16");
  }
}

// Calls `run` with the C++ types of activations and of the bank.
template <typename Run>
void with_types(const char* op, ScalarType of_x, ScalarType of_bank, Run&& run) {
  with_type(op, of_x, [&](auto x) { with_type(op, of_bank, [&](auto b) { run(x, b); }); });
}

// Calls `use(column, size)` for each piece of a row.
template <typename Use>
void by_pieces(int64_t width, Use&& use) {
  for (int64_t column = 0; column < width; column += kPiece) {
    use(column, std::min(kPiece, width - column));
  }
}

// Calls `use(token)` for every token, on as many threads as are worth it.
template <typename Use>
void for_tokens(int64_t num_tokens, int64_t width, Use&& use) {
  torch::stable::parallel_for(0, num_tokens, rows_per_task(width),
                              [&](int64_t begin, int64_t end) {
                                for (int64_t token = begin; token < end; ++token) use(token);
                              });
}

}  // namespace propulsion::cpu
