// y[t, r, :] = x[t, r, :] * (1 + bank[slot, :]) in place, where slot is slots[t] for x >= 0 and
// negative_slots[t] for x < 0. Rows of slot 0 or below are the base model's and are left alone.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <bit>
#include <cstdint>

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Compiled for each level of vector instructions; the loader picks what the processor has.
#define FOR_EVERY_PROCESSOR                                                           \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), flatten))

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

template <typename X, typename B>
inline void scale_row(X* __restrict__ x, const B* __restrict__ row, int64_t width) {
  for (int64_t i = 0; i < width; ++i) narrow(widen(x[i]) * (1.0f + widen(row[i])), &x[i]);
}

template <typename X, typename B>
inline void scale_row_by_sign(X* __restrict__ x, const B* __restrict__ above,
                              const B* __restrict__ below, int64_t width) {
  for (int64_t i = 0; i < width; ++i) {
    const float value = widen(x[i]);
    narrow(value * (1.0f + (value < 0 ? widen(below[i]) : widen(above[i]))), &x[i]);
  }
}

// Function templates cannot be cloned per processor, so each pair of types is spelled out.
#define DEFINE_ROWS(NAME, X, B)                                                       \
  FOR_EVERY_PROCESSOR void NAME(X* x, const B* row, int64_t width) {                  \
    scale_row<X, B>(x, row, width);                                                   \
  }                                                                                   \
  FOR_EVERY_PROCESSOR void NAME##_by_sign(X* x, const B* above, const B* below,       \
                                          int64_t width) {                            \
    scale_row_by_sign<X, B>(x, above, below, width);                                  \
  }                                                                                   \
  struct Rows_##NAME {                                                                \
    static void one(X* x, const B* row, int64_t width) { NAME(x, row, width); }       \
    static void two(X* x, const B* above, const B* below, int64_t width) {            \
      NAME##_by_sign(x, above, below, width);                                         \
    }                                                                                 \
  };

DEFINE_ROWS(f32_f32, float, float)
DEFINE_ROWS(f32_bf16, float, BFloat16)
DEFINE_ROWS(f32_f16, float, Half)
DEFINE_ROWS(bf16_f32, BFloat16, float)
DEFINE_ROWS(bf16_bf16, BFloat16, BFloat16)
DEFINE_ROWS(bf16_f16, BFloat16, Half)
DEFINE_ROWS(f16_f32, Half, float)
DEFINE_ROWS(f16_bf16, Half, BFloat16)
DEFINE_ROWS(f16_f16, Half, Half)

struct Shape {
  int64_t num_tokens, repeats, width, token_stride, repeat_stride, bank_stride, num_rows;
};

// Rows shorter than this are not worth another thread.
constexpr int64_t kValuesPerTask = 32768;

template <typename Rows, typename X, typename B>
void run(const Shape& shape, X* x, const B* bank, const int32_t* slots, const int32_t* negative) {
  const int64_t values = std::max<int64_t>(1, shape.repeats * shape.width);
  torch::stable::parallel_for(
      0, shape.num_tokens, std::max<int64_t>(1, kValuesPerTask / values),
      [&](int64_t begin, int64_t end) {
        for (int64_t token = begin; token < end; ++token) {
          const int64_t above = slots[token];
          const int64_t below = negative == nullptr ? above : negative[token];
          if (above <= 0 && below <= 0) continue;
          const B* row = bank + std::max<int64_t>(above, 0) * shape.bank_stride;
          for (int64_t repeat = 0; repeat < shape.repeats; ++repeat) {
            X* values = x + token * shape.token_stride + repeat * shape.repeat_stride;
            if (above == below) {
              Rows::one(values, row, shape.width);
            } else {
              Rows::two(values, row, bank + std::max<int64_t>(below, 0) * shape.bank_stride,
                        shape.width);
            }
          }
        }
      });
}

void check(bool holds, const char* message) { STD_TORCH_CHECK(holds, "gather_scale_: ", message); }

void gather_scale_(Tensor x, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots) {
  check(x.dim() == 2 || x.dim() == 3, "x must be (tokens, width) or (tokens, repeats, width)");
  check(bank.dim() == 2, "bank must be (slots, width)");
  check(x.stride(x.dim() - 1) == 1 && bank.stride(1) == 1, "rows must be contiguous");
  check(x.size(x.dim() - 1) == bank.size(1), "x and bank must have the same width");
  check(slots.scalar_type() == ScalarType::Int && slots.is_contiguous(), "slots must be int32");
  check(slots.dim() == 1 && slots.size(0) == x.size(0), "slots must be (tokens,)");
  const int32_t* below = nullptr;
  if (negative_slots.has_value()) {
    check(negative_slots->scalar_type() == ScalarType::Int && negative_slots->is_contiguous() &&
              negative_slots->dim() == 1 && negative_slots->size(0) == x.size(0),
          "negative_slots must be int32, (tokens,)");
    below = static_cast<const int32_t*>(negative_slots->data_ptr());
  }
  const int32_t* above = static_cast<const int32_t*>(slots.data_ptr());
  const bool has_repeats = x.dim() == 3;
  const Shape shape{x.size(0),     has_repeats ? x.size(1) : 1, bank.size(1),
                    x.stride(0),   has_repeats ? x.stride(1) : 0, bank.stride(0),
                    bank.size(0)};
  for (int64_t token = 0; token < shape.num_tokens; ++token) {
    check(above[token] < shape.num_rows, "a slot is not in the bank");
    check(below == nullptr || below[token] < shape.num_rows, "a negative slot is not in the bank");
  }
  const ScalarType of_x = x.scalar_type(), of_bank = bank.scalar_type();
#define RUN(OF_X, OF_BANK, ROWS, X, B)                                                \
  if (of_x == ScalarType::OF_X && of_bank == ScalarType::OF_BANK)                     \
    return run<Rows_##ROWS, X, B>(shape, static_cast<X*>(x.data_ptr()),               \
                                  static_cast<const B*>(bank.data_ptr()), above, below);
  RUN(Float, Float, f32_f32, float, float)
  RUN(Float, BFloat16, f32_bf16, float, BFloat16)
  RUN(Float, Half, f32_f16, float, Half)
  RUN(BFloat16, Float, bf16_f32, BFloat16, float)
  RUN(BFloat16, BFloat16, bf16_bf16, BFloat16, BFloat16)
  RUN(BFloat16, Half, bf16_f16, BFloat16, Half)
  RUN(Half, Float, f16_f32, Half, float)
  RUN(Half, BFloat16, f16_bf16, Half, BFloat16)
  RUN(Half, Half, f16_f16, Half, Half)
#undef RUN
  check(false, "x and bank must be float32, bfloat16 or float16");
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(propulsion, m) {
  m.def("gather_scale_(Tensor(a!) x, Tensor bank, Tensor slots, Tensor? negative_slots) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(propulsion, CPU, m) {
  m.impl("gather_scale_", TORCH_BOX(&gather_scale_));
}
