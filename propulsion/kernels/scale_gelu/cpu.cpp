// y[t, :] = gelu(x[t, :] * (1 + bank[slot[t], :])); see reference.py.

#include "propulsion/cpu.h"

namespace propulsion::cpu {
namespace {

FOR_EVERY_PROCESSOR void apply_gelu(float* values, int64_t size) {
  for (int64_t i = 0; i < size; ++i) values[i] = gelu(values[i]);
}

FOR_EVERY_PROCESSOR void apply_gelu_tanh(float* values, int64_t size) {
  for (int64_t i = 0; i < size; ++i) values[i] = gelu_tanh(values[i]);
}

void run(const char* op, const Tensor& x, const Tensor& out, const Tensor& bank,
         const Tensor& slots, const std::optional<Tensor>& negative_slots, int64_t activation) {
  const RowsView from = rows_view(op, x), to = rows_view(op, out);
  const BankView view = bank_view(op, bank, slots, negative_slots, from.num_tokens, from.width);
  check_types(op, x, view);
  check_slots(op, view, from.num_tokens);
  const auto of = static_cast<Activation>(activation);
  check(of == Activation::kGelu || of == Activation::kGeluTanh, op,
        "the activation must be a GELU");
  const auto apply = of == Activation::kGelu ? &apply_gelu : &apply_gelu_tanh;
  with_types(op, x.scalar_type(), view.dtype, [&](auto of_x, auto of_bank) {
    using X = typename decltype(of_x)::type;
    using B = typename decltype(of_bank)::type;
    const X* in = static_cast<const X*>(x.data_ptr());
    X* result = static_cast<X*>(out.data_ptr());
    for_tokens(from.num_tokens, from.repeats * from.width, [&](int64_t token) {
      const TokenScale<B> scale = of_token<B>(view, token);
      for (int64_t repeat = 0; repeat < from.repeats; ++repeat) {
        const X* row = in + token * from.token_stride + repeat * from.repeat_stride;
        X* target = result + token * to.token_stride + repeat * to.repeat_stride;
        by_pieces(from.width, [&](int64_t column, int64_t size) {
          float values[kPiece];
          scaled(row, scale, column, size, values);
          apply(values, size);
          narrowed(values, target + column, size);
        });
      }
    });
  });
}

void scale_gelu_(Tensor x, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots,
                 int64_t activation) {
  run("scale_gelu_", x, x, bank, slots, negative_slots, activation);
}

Tensor scale_gelu(Tensor x, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots,
                  int64_t activation) {
  Tensor out = torch::stable::empty_like(x);
  run("scale_gelu", x, out, bank, slots, negative_slots, activation);
  return out;
}

}  // namespace
}  // namespace propulsion::cpu

STABLE_TORCH_LIBRARY_IMPL(propulsion, CPU, m) {
  m.impl("scale_gelu_", TORCH_BOX(&propulsion::cpu::scale_gelu_));
  m.impl("scale_gelu", TORCH_BOX(&propulsion::cpu::scale_gelu));
}
