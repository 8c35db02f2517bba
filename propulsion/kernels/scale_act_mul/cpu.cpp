// y[t, :] = act(gate * s_gate) * (up * s_up), gate and up being the halves of x[t, :]; see
// reference.py.

#include "propulsion/cpu.h"

namespace propulsion::cpu {
namespace {

#define DEFINE_PRODUCT(NAME, ACTIVATION)                                                \
  FOR_EVERY_PROCESSOR void NAME(float* __restrict__ gate, const float* __restrict__ up, \
                                int64_t size) {                                         \
    for (int64_t i = 0; i < size; ++i) gate[i] = ACTIVATION(gate[i]) * up[i];           \
  }

DEFINE_PRODUCT(silu_product, silu)
DEFINE_PRODUCT(gelu_product, gelu)
DEFINE_PRODUCT(gelu_tanh_product, gelu_tanh)

using Product = void (*)(float*, const float*, int64_t);

Product product_of(const char* op, int64_t activation) {
  switch (static_cast<Activation>(activation)) {
    case Activation::kSilu:
      return &silu_product;
    case Activation::kGelu:
      return &gelu_product;
    case Activation::kGeluTanh:
      return &gelu_tanh_product;
    default:
      check(false, op, "unknown activation");
      return nullptr;
  }
}

void scale_act_mul_out(Tensor x, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots,
                       int64_t activation, Tensor out) {
  constexpr const char* kOp = "scale_act_mul";
  check_act_mul(kOp, x, out);
  const int64_t num_tokens = x.size(0), width = out.size(1);
  const BankView view = bank_view(kOp, bank, slots, negative_slots, num_tokens, 2 * width);
  check_types(kOp, x, view);
  check_slots(kOp, view, num_tokens);
  const Product product = product_of(kOp, activation);
  with_types(kOp, x.scalar_type(), view.dtype, [&](auto of_x, auto of_bank) {
    using X = typename decltype(of_x)::type;
    using B = typename decltype(of_bank)::type;
    for_tokens(num_tokens, 2 * width, [&](int64_t token) {
      const TokenScale<B> scale = of_token<B>(view, token);
      const X* row = static_cast<const X*>(x.data_ptr()) + token * x.stride(0);
      X* target = static_cast<X*>(out.data_ptr()) + token * out.stride(0);
      by_pieces(width, [&](int64_t column, int64_t size) {
        float gate[kPiece], up[kPiece];
        scaled(row, scale, column, size, gate);
        scaled(row, scale, width + column, size, up);
        product(gate, up, size);
        narrowed(gate, target + column, size);
      });
    });
  });
}

Tensor scale_act_mul(Tensor x, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots,
                     int64_t activation) {
  check(x.dim() == 2, "scale_act_mul", "x must be (tokens, 2 * width)");
  Tensor out = torch::stable::new_empty(x, {x.size(0), x.size(1) / 2});
  scale_act_mul_out(x, bank, slots, negative_slots, activation, out);
  return out;
}

}  // namespace
}  // namespace propulsion::cpu

STABLE_TORCH_LIBRARY_IMPL(propulsion, CPU, m) {
  m.impl("scale_act_mul_out", TORCH_BOX(&propulsion::cpu::scale_act_mul_out));
  m.impl("scale_act_mul", TORCH_BOX(&propulsion::cpu::scale_act_mul));
}
