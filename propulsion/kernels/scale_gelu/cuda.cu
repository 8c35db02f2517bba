// y[t, :] = gelu(x[t, :] * (1 + bank[slot[t], :])); see reference.py.

#include "propulsion/activations.cuh"
#include "propulsion/scale_rows.cuh"

namespace propulsion {
namespace {

void run(const char* op, const Tensor& x, const Tensor& out, const BankView& bank,
         int64_t activation) {
  switch (static_cast<Activation>(activation)) {
    case Activation::kGelu:
      return scale_rows<Gelu>(op, x, out, bank);
    case Activation::kGeluTanh:
      return scale_rows<GeluTanh>(op, x, out, bank);
    default:
      check(false, op, "the activation must be a GELU");
  }
}

void scale_gelu_(Tensor x, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots,
                 int64_t activation) {
  constexpr const char* kOp = "scale_gelu_";
  const RowsView rows = rows_view(kOp, x);
  run(kOp, x, x, bank_view(kOp, bank, slots, negative_slots, rows.num_tokens, rows.width),
      activation);
}

Tensor scale_gelu(Tensor x, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots,
                  int64_t activation) {
  constexpr const char* kOp = "scale_gelu";
  const RowsView rows = rows_view(kOp, x);
  Tensor out = torch::stable::empty_like(x);
  run(kOp, x, out, bank_view(kOp, bank, slots, negative_slots, rows.num_tokens, rows.width),
      activation);
  return out;
}

}  // namespace
}  // namespace propulsion

STABLE_TORCH_LIBRARY_IMPL(propulsion, PROPULSION_DEVICE, m) {
  m.impl("scale_gelu_", TORCH_BOX(&propulsion::scale_gelu_));
  m.impl("scale_gelu", TORCH_BOX(&propulsion::scale_gelu));
}
