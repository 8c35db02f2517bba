// Packed queries, keys and values times their scales, and the rotary embedding of queries and keys;
// see reference.py.

#include "propulsion/cpu.h"

namespace propulsion::cpu {
namespace {

// (a, b) -> (a cos - b sin, b cos + a sin), pairs `half` apart.
FOR_EVERY_PROCESSOR void rotate_halves(float* __restrict__ a, float* __restrict__ b,
                                       const float* __restrict__ cosines,
                                       const float* __restrict__ sines, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float first = a[i] * cosines[i] - b[i] * sines[i];
    b[i] = b[i] * cosines[i] + a[i] * sines[i];
    a[i] = first;
  }
}

FOR_EVERY_PROCESSOR void rotate_neighbours(float* __restrict__ values,
                                           const float* __restrict__ cosines,
                                           const float* __restrict__ sines, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = values[2 * i], b = values[2 * i + 1];
    values[2 * i] = a * cosines[i] - b * sines[i];
    values[2 * i + 1] = b * cosines[i] + a * sines[i];
  }
}

struct Rope {
  int64_t heads, head_size, rotary_dim, width;
  bool is_neox;
};

template <typename X, typename B>
void scale_and_rotate(const X* row, const TokenScale<B>& scale, const X* cos_sin, const Rope& rope,
                      X* out) {
  const int64_t half = rope.rotary_dim / 2;
  float turns[kPiece], values[kPiece];
  widened(cos_sin, turns, rope.rotary_dim);
  for (int64_t head = 0; head < rope.heads; ++head) {
    const int64_t column = head * rope.head_size;
    scaled(row, scale, column, rope.head_size, values);
    if (rope.is_neox) {
      rotate_halves(values, values + half, turns, turns + half, half);
    } else {
      rotate_neighbours(values, turns, turns + half, half);
    }
    narrowed(values, out + column, rope.head_size);
  }
  const int64_t first = rope.heads * rope.head_size;
  if (row == out && scale.is_base()) return;
  by_pieces(rope.width - first, [&](int64_t column, int64_t size) {
    scaled(row, scale, first + column, size, values);
    narrowed(values, out + first + column, size);
  });
}

void run(const char* op, const Tensor& qkv, const Tensor& out, const Tensor& bank,
         const Tensor& slots, const std::optional<Tensor>& negative_slots, const Tensor& positions,
         const Tensor& cos_sin, int64_t heads, int64_t head_size, bool is_neox) {
  const RopeView view = rope_view(op, qkv, positions, cos_sin, heads, head_size);
  const int64_t num_tokens = qkv.size(0), width = qkv.size(1);
  const BankView of_bank_rows = bank_view(op, bank, slots, negative_slots, num_tokens, width);
  check_types(op, qkv, of_bank_rows);
  check_slots(op, of_bank_rows, num_tokens);
  check(head_size <= kPiece, op, "a head may have 1,024 values at the most on a CPU");
  const int64_t* of_tokens = static_cast<const int64_t*>(positions.data_ptr());
  for (int64_t token = 0; token < num_tokens; ++token) {
    check(of_tokens[token] >= 0 && of_tokens[token] < cos_sin.size(0), op,
          "a position has no cosine");
  }
  const Rope rope{heads, head_size, view.rotary_dim, width, is_neox};
  with_types(op, qkv.scalar_type(), of_bank_rows.dtype, [&](auto of_x, auto of_bank) {
    using X = typename decltype(of_x)::type;
    using B = typename decltype(of_bank)::type;
    for_tokens(num_tokens, width, [&](int64_t token) {
      scale_and_rotate(
          static_cast<const X*>(qkv.data_ptr()) + token * qkv.stride(0),
          of_token<B>(of_bank_rows, token),
          static_cast<const X*>(cos_sin.data_ptr()) + of_tokens[token] * cos_sin.stride(0), rope,
          static_cast<X*>(out.data_ptr()) + token * out.stride(0));
    });
  });
}

void scale_rope_(Tensor qkv, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots,
                 Tensor positions, Tensor cos_sin, int64_t heads, int64_t head_size,
                 bool is_neox) {
  run("scale_rope_", qkv, qkv, bank, slots, negative_slots, positions, cos_sin, heads, head_size,
      is_neox);
}

Tensor scale_rope(Tensor qkv, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots,
                  Tensor positions, Tensor cos_sin, int64_t heads, int64_t head_size,
                  bool is_neox) {
  Tensor out = torch::stable::empty_like(qkv);
  run("scale_rope", qkv, out, bank, slots, negative_slots, positions, cos_sin, heads, head_size,
      is_neox);
  return out;
}

}  // namespace
}  // namespace propulsion::cpu

STABLE_TORCH_LIBRARY_IMPL(propulsion, CPU, m) {
  m.impl("scale_rope_", TORCH_BOX(&propulsion::cpu::scale_rope_));
  m.impl("scale_rope", TORCH_BOX(&propulsion::cpu::scale_rope));
}
