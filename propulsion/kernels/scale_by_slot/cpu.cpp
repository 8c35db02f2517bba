// V * s[slot] for training and its gradients; see reference.py and tiles.py.

#include "propulsion/cpu.h"

namespace propulsion::cpu {
namespace {

constexpr int64_t kTileRows = 128;  // tiles.py

FOR_EVERY_PROCESSOR void multiply(float* __restrict__ values, const float* __restrict__ scales,
                                  int64_t size) {
  for (int64_t i = 0; i < size; ++i) values[i] *= scales[i];
}

// By the sign of `signs`, which are the values.
FOR_EVERY_PROCESSOR void multiply_by_sign(float* __restrict__ values,
                                          const float* __restrict__ signs,
                                          const float* __restrict__ above,
                                          const float* __restrict__ below, int64_t size) {
  for (int64_t i = 0; i < size; ++i) values[i] *= signs[i] < 0 ? below[i] : above[i];
}

FOR_EVERY_PROCESSOR void add_products(float* __restrict__ sums, const float* __restrict__ grad,
                                      const float* __restrict__ values, int64_t size) {
  for (int64_t i = 0; i < size; ++i) sums[i] += grad[i] * values[i];
}

FOR_EVERY_PROCESSOR void add_products_by_sign(float* __restrict__ above, float* __restrict__ below,
                                              const float* __restrict__ grad,
                                              const float* __restrict__ values, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    const float product = grad[i] * values[i];
    above[i] += values[i] < 0 ? 0.0f : product;
    below[i] += values[i] < 0 ? product : 0.0f;
  }
}

// The scales of one slot, two rows where it is a pair.
struct Scales {
  const float* above;
  const float* below;  // null: the same

  void apply(float* values, const float* signs, int64_t column, int64_t size) const {
    if (below == nullptr) return multiply(values, above + column, size);
    multiply_by_sign(values, signs, above + column, below + column, size);
  }
};

Scales scales_of(const Tensor& scales, int64_t slot) {
  const int64_t rows = scales.size(1), width = scales.size(2);
  const float* above = static_cast<const float*>(scales.data_ptr()) + slot * rows * width;
  return {above, rows == 2 ? above + width : nullptr};
}

Tensor scale_by_slot(Tensor values, Tensor scales, std::optional<Tensor> slots) {
  constexpr const char* kOp = "scale_by_slot";
  const GroupsView groups = groups_view(kOp, values, scales, slots);
  const int64_t* of_groups = indices(kOp, slots, scales.size(0));
  Tensor result = torch::stable::empty_like(values);
  const int64_t width = groups.width;
  with_type(kOp, values.scalar_type(), [&](auto of_x) {
    using X = typename decltype(of_x)::type;
    const X* from = static_cast<const X*>(values.data_ptr());
    X* to = static_cast<X*>(result.data_ptr());
    for_tokens(groups.num_rows, width, [&](int64_t row) {
      const Scales of_row =
          scales_of(scales, of_groups == nullptr ? 0 : of_groups[row / groups.rows_per_group]);
      by_pieces(width, [&](int64_t column, int64_t size) {
        float piece[kPiece], signs[kPiece];
        widened(from + row * width + column, piece, size);
        if (of_row.below != nullptr) std::copy_n(piece, size, signs);
        of_row.apply(piece, signs, column, size);
        narrowed(piece, to + row * width + column, size);
      });
    });
  });
  return result;
}

struct Tiles {
  const int64_t* slot;  // null: one slot, and tiles in the order of the rows
  const int64_t* start;
  const int64_t* end;
  const int64_t* groups;
};

// One tile, piece of columns by piece, so that its sums stay in the cache while rows go by.
template <typename X>
void tile_backward(const X* grad, const X* values, const Tensor& scales, const Tiles& tiles,
                   const GroupsView& groups, int64_t tile, X* grad_values, float* partial) {
  const int64_t start = tiles.slot == nullptr ? tile * kTileRows : tiles.start[tile];
  const int64_t end = tiles.slot == nullptr ? groups.num_rows : tiles.end[tile];
  const int64_t last = std::min(end, start + kTileRows);
  const Scales of_tile = scales_of(scales, tiles.slot == nullptr ? 0 : tiles.slot[tile]);
  const int64_t width = groups.width, num_scales = scales.size(1);
  by_pieces(width, [&](int64_t column, int64_t size) {
    float upstream[kPiece], value[kPiece];
    float* above = nullptr;
    if (partial != nullptr) {
      above = partial + tile * num_scales * width + column;
      for (int64_t i = 0; i < num_scales; ++i) std::fill_n(above + i * width, size, 0.0f);
    }
    for (int64_t index = start; index < last; ++index) {
      int64_t row = index;
      if (tiles.slot != nullptr) {
        const int64_t group = index / groups.rows_per_group;
        row += (tiles.groups[group] - group) * groups.rows_per_group;
      }
      const int64_t offset = row * width + column;
      widened(grad + offset, upstream, size);
      widened(values + offset, value, size);
      if (partial != nullptr && num_scales == 2) {
        add_products_by_sign(above, above + width, upstream, value, size);
      } else if (partial != nullptr) {
        add_products(above, upstream, value, size);
      }
      if (grad_values != nullptr) {
        of_tile.apply(upstream, value, column, size);
        narrowed(upstream, grad_values + offset, size);
      }
    }
  });
}

std::tuple<Tensor, Tensor> scale_by_slot_tiles(Tensor grad, Tensor values, Tensor scales,
                                               std::optional<Tensor> tile_slot,
                                               std::optional<Tensor> tile_start,
                                               std::optional<Tensor> tile_end,
                                               std::optional<Tensor> groups, int64_t num_tiles,
                                               bool needs_values, bool needs_scales) {
  constexpr const char* kOp = "scale_by_slot_tiles";
  const GroupsView view = groups_view(kOp, values, scales, groups);
  check_like(kOp, grad, values);
  const Tiles tiles{indices(kOp, tile_slot, scales.size(0)),
                    indices(kOp, tile_start, view.num_rows + 1),
                    indices(kOp, tile_end, view.num_rows + 1),
                    indices(kOp, groups, groups.has_value() ? groups->size(0) : 0)};
  Tensor grad_values =
      torch::stable::new_empty(values, {needs_values ? view.num_rows : 0, view.width});
  Tensor partial = torch::stable::new_empty(
      scales, {needs_scales ? num_tiles : 0, scales.size(1), view.width});
  with_type(kOp, values.scalar_type(), [&](auto of_x) {
    using X = typename decltype(of_x)::type;
    X* to = needs_values ? static_cast<X*>(grad_values.data_ptr()) : nullptr;
    float* sums = needs_scales ? static_cast<float*>(partial.data_ptr()) : nullptr;
    torch::stable::parallel_for(0, num_tiles, 1, [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end; ++tile) {
        tile_backward(static_cast<const X*>(grad.data_ptr()),
                      static_cast<const X*>(values.data_ptr()), scales, tiles, view, tile, to,
                      sums);
      }
    });
  });
  return {grad_values, partial};
}

}  // namespace
}  // namespace propulsion::cpu

STABLE_TORCH_LIBRARY_IMPL(propulsion, CPU, m) {
  m.impl("scale_by_slot", TORCH_BOX(&propulsion::cpu::scale_by_slot));
  m.impl("scale_by_slot_tiles", TORCH_BOX(&propulsion::cpu::scale_by_slot_tiles));
}
