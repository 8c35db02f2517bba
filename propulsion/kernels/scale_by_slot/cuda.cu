// V * s[slot] for training and its gradients, s and its gradient in fp32; see reference.py and
// tiles.py.

#include "propulsion/launch.cuh"
#include "propulsion/vectors.cuh"

namespace propulsion {
namespace {

constexpr int kTileRows = 128;  // tiles.py
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;

struct Shape {
  int64_t num_rows, width, rows_per_group;
  bool is_pair;  // two scales, the second where V < 0
};

template <int N>
__device__ __forceinline__ void multiply(float (&values)[N], const float* above,
                                         const float* below, const float (&signs)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) values[i] *= signs[i] < 0.0f ? below[i] : above[i];
}

template <int kN, typename X>
__global__ void __launch_bounds__(256)
    scale_kernel(const X* __restrict__ values, const float* __restrict__ scales,
                 const int64_t* __restrict__ slots, X* __restrict__ result, Shape shape) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * kN;
  for (int64_t row = blockIdx.y; row < shape.num_rows; row += gridDim.y) {
    const int64_t slot = slots == nullptr ? 0 : __ldg(slots + row / shape.rows_per_group);
    const float* of_slot = scales + slot * (shape.is_pair ? 2 : 1) * shape.width;
    for (int64_t column = thread * kN; column < shape.width; column += step) {
      float value[kN], above[kN], below[kN];
      load_constant(value, values + row * shape.width + column);
      load_constant(above, of_slot + column);
      if (shape.is_pair) {
        load_constant(below, of_slot + shape.width + column);
        multiply(value, above, below, value);
      } else {
        multiply(value, above, above, value);
      }
      store(result + row * shape.width + column, value);
    }
  }
}

struct TilesView {
  const int64_t* slot;  // all null: one slot, and tiles in the order of the rows
  const int64_t* start;
  const int64_t* end;
  const int64_t* groups;
};

// A block is a tile of rows of one slot, by kN columns of each lane of a warp. Its warps take the rows
// in turns and add up g * V in registers; then the warps' sums are added in shared memory, always in
// the same order. Lanes lie side by side there, so no two of a warp meet in a bank.
template <int kN, typename X>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const X* __restrict__ grad, const X* __restrict__ values,
                    const float* __restrict__ scales, X* __restrict__ grad_values,
                    float* __restrict__ partial, TilesView tiles, Shape shape) {
  __shared__ float of_warps[kWarps][kN][kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t tile = blockIdx.x;
  const int64_t block_column = static_cast<int64_t>(blockIdx.y) * kWarp * kN;
  const int64_t column = block_column + lane * kN;
  const bool is_inside = column < shape.width;
  const int64_t start = tiles.slot == nullptr ? tile * kTileRows : tiles.start[tile];
  const int64_t end = tiles.slot == nullptr ? shape.num_rows : tiles.end[tile];
  const int64_t last = end < start + kTileRows ? end : start + kTileRows;
  const int64_t num_scale_rows = shape.is_pair ? 2 : 1;
  const int64_t slot = tiles.slot == nullptr ? 0 : tiles.slot[tile];

  float above[kN] = {}, below[kN] = {}, sum_above[kN] = {}, sum_below[kN] = {};
  if (is_inside) {
    const float* of_slot = scales + slot * num_scale_rows * shape.width + column;
    load_constant(above, of_slot);
    if (shape.is_pair) {
      load_constant(below, of_slot + shape.width);
    } else {
      load_constant(below, of_slot);
    }
#pragma unroll 4
    for (int64_t index = start + warp; index < last; index += kWarps) {
      int64_t row = index;
      if (tiles.slot != nullptr) {
        const int64_t group = index / shape.rows_per_group;
        row += (__ldg(tiles.groups + group) - group) * shape.rows_per_group;
      }
      const int64_t offset = row * shape.width + column;
      float upstream[kN], value[kN];
      load_constant(upstream, grad + offset);
      load_constant(value, values + offset);
      if (partial != nullptr) {
#pragma unroll
        for (int i = 0; i < kN; ++i) {
          const float product = upstream[i] * value[i];
          const bool is_below = shape.is_pair && value[i] < 0.0f;
          sum_above[i] += is_below ? 0.0f : product;
          sum_below[i] += is_below ? product : 0.0f;
        }
      }
      if (grad_values != nullptr) {
        multiply(upstream, above, below, value);
        store(grad_values + offset, upstream);
      }
    }
  }
  if (partial == nullptr) return;

  float* sums = partial + tile * num_scale_rows * shape.width + block_column;
  const auto add_up = [&](const float (&of_thread)[kN], float* to) {
#pragma unroll
    for (int i = 0; i < kN; ++i) of_warps[warp][i][lane] = of_thread[i];
    __syncthreads();
    for (int item = static_cast<int>(threadIdx.x); item < kN * kWarp; item += kThreads) {
      const int i = item / kWarp, of_lane = item % kWarp;
      float sum = 0.0f;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) sum += of_warps[w][i][of_lane];
      const int64_t offset = of_lane * kN + i;
      if (block_column + offset < shape.width) to[offset] = sum;
    }
    __syncthreads();
  };
  add_up(sum_above, sums);
  if (shape.is_pair) add_up(sum_below, sums + shape.width);
}

