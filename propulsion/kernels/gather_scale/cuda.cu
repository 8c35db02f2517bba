// y[t, r, :] = x[t, r, :] * (1 + bank[slot[t], :]); see reference.py.

#include "propulsion/activations.cuh"
#include "propulsion/scale_rows.cuh"

namespace propulsion {
namespace {

void gather_scale_(Tensor x, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots) {
  constexpr const char* kOp = "gather_scale_";
  const RowsView rows = rows_view(kOp, x);
  const BankView view = bank_view(kOp, bank, slots, negative_slots, rows.num_tokens, rows.width);
  scale_rows<Identity>(kOp, x, x, view);
}

Tensor gather_scale(Tensor x, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots) {
  constexpr const char* kOp = "gather_scale";
  const RowsView rows = rows_view(kOp, x);
  const BankView view = bank_view(kOp, bank, slots, negative_slots, rows.num_tokens, rows.width);
  Tensor out = torch::stable::empty_like(x);
  scale_rows<Identity>(kOp, x, out, view);
  return out;
}

}  // namespace
}  // namespace propulsion

STABLE_TORCH_LIBRARY_IMPL(propulsion, PROPULSION_DEVICE, m) {
  m.impl("gather_scale_", TORCH_BOX(&propulsion::gather_scale_));
  m.impl("gather_scale", TORCH_BOX(&propulsion::gather_scale));
}
