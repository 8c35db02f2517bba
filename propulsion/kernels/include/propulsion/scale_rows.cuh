// out[t, r, :] = Epilogue(x[t, r, :] * s[t, :]): one read and one write of every value.

#pragma once

#include "propulsion/bank.cuh"
#include "propulsion/launch.cuh"

namespace propulsion {

struct ScaledRows {
  int64_t num_rows;  // tokens * repeats
  int64_t repeats, width;
  int64_t token_stride, repeat_stride;
  int64_t out_token_stride, out_repeat_stride;
};

// A thread takes kN values that lie together, and neighbours the next ones; what is left of a row
// that is no multiple of kN is done one value a thread. x may be out, so neither is __restrict__.
template <typename Epilogue, int kN, typename X, typename Row>
__global__ void __launch_bounds__(256)
    scale_rows_kernel(const X* x, X* out, Bank<Row> bank, ScaledRows shape) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t num_threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const int64_t whole = shape.width - shape.width % kN;
  for (int64_t row = blockIdx.y; row < shape.num_rows; row += gridDim.y) {
    const int64_t token = shape.repeats == 1 ? row : row / shape.repeats;
    const int64_t repeat = row - token * shape.repeats;
    const TokenScale<Row> scale = bank.of_token(token);
    if (Epilogue::kIsIdentity && x == out && scale.is_base()) continue;
    const X* from = x + token * shape.token_stride + repeat * shape.repeat_stride;
    X* to = out + token * shape.out_token_stride + repeat * shape.out_repeat_stride;
    const auto transform = [&](auto& values, int64_t column) {
      load(values, from + column);
      scale.apply(values, column);
#pragma unroll
      for (auto& value : values) value = Epilogue::of(value);
      store(to + column, values);
    };
    for (int64_t column = thread * kN; column < whole; column += num_threads * kN) {
      float values[kN];
      transform(values, column);
    }
    if constexpr (kN > 1) {
      for (int64_t column = whole + thread; column < shape.width; column += num_threads) {
        float value[1];
        transform(value, column);
      }
    }
  }
}

// A block takes up to 256 vectors of a row, the grid's x the rest of it, and its y the rows: even
// one token's row is spread over several processors, and many rows need no loop but the grid's.
template <typename Epilogue>
void scale_rows(const char* op, const Tensor& x, const Tensor& out, const BankView& view) {
  const RowsView from = rows_view(op, x), to = rows_view(op, out);
  check_types(op, x, view);
  const ScaledRows shape{from.num_tokens * from.repeats,
                         from.repeats,
                         from.width,
                         from.token_stride,
                         from.repeat_stride,
                         to.token_stride,
                         to.repeat_stride};
  if (shape.num_rows == 0 || shape.width == 0) return;
  const DeviceStream device(x);
  const auto start = [&](auto kernel, const auto* in, auto* to_values, const auto& bank, int vector) {
    const int64_t vectors = ceil_div(shape.width, vector);
    const int threads = round_to_warps(vectors, 256);
    const dim3 grid(static_cast<unsigned>(ceil_div(vectors, threads)),
                    static_cast<unsigned>(std::min(shape.num_rows, kMaxGridY)));
    launch(op, device, grid, dim3(threads), kernel, in, to_values, bank, shape);
  };
  with_bank(
      op, x.scalar_type(), view,
      [&](auto type) {
        using X = typename decltype(type)::type;
        const X *in = values_of<X>(x), *result = values_of<X>(out);
        return rows_are_aligned(in, shape.token_stride, kVector<X>) &&
               rows_are_aligned(in, shape.repeat_stride, kVector<X>) &&
               rows_are_aligned(result, shape.out_token_stride, kVector<X>) &&
               rows_are_aligned(result, shape.out_repeat_stride, kVector<X>);
      },
      [&](auto type, auto bank) {
        using X = typename decltype(type)::type;
        start(&scale_rows_kernel<Epilogue, kVector<X>, X, decltype(bank.rows)>, values_of<X>(x),
              values_of<X>(out), bank, kVector<X>);
      },
      [&](auto type, auto bank) {
        using X = typename decltype(type)::type;
        start(&scale_rows_kernel<Epilogue, 1, X, decltype(bank.rows)>, values_of<X>(x),
              values_of<X>(out), bank, 1);
      });
}

}  // namespace propulsion