Shape shape_of(const char* op, const Tensor& values, const Tensor& scales,
               const std::optional<Tensor>& groups) {
  const GroupsView view = groups_view(op, values, scales, groups);
  return {view.num_rows, view.width, view.rows_per_group, scales.size(1) == 2};
}

// Whether whole rows, one after another, are made of vectors of kN values.
template <int kN, typename X>
bool in_vectors(const Shape& shape, const float* scales, const X* first, const X* second,
                const X* third) {
  return shape.width % kN == 0 && is_aligned(scales, 16) && is_aligned(first, 16) &&
         is_aligned(second, 16) && is_aligned(third, 16);
}

Tensor scale_by_slot(Tensor values, Tensor scales, std::optional<Tensor> slots) {
  constexpr const char* kOp = "scale_by_slot";
  const Shape shape = shape_of(kOp, values, scales, slots);
  const int64_t* of_groups = indices(kOp, slots, scales.size(0));
  Tensor result = torch::stable::empty_like(values);
  if (shape.num_rows == 0 || shape.width == 0) return result;
  const DeviceStream device(values);
  with_type(kOp, values.scalar_type(), [&](auto of_x) {
    using X = typename decltype(of_x)::type;
    constexpr int kN = kVector<X>;
    const X* from = static_cast<const X*>(values.data_ptr());
    X* to = static_cast<X*>(result.data_ptr());
    const float* of_slots = static_cast<const float*>(scales.data_ptr());
    const auto start = [&](auto kernel, int vector) {
      const int64_t vectors = ceil_div(shape.width, vector);
      const int threads = round_to_warps(vectors, 256);
      const dim3 grid(static_cast<unsigned>(ceil_div(vectors, threads)),
                      static_cast<unsigned>(std::min(shape.num_rows, kMaxGridY)));
      launch(kOp, device, grid, dim3(threads), kernel, from, of_slots, of_groups, to, shape);
    };
    if (in_vectors<kN>(shape, of_slots, from, to, from)) {
      start(&scale_kernel<kN, X>, kN);
    } else {
      start(&scale_kernel<1, X>, 1);
    }
  });
  return result;
}

std::tuple<Tensor, Tensor> scale_by_slot_tiles(Tensor grad, Tensor values, Tensor scales,
                                               std::optional<Tensor> tile_slot,
                                               std::optional<Tensor> tile_start,
                                               std::optional<Tensor> tile_end,
                                               std::optional<Tensor> groups, int64_t num_tiles,
                                               bool needs_values, bool needs_scales) {
  constexpr const char* kOp = "scale_by_slot_tiles";
  const Shape shape = shape_of(kOp, values, scales, groups);
  check_like(kOp, grad, values);
  const TilesView tiles{indices(kOp, tile_slot, scales.size(0)),
                        indices(kOp, tile_start, shape.num_rows + 1),
                        indices(kOp, tile_end, shape.num_rows + 1),
                        indices(kOp, groups, groups.has_value() ? groups->size(0) : 0)};
  Tensor grad_values = torch::stable::new_empty(
      values, {needs_values ? shape.num_rows : 0, shape.width});
  Tensor partial = torch::stable::new_empty(
      scales, {needs_scales ? num_tiles : 0, scales.size(1), shape.width});
  if (num_tiles == 0 || shape.width == 0) return {grad_values, partial};
  const DeviceStream device(values);
  with_type(kOp, values.scalar_type(), [&](auto of_x) {
    using X = typename decltype(of_x)::type;
    constexpr int kN = kVector<X>;
    const X* upstream = static_cast<const X*>(grad.data_ptr());
    const X* from = static_cast<const X*>(values.data_ptr());
    X* to = needs_values ? static_cast<X*>(grad_values.data_ptr()) : nullptr;
    float* sums = needs_scales ? static_cast<float*>(partial.data_ptr()) : nullptr;
    const float* of_slots = static_cast<const float*>(scales.data_ptr());
    const auto start = [&](auto kernel, int vector) {
      const dim3 grid(static_cast<unsigned>(num_tiles),
                      static_cast<unsigned>(ceil_div(shape.width, kWarp * vector)));
      launch(kOp, device, grid, dim3(kThreads), kernel, upstream, from, of_slots, to, sums, tiles,
             shape);
    };
    if (in_vectors<kN, X>(shape, of_slots, upstream, from, to)) {
      start(&backward_kernel<kN, X>, kN);
    } else {
      start(&backward_kernel<1, X>, 1);
    }
  });
  return {grad_values, partial};
}

}  // namespace
}  // namespace propulsion

STABLE_TORCH_LIBRARY_IMPL(propulsion, PROPULSION_DEVICE, m) {
  m.impl("scale_by_slot", TORCH_BOX(&propulsion::scale_by_slot));
  m.impl("scale_by_slot_tiles", TORCH_BOX(&propulsion::scale_by_slot_tiles));
}
