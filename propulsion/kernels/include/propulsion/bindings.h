// What every operator checks before it touches memory, and how it sees the bank. Host code of both
// devices; torch's stable ABI alone.

#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

namespace propulsion {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check(bool holds, const char* op, const char* message) {
  STD_TORCH_CHECK(holds, op, ": ", message);
}

// Rows of s - 1 for one layer, and the row of each token.
struct BankView {
  const void* rows;
  ScalarType dtype;
  int64_t stride;
  int64_t num_rows;
  const int32_t* slots;
  const int32_t* negative;  // null: the same as slots
};

inline const int32_t* slots_of(const char* op, const Tensor& slots, int64_t num_tokens) {
  check(slots.scalar_type() == ScalarType::Int && slots.is_contiguous(), op,
        "slots must be contiguous int32");
  check(slots.dim() == 1 && slots.size(0) == num_tokens, op, "slots must be (tokens,)");
  return static_cast<const int32_t*>(slots.data_ptr());
}

inline BankView bank_view(const char* op, const Tensor& bank, const Tensor& slots,
                          const std::optional<Tensor>& negative_slots, int64_t num_tokens,
                          int64_t width) {
  check(bank.dim() == 2 && bank.size(1) == width, op, "x and bank must have the same width");
  check(width <= 1 || bank.stride(1) == 1, op, "rows of the bank must be contiguous");
  BankView view{bank.data_ptr(),   bank.scalar_type(), bank.stride(0),
                bank.size(0),      slots_of(op, slots, num_tokens), nullptr};
  if (negative_slots.has_value()) view.negative = slots_of(op, *negative_slots, num_tokens);
  return view;
}

// Rows of activations: (tokens, width), or (tokens, repeats, width) with one slot for all repeats.
struct RowsView {
  int64_t num_tokens, repeats, width, token_stride, repeat_stride;
};

inline RowsView rows_view(const char* op, const Tensor& x) {
  check(x.dim() == 2 || x.dim() == 3, op, "x must be (tokens, width) or (tokens, repeats, width)");
  const bool has_repeats = x.dim() == 3;
  const int64_t width = x.size(x.dim() - 1);
  check(width <= 1 || x.stride(x.dim() - 1) == 1, op, "rows of x must be contiguous");
  return {x.size(0), has_repeats ? x.size(1) : 1, width, x.stride(0),
          has_repeats ? x.stride(1) : 0};
}

inline bool is_float(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::BFloat16 || type == ScalarType::Half;
}

inline void check_types(const char* op, const Tensor& x, const BankView& bank) {
  check(is_float(x.scalar_type()) && is_float(bank.dtype), op,
        "x and bank must be float32, bfloat16 or float16");
}

// What `scale_rope` is told beside the bank, checked: sizes in values.
struct RopeView {
  int64_t rotary_dim, value_width;
};

inline RopeView rope_view(const char* op, const Tensor& qkv, const Tensor& positions,
                          const Tensor& cos_sin, int64_t heads, int64_t head_size) {
  check(qkv.dim() == 2 && (qkv.size(1) <= 1 || qkv.stride(1) == 1), op,
        "qkv must be (tokens, width) with contiguous rows");
  check(heads >= 0 && head_size >= 0 && heads * head_size <= qkv.size(1), op,
        "qkv is narrower than its heads");
  check(positions.scalar_type() == ScalarType::Long && positions.is_contiguous() &&
            positions.dim() == 1 && positions.size(0) == qkv.size(0),
        op, "positions must be int64, (tokens,)");
  check(cos_sin.dim() == 2 && (cos_sin.size(1) <= 1 || cos_sin.stride(1) == 1) &&
            cos_sin.scalar_type() == qkv.scalar_type(),
        op, "the cosines and sines must be (positions, rotary_dim), of the type of qkv");
  const int64_t rotary_dim = cos_sin.size(1);
  check(rotary_dim % 2 == 0 && rotary_dim <= head_size, op,
        "rotary_dim must be even and no more than a head");
  return {rotary_dim, qkv.size(1) - heads * head_size};
}

inline void check_act_mul(const char* op, const Tensor& x, const Tensor& out) {
  check(x.dim() == 2 && x.size(1) % 2 == 0 && (x.size(1) <= 1 || x.stride(1) == 1), op,
        "x must be (tokens, 2 * width) with contiguous rows");
  check(out.dim() == 2 && out.size(0) == x.size(0) && 2 * out.size(1) == x.size(1) &&
            out.scalar_type() == x.scalar_type() && (out.size(1) <= 1 || out.stride(1) == 1),
        op, "out must be (tokens, width), of the type of x, with contiguous rows");
}

inline void check_norm(const char* op, const Tensor& x, const Tensor& residual,
                       const Tensor& weight, const std::optional<Tensor>& bias) {
  check(x.dim() == 2 && (x.size(1) <= 1 || x.stride(1) == 1), op,
        "x must be (tokens, width) with contiguous rows");
  check(residual.dim() == 2 && residual.size(0) == x.size(0) && residual.size(1) == x.size(1) &&
            residual.scalar_type() == x.scalar_type() &&
            (x.size(1) <= 1 || residual.stride(1) == 1),
        op, "the residual must be like x");
  const auto is_of_width = [&](const Tensor& vector) {
    return vector.dim() == 1 && vector.size(0) == x.size(1) && vector.is_contiguous() &&
           vector.scalar_type() == x.scalar_type();
  };
  check(is_of_width(weight) && (!bias.has_value() || is_of_width(*bias)), op,
        "weight and bias must be (width,), of the type of x");
}

inline void check_like(const char* op, const Tensor& grad, const Tensor& values) {
  check(grad.is_contiguous() && grad.dim() == 2 && grad.size(0) == values.size(0) &&
            grad.size(1) == values.size(1) && grad.scalar_type() == values.scalar_type(),
        op, "the gradient must be like V, contiguous");
}

// V of a training batch, (rows, width), in equal groups of rows with one slot each.
struct GroupsView {
  int64_t num_rows, width, rows_per_group;
};

inline GroupsView groups_view(const char* op, const Tensor& values, const Tensor& scales,
                              const std::optional<Tensor>& groups) {
  check(values.is_contiguous() && values.dim() == 2, op, "V must be (rows, width), contiguous");
  check(scales.scalar_type() == ScalarType::Float && scales.is_contiguous() && scales.dim() == 3 &&
            scales.size(2) == values.size(1) && (scales.size(1) == 1 || scales.size(1) == 2),
        op, "the scales must be fp32, (slots, 1 or 2, width), contiguous");
  const int64_t num_rows = values.size(0), num_groups = groups.has_value() ? groups->size(0) : 1;
  check(num_groups == 0 ? num_rows == 0 : num_rows % num_groups == 0, op,
        "the rows must be in equal groups, one for each slot");
  return {num_rows, values.size(1), num_groups == 0 ? 1 : num_rows / num_groups};
}

// int64 indices, null where there are none; on a CPU also checked to be below `limit`.
inline const int64_t* indices(const char* op, const std::optional<Tensor>& tensor, int64_t limit) {
  if (!tensor.has_value()) return nullptr;
  check(tensor->scalar_type() == ScalarType::Long && tensor->is_contiguous() && tensor->dim() == 1,
        op, "slots, tiles and groups must be int64 vectors");
  const int64_t* values = static_cast<const int64_t*>(tensor->data_ptr());
  if (tensor->is_cpu()) {
    for (int64_t i = 0; i < tensor->size(0); ++i) {
      check(values[i] >= 0 && values[i] < limit, op, "a slot, tile or group is out of range");
    }
  }
  return values;
}

// The numbers by which Python names them (propulsion/kernels/activations.py).
enum class Activation : int64_t { kSilu = 0, kGelu = 1, kGeluTanh = 2 };

}  // namespace propulsion
