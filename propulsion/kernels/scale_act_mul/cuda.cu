// y[t, :] = act(gate * s_gate) * (up * s_up), gate and up being the halves of x[t, :]; see
// reference.py.

#include "propulsion/activations.cuh"
#include "propulsion/bank.cuh"

namespace propulsion {
namespace {

struct Shape {
  int64_t num_tokens, width, token_stride, out_stride;  // width: of one half
};

template <typename Act, int kN, typename X, typename Row>
__global__ void __launch_bounds__(256)
    scale_act_mul_kernel(const X* __restrict__ x, X* __restrict__ out, Bank<Row> bank, Shape shape) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * kN;
  for (int64_t token = blockIdx.y; token < shape.num_tokens; token += gridDim.y) {
    const TokenScale<Row> scale = bank.of_token(token);
    const X* from = x + token * shape.token_stride;
    X* to = out + token * shape.out_stride;
    for (int64_t column = thread * kN; column < shape.width; column += step) {
      float gate[kN], up[kN];
      load_constant(gate, from + column);
      load_constant(up, from + shape.width + column);
      scale.apply(gate, column);
      scale.apply(up, shape.width + column);
#pragma unroll
      for (int i = 0; i < kN; ++i) gate[i] = Act::of(gate[i]) * up[i];
      store(to + column, gate);
    }
  }
}

template <typename Act>
void run(const char* op, const Tensor& x, const Tensor& out, const BankView& view) {
  check_types(op, x, view);
  const Shape shape{x.size(0), out.size(1), x.stride(0), out.stride(0)};
  if (shape.num_tokens == 0 || shape.width == 0) return;
  const DeviceStream device(x);
  const auto start = [&](auto kernel, const auto* in, auto* to, const auto& bank, int vector) {
    const int64_t vectors = ceil_div(shape.width, vector);
    const int threads = round_to_warps(vectors, 256);
    const dim3 grid(static_cast<unsigned>(ceil_div(vectors, threads)),
                    static_cast<unsigned>(std::min(shape.num_tokens, kMaxGridY)));
    launch(op, device, grid, dim3(threads), kernel, in, to, bank, shape);
  };
  with_bank(
      op, x.scalar_type(), view,
      [&](auto type) {
        using X = typename decltype(type)::type;
        // The up half starts `width` values after the gate, so the width has to be of whole vectors.
        return shape.width % kVector<X> == 0 &&
               rows_are_aligned(values_of<X>(x), shape.token_stride, kVector<X>) &&
               rows_are_aligned(values_of<X>(out), shape.out_stride, kVector<X>);
      },
      [&](auto type, auto bank) {
        using X = typename decltype(type)::type;
        start(&scale_act_mul_kernel<Act, kVector<X>, X, decltype(bank.rows)>, values_of<X>(x),
              values_of<X>(out), bank, kVector<X>);
      },
      [&](auto type, auto bank) {
        using X = typename decltype(type)::type;
        start(&scale_act_mul_kernel<Act, 1, X, decltype(bank.rows)>, values_of<X>(x),
              values_of<X>(out), bank, 1);
      });
}

void scale_act_mul_out(Tensor x, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots,
                       int64_t activation, Tensor out) {
  constexpr const char* kOp = "scale_act_mul";
  check_act_mul(kOp, x, out);
  const BankView view = bank_view(kOp, bank, slots, negative_slots, x.size(0), x.size(1));
  switch (static_cast<Activation>(activation)) {
    case Activation::kSilu:
      return run<Silu>(kOp, x, out, view);
    case Activation::kGelu:
      return run<Gelu>(kOp, x, out, view);
    case Activation::kGeluTanh:
      return run<GeluTanh>(kOp, x, out, view);
    default:
      check(false, kOp, "unknown activation");
  }
}

Tensor scale_act_mul(Tensor x, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots,
                     int64_t activation) {
  check(x.dim() == 2, "scale_act_mul", "x must be (tokens, 2 * width)");
  Tensor out = torch::stable::new_empty(x, {x.size(0), x.size(1) / 2});
  scale_act_mul_out(x, bank, slots, negative_slots, activation, out);
  return out;
}

}  // namespace
}  // namespace propulsion

STABLE_TORCH_LIBRARY_IMPL(propulsion, PROPULSION_DEVICE, m) {
  m.impl("scale_act_mul_out", TORCH_BOX(&propulsion::scale_act_mul_out));
  m.impl("scale_act_mul", TORCH_BOX(&propulsion::scale_act_mul));
}
