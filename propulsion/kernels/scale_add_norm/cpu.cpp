// residual += x * (1 + bank[slot, :]); x = norm(residual) * weight (+ bias); see reference.py. The
// second pass over a row finds it in the cache.

#include "propulsion/cpu.h"

namespace propulsion::cpu {
namespace {

FOR_EVERY_PROCESSOR void add(float* __restrict__ to, const float* __restrict__ values,
                             int64_t size) {
  for (int64_t i = 0; i < size; ++i) to[i] += values[i];
}

// Sums in sixteen places at once, so that the loop vectorises without a change of their order.
constexpr int kPlaces = 16;

FOR_EVERY_PROCESSOR float sum_of_squares(const float* values, float mean, int64_t size) {
  float sums[kPlaces] = {};
  int64_t i = 0;
  for (; i + kPlaces <= size; i += kPlaces) {
    for (int place = 0; place < kPlaces; ++place) {
      const float value = values[i + place] - mean;
      sums[place] += value * value;
    }
  }
  for (; i < size; ++i) sums[0] += (values[i] - mean) * (values[i] - mean);
  float sum = 0.0f;
  for (float of_place : sums) sum += of_place;
  return sum;
}

FOR_EVERY_PROCESSOR float sum_of(const float* values, int64_t size) {
  float sums[kPlaces] = {};
  int64_t i = 0;
  for (; i + kPlaces <= size; i += kPlaces) {
    for (int place = 0; place < kPlaces; ++place) sums[place] += values[i + place];
  }
  for (; i < size; ++i) sums[0] += values[i];
  float sum = 0.0f;
  for (float of_place : sums) sum += of_place;
  return sum;
}

FOR_EVERY_PROCESSOR void normalise(float* __restrict__ values, float mean, float inverse,
                                   const float* __restrict__ weight,
                                   const float* __restrict__ bias, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    values[i] = (values[i] - mean) * inverse * weight[i] + bias[i];
  }
}

template <typename X>
struct Norm {
  const X* weight;
  const X* bias;  // may be null
  float epsilon;
  bool is_layer_norm;
};

template <typename X, typename B>
void scale_add_norm_row(const X* x, X* out, const X* residual, X* residual_out,
                        const TokenScale<B>& scale, const Norm<X>& norm, int64_t width) {
  float values[kPiece], sums[kPiece];
  float sum = 0.0f;
  by_pieces(width, [&](int64_t column, int64_t size) {
    scaled(x, scale, column, size, values);
    widened(residual + column, sums, size);
    add(sums, values, size);
    narrowed(sums, residual_out + column, size);
    widened(residual_out + column, sums, size);
    sum += norm.is_layer_norm ? sum_of(sums, size) : sum_of_squares(sums, 0.0f, size);
  });
  const float per_value = 1.0f / static_cast<float>(width);
  float mean = 0.0f, variance = sum * per_value;
  if (norm.is_layer_norm) {
    mean = variance;
    float squares = 0.0f;
    by_pieces(width, [&](int64_t column, int64_t size) {
      widened(residual_out + column, sums, size);
      squares += sum_of_squares(sums, mean, size);
    });
    variance = squares * per_value;
  }
  const float inverse = 1.0f / std::sqrt(variance + norm.epsilon);
  by_pieces(width, [&](int64_t column, int64_t size) {
    float weight[kPiece], bias[kPiece] = {};
    widened(residual_out + column, sums, size);
    widened(norm.weight + column, weight, size);
    if (norm.bias != nullptr) widened(norm.bias + column, bias, size);
    normalise(sums, mean, inverse, weight, bias, size);
    narrowed(sums, out + column, size);
  });
}

void run(const char* op, const Tensor& x, const Tensor& out, const Tensor& residual,
         const Tensor& residual_out, const Tensor& bank, const Tensor& slots,
         const std::optional<Tensor>& negative_slots, const Tensor& weight,
         const std::optional<Tensor>& bias, double epsilon, bool is_layer_norm) {
  check_norm(op, x, residual, weight, bias);
  const int64_t num_tokens = x.size(0), width = x.size(1);
  const BankView view = bank_view(op, bank, slots, negative_slots, num_tokens, width);
  check_types(op, x, view);
  check_slots(op, view, num_tokens);
  with_types(op, x.scalar_type(), view.dtype, [&](auto of_x, auto of_bank) {
    using X = typename decltype(of_x)::type;
    using B = typename decltype(of_bank)::type;
    const Norm<X> norm{static_cast<const X*>(weight.data_ptr()),
                       bias.has_value() ? static_cast<const X*>(bias->data_ptr()) : nullptr,
                       static_cast<float>(epsilon), is_layer_norm};
    const auto row_of = [](const Tensor& tensor, int64_t token) {
      return static_cast<X*>(tensor.data_ptr()) + token * tensor.stride(0);
    };
    for_tokens(num_tokens, 2 * width, [&](int64_t token) {
      scale_add_norm_row<X, B>(row_of(x, token), row_of(out, token), row_of(residual, token),
                               row_of(residual_out, token), of_token<B>(view, token), norm, width);
    });
  });
}

void scale_add_norm_(Tensor x, Tensor residual, Tensor bank, Tensor slots,
                     std::optional<Tensor> negative_slots, Tensor weight,
                     std::optional<Tensor> bias, double epsilon, bool is_layer_norm) {
  run("scale_add_norm_", x, x, residual, residual, bank, slots, negative_slots, weight, bias,
      epsilon, is_layer_norm);
}

std::tuple<Tensor, Tensor> scale_add_norm(Tensor x, Tensor residual, Tensor bank, Tensor slots,
                                          std::optional<Tensor> negative_slots, Tensor weight,
                                          std::optional<Tensor> bias, double epsilon,
                                          bool is_layer_norm) {
  Tensor out = torch::stable::empty_like(x);
  Tensor residual_out = torch::stable::empty_like(residual);
  run("scale_add_norm", x, out, residual, residual_out, bank, slots, negative_slots, weight, bias,
      epsilon, is_layer_norm);
  return {out, residual_out};
}

}  // namespace
}  // namespace propulsion::cpu

STABLE_TORCH_LIBRARY_IMPL(propulsion, CPU, m) {
  m.impl("scale_add_norm_", TORCH_BOX(&propulsion::cpu::scale_add_norm_));
  m.impl("scale_add_norm", TORCH_BOX(&propulsion::cpu::scale_add_norm));
}
