// The z-bank on the device: which scale a token's values have.

#pragma once

#include "propulsion/bindings.h"
#include "propulsion/launch.cuh"
#include "propulsion/vectors.cuh"

namespace propulsion {

// One token's s - 1 for values >= 0 and for values < 0; null where it is the base model's. Row is
// `const B*`, or AnyFloats.
template <typename Row>
struct TokenScale {
  Row above, below;

  __device__ __forceinline__ bool is_base() const { return above == nullptr && below == nullptr; }

  // values[i] *= s[column + i]. Neighbours share the branches, which hang on the token alone.
  template <int N>
  __device__ __forceinline__ void apply(float (&values)[N], int64_t column) const {
    if (above == below) {
      if (above == nullptr) return;
      float offset[N];
      load_constant(offset, above + column);
#pragma unroll
      for (int i = 0; i < N; ++i) values[i] *= 1.0f + offset[i];
      return;
    }
    float of_above[N] = {}, of_below[N] = {};
    if (!(above == nullptr)) load_constant(of_above, above + column);
    if (!(below == nullptr)) load_constant(of_below, below + column);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] *= 1.0f + (values[i] < 0.0f ? of_below[i] : of_above[i]);
  }
};

template <typename Row>
struct Bank {
  Row rows;
  int64_t stride;
  int64_t num_rows;
  const int32_t* slots;
  const int32_t* negative;

  Bank(Row rows, const BankView& view)
      : rows(rows),
        stride(view.stride),
        num_rows(view.num_rows),
        slots(view.slots),
        negative(view.negative) {}

  __device__ __forceinline__ TokenScale<Row> of_token(int64_t token) const {
    const Row above = row(__ldg(slots + token));
    return {above, negative == nullptr ? above : row(__ldg(negative + token))};
  }

 private:
  // A kernel cannot raise an error, so a slot beyond the bank is the base model's too.
  __device__ __forceinline__ Row row(int32_t slot) const {
    return slot <= 0 || slot >= num_rows ? Row{} : rows + slot * stride;
  }
};

// Calls `in_vectors(type of x, bank)` where all rows can be read in vectors of x's, and
// `one_by_one(type of x, bank)` elsewhere. Vectors want a bank in fp32 or in x's own type: other pairs
// are not worth kernels of their own. `is_aligned(type of x)` says what x and the shapes allow.
template <typename IsAligned, typename InVectors, typename OneByOne>
void with_bank(const char* op, ScalarType of_x, const BankView& view, IsAligned&& is_aligned,
               InVectors&& in_vectors, OneByOne&& one_by_one) {
  with_type(op, of_x, [&](auto type) {
    using X = typename decltype(type)::type;
    const auto is_in_vectors = [&](auto* rows) {
      return is_aligned(type) && rows_are_aligned(rows, view.stride, kVector<X>);
    };
    const auto* floats = static_cast<const float*>(view.rows);
    const auto* likes = static_cast<const X*>(view.rows);
    if (view.dtype == ScalarType::Float && is_in_vectors(floats)) {
      in_vectors(type, Bank<const float*>(floats, view));
    } else if (view.dtype == of_x && is_in_vectors(likes)) {
      in_vectors(type, Bank<const X*>(likes, view));
    } else {
      one_by_one(type, Bank<AnyFloats>({view.rows, view.dtype}, view));
    }
  });
}

}  // namespace propulsion
