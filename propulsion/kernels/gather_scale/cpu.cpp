// y[t, r, :] = x[t, r, :] * (1 + bank[slot[t], :]); see reference.py. In one step a value, since there
// is nothing between reading and writing it.

#include "propulsion/cpu.h"

namespace propulsion::cpu {
namespace {

#define DEFINE_ROWS(X, B)                                                                      \
  FOR_EVERY_PROCESSOR void scale_row(const X* __restrict__ x, const B* __restrict__ row,       \
                                     X* __restrict__ out, int64_t width) {                     \
    for (int64_t i = 0; i < width; ++i) narrow(widen(x[i]) * (1.0f + widen(row[i])), &out[i]); \
  }                                                                                            \
  FOR_EVERY_PROCESSOR void scale_row(X* __restrict__ x, const B* __restrict__ row,             \
                                     int64_t width) {                                          \
    for (int64_t i = 0; i < width; ++i) narrow(widen(x[i]) * (1.0f + widen(row[i])), &x[i]);   \
  }

DEFINE_ROWS(float, float)
DEFINE_ROWS(float, BFloat16)
DEFINE_ROWS(float, Half)
DEFINE_ROWS(BFloat16, float)
DEFINE_ROWS(BFloat16, BFloat16)
DEFINE_ROWS(BFloat16, Half)
DEFINE_ROWS(Half, float)
DEFINE_ROWS(Half, BFloat16)
DEFINE_ROWS(Half, Half)

template <typename X, typename B>
void scale_values(const X* x, const TokenScale<B>& scale, X* out, int64_t width) {
  if (scale.is_base()) {
    if (x != out) std::copy_n(x, width, out);
  } else if (!scale.is_pair()) {
    if (x == out) {
      scale_row(out, scale.above, width);
    } else {
      scale_row(x, scale.above, out, width);
    }
  } else {
    by_pieces(width, [&](int64_t column, int64_t size) {
      float values[kPiece];
      scaled(x, scale, column, size, values);
      narrowed(values, out + column, size);
    });
  }
}

void run(const char* op, const Tensor& x, const Tensor& out, const Tensor& bank,
         const Tensor& slots, const std::optional<Tensor>& negative_slots) {
  const RowsView from = rows_view(op, x), to = rows_view(op, out);
  const BankView view = bank_view(op, bank, slots, negative_slots, from.num_tokens, from.width);
  check_types(op, x, view);
  check_slots(op, view, from.num_tokens);
  with_types(op, x.scalar_type(), view.dtype, [&](auto of_x, auto of_bank) {
    using X = typename decltype(of_x)::type;
    using B = typename decltype(of_bank)::type;
    const X* in = static_cast<const X*>(x.data_ptr());
    X* values = static_cast<X*>(out.data_ptr());
    for_tokens(from.num_tokens, from.repeats * from.width, [&](int64_t token) {
      const TokenScale<B> scale = of_token<B>(view, token);
      for (int64_t repeat = 0; repeat < from.repeats; ++repeat) {
        scale_values(in + token * from.token_stride + repeat * from.repeat_stride, scale,
                     values + token * to.token_stride + repeat * to.repeat_stride, from.width);
      }
    });
  });
}

void gather_scale_(Tensor x, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots) {
  run("gather_scale_", x, x, bank, slots, negative_slots);
}

Tensor gather_scale(Tensor x, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots) {
  Tensor out = torch::stable::empty_like(x);
  run("gather_scale", x, out, bank, slots, negative_slots);
  return out;
}

}  // namespace
}  // namespace propulsion::cpu

STABLE_TORCH_LIBRARY_IMPL(propulsion, CPU, m) {
  m.impl("gather_scale_", TORCH_BOX(&propulsion::cpu::gather_scale_));
  m.impl("gather_scale", TORCH_BOX(&propulsion::cpu::gather_scale));
}
