// residual += x * (1 + bank[slot, :]); x = norm(residual) * weight (+ bias): one read and one write of
// each; see reference.py.

#include "propulsion/bank.cuh"
#include "propulsion/reduce.cuh"

namespace propulsion {
namespace {

struct Shape {
  int64_t num_tokens, width;
  int64_t x_stride, out_stride, residual_stride, residual_out_stride;
};

template <typename X>
struct Norm {
  const X* weight;
  const X* bias;  // may be null
  float epsilon;
};

// A block is one token. Its row of sums stays in registers, kKept vectors of kN values a thread; with
// kKept 0, for rows of any width, a thread reads back the sums that it wrote itself.
template <bool kIsLayerNorm, int kN, int kKept, typename X, typename Row>
__global__ void __launch_bounds__(1024)
    scale_add_norm_kernel(const X* x, X* out, const X* residual, X* residual_out, Bank<Row> bank,
                          Norm<X> norm, Shape shape) {
  const int64_t first = static_cast<int64_t>(threadIdx.x) * kN;
  const int64_t step = static_cast<int64_t>(blockDim.x) * kN;
  const float per_value = 1.0f / static_cast<float>(shape.width);
  for (int64_t token = blockIdx.x; token < shape.num_tokens; token += gridDim.x) {
    const TokenScale<Row> scale = bank.of_token(token);
    const X* from = x + token * shape.x_stride;
    const X* residual_from = residual + token * shape.residual_stride;
    X* residual_to = residual_out + token * shape.residual_out_stride;
    X* to = out + token * shape.out_stride;
    float kept[kKept > 0 ? kKept : 1][kN];

    // The sums are taken as they are stored, so that the norm is that of the residual to come.
    const auto load_sums = [&](float (&sums)[kN], int64_t column) {
      float values[kN];
      load(values, from + column);
      load(sums, residual_from + column);
      scale.apply(values, column);
#pragma unroll
      for (int i = 0; i < kN; ++i) sums[i] = rounded<X>(sums[i] + values[i]);
    };
    const auto every = [&](auto&& use, bool is_first) {
      if constexpr (kKept > 0) {
        // All loads come before the first store, which might be to what the next load reads.
#pragma unroll
        for (int i = 0; is_first && i < kKept; ++i) {
          const int64_t column = first + i * step;
          if (column < shape.width) load_sums(kept[i], column);
        }
#pragma unroll
        for (int i = 0; i < kKept; ++i) {
          const int64_t column = first + i * step;
          if (column >= shape.width) continue;
          if (is_first) store(residual_to + column, kept[i]);
          use(kept[i], column);
        }
      } else {
        for (int64_t column = first; column < shape.width; column += step) {
          if (is_first) {
            load_sums(kept[0], column);
            store(residual_to + column, kept[0]);
          } else {
            load(kept[0], residual_to + column);
          }
          use(kept[0], column);
        }
      }
    };

    float sum = 0.0f;
    every(
        [&](const float (&sums)[kN], int64_t) {
#pragma unroll
          for (int i = 0; i < kN; ++i) sum += kIsLayerNorm ? sums[i] : sums[i] * sums[i];
        },
        true);
    float mean = 0.0f;
    float variance = block_sum(sum) * per_value;
    if constexpr (kIsLayerNorm) {
      mean = variance;
      float squares = 0.0f;
      every(
          [&](const float (&sums)[kN], int64_t) {
#pragma unroll
            for (int i = 0; i < kN; ++i) squares += (sums[i] - mean) * (sums[i] - mean);
          },
          false);
      variance = block_sum(squares) * per_value;
    }
    const float inverse = rsqrtf(variance + norm.epsilon);
    every(
        [&](const float (&sums)[kN], int64_t column) {
          float weight[kN], bias[kN] = {}, normed[kN];
          load_constant(weight, norm.weight + column);
          if (norm.bias != nullptr) load_constant(bias, norm.bias + column);
#pragma unroll
          for (int i = 0; i < kN; ++i) {
            normed[i] = (sums[i] - mean) * inverse * weight[i] + bias[i];
          }
          store(to + column, normed);
        },
        false);
  }
}

// Vectors of a row that a thread keeps. With more, a block of 1,024 threads would run out of
// registers; wider rows (16,384 values of 16 bits) are taken value by value and read back.
constexpr int kMostKept = 2;

// One vector a thread where there are few tokens, since then only latency counts; two where there
// are enough blocks to fill the GPU, since then a block's fixed costs do.
int threads_of(int64_t vectors, int64_t num_tokens) {
  return round_to_warps(ceil_div(vectors, num_tokens >= 512 ? 2 : 1), 1024);
}

template <bool kIsLayerNorm>
void run(const char* op, const Tensor& x, const Tensor& out, const Tensor& residual,
         const Tensor& residual_out, const BankView& view, const Tensor& weight,
         const std::optional<Tensor>& bias, double epsilon) {
  const Shape shape{x.size(0),      x.size(1),          x.stride(0),
                    out.stride(0),  residual.stride(0), residual_out.stride(0)};
  if (shape.num_tokens == 0 || shape.width == 0) return;
  const DeviceStream device(x);
  const auto start = [&](auto kernel, auto type, const auto& bank, int threads) {
    using X = typename decltype(type)::type;
    const Norm<X> norm{values_of<X>(weight), bias.has_value() ? values_of<X>(*bias) : nullptr,
                       static_cast<float>(epsilon)};
    const unsigned blocks = static_cast<unsigned>(std::min<int64_t>(shape.num_tokens, 1 << 20));
    launch(op, device, dim3(blocks), dim3(threads), kernel, values_of<X>(x), values_of<X>(out),
           values_of<X>(residual), values_of<X>(residual_out), bank, norm, shape);
  };
  with_bank(
      op, x.scalar_type(), view,
      [&](auto type) {
        using X = typename decltype(type)::type;
        constexpr int kN = kVector<X>;
        return shape.width % kN == 0 && shape.width <= 1024 * kMostKept * kN &&
               rows_are_aligned(values_of<X>(x), shape.x_stride, kN) &&
               rows_are_aligned(values_of<X>(out), shape.out_stride, kN) &&
               rows_are_aligned(values_of<X>(residual), shape.residual_stride, kN) &&
               rows_are_aligned(values_of<X>(residual_out), shape.residual_out_stride, kN) &&
               rows_are_aligned(values_of<X>(weight), kN, kN) &&
               (!bias.has_value() || rows_are_aligned(values_of<X>(*bias), kN, kN));
      },
      [&](auto type, auto bank) {
        using X = typename decltype(type)::type;
        constexpr int kN = kVector<X>;
        start(&scale_add_norm_kernel<kIsLayerNorm, kN, kMostKept, X, decltype(bank.rows)>, type,
              bank, threads_of(shape.width / kN, shape.num_tokens));
      },
      [&](auto type, auto bank) {
        using X = typename decltype(type)::type;
        start(&scale_add_norm_kernel<kIsLayerNorm, 1, 0, X, decltype(bank.rows)>, type, bank,
              round_to_warps(shape.width, 1024));
      });
}

void scale_add_norm_to(const char* op, const Tensor& x, const Tensor& out, const Tensor& residual,
                       const Tensor& residual_out, const Tensor& bank, const Tensor& slots,
                       const std::optional<Tensor>& negative_slots, const Tensor& weight,
                       const std::optional<Tensor>& bias, double epsilon, bool is_layer_norm) {
  check_norm(op, x, residual, weight, bias);
  const BankView view = bank_view(op, bank, slots, negative_slots, x.size(0), x.size(1));
  check_types(op, x, view);
  if (is_layer_norm) {
    run<true>(op, x, out, residual, residual_out, view, weight, bias, epsilon);
  } else {
    run<false>(op, x, out, residual, residual_out, view, weight, bias, epsilon);
  }
}

void scale_add_norm_(Tensor x, Tensor residual, Tensor bank, Tensor slots,
                     std::optional<Tensor> negative_slots, Tensor weight,
                     std::optional<Tensor> bias, double epsilon, bool is_layer_norm) {
  scale_add_norm_to("scale_add_norm_", x, x, residual, residual, bank, slots, negative_slots,
                    weight, bias, epsilon, is_layer_norm);
}

std::tuple<Tensor, Tensor> scale_add_norm(Tensor x, Tensor residual, Tensor bank, Tensor slots,
                                          std::optional<Tensor> negative_slots, Tensor weight,
                                          std::optional<Tensor> bias, double epsilon,
                                          bool is_layer_norm) {
  Tensor out = torch::stable::empty_like(x);
  Tensor residual_out = torch::stable::empty_like(residual);
  scale_add_norm_to("scale_add_norm", x, out, residual, residual_out, bank, slots, negative_slots,
                    weight, bias, epsilon, is_layer_norm);
  return {out, residual_out};
}

}  // namespace
}  // namespace propulsion

STABLE_TORCH_LIBRARY_IMPL(propulsion, PROPULSION_DEVICE, m) {
  m.impl("scale_add_norm_", TORCH_BOX(&propulsion::scale_add_norm_));
  m.impl("scale_add_norm", TORCH_BOX(&propulsion::scale_add_norm));
}
