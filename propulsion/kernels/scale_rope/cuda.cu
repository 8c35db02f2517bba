// Packed queries, keys and values times their scales, and the rotary embedding of queries and keys,
// in one read and one write; see reference.py.

#include "propulsion/bank.cuh"

namespace propulsion {
namespace {

struct Shape {
  int64_t num_tokens, stride, out_stride, cache_stride;
  int heads;       // of queries and keys
  int head_size;
  int rotary_dim;  // of a head; what is left of it is scaled alone
  int value_width;
};

// Values of a head or of the value part that one thread handles at a time:
//   a pair of vectors `kN` wide, half the rotary dimension apart (NeoX), or
//   a vector of kN / 2 neighbouring pairs (GPT-J), or
//   a vector that is not rotated.
// Each is one item; items of a token are numbered head by head, the values last.
template <bool kIsNeox, int kN>
struct Items {
  // Values that an item of the rotated part covers. Scalar GPT-J still takes a pair.
  static constexpr int kRotated = kIsNeox || kN == 1 ? 2 * kN : kN;

  int rotated, of_head, of_heads, all;

  __device__ __forceinline__ explicit Items(const Shape& shape)
      : rotated(shape.rotary_dim / kRotated),
        of_head(rotated + (shape.head_size - shape.rotary_dim) / kN),
        of_heads(of_head * shape.heads),
        all(of_heads + shape.value_width / kN) {}
};

// (a, b) -> (a cos - b sin, b cos + a sin)
__device__ __forceinline__ void rotate(float& a, float& b, float cosine, float sine) {
  const float first = a * cosine - b * sine;
  b = b * cosine + a * sine;
  a = first;
}

template <bool kIsNeox, int kN, typename X, typename Row>
__device__ __forceinline__ void rotate_item(const X* from, X* to, const TokenScale<Row>& scale,
                                            const X* cosines, int64_t head, int item, int half) {
  if constexpr (kIsNeox || kN == 1) {
    const int64_t a = head + (kIsNeox ? item * kN : 2 * item);
    const int64_t b = a + (kIsNeox ? half : 1);
    float of_a[kN], of_b[kN], cosine[kN], sine[kN];
    load(of_a, from + a);
    load(of_b, from + b);
    load_constant(cosine, cosines + item * kN);
    load_constant(sine, cosines + half + item * kN);
    scale.apply(of_a, a);
    scale.apply(of_b, b);
#pragma unroll
    for (int i = 0; i < kN; ++i) rotate(of_a[i], of_b[i], cosine[i], sine[i]);
    store(to + a, of_a);
    store(to + b, of_b);
  } else {
    const int64_t first = head + item * kN;
    float values[kN], cosine[kN / 2], sine[kN / 2];
    load(values, from + first);
    load_constant(cosine, cosines + item * (kN / 2));
    load_constant(sine, cosines + half + item * (kN / 2));
    scale.apply(values, first);
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) rotate(values[2 * i], values[2 * i + 1], cosine[i], sine[i]);
    store(to + first, values);
  }
}

template <bool kIsNeox, int kN, typename X, typename Row>
__global__ void __launch_bounds__(256)
    scale_rope_kernel(const X* x, X* out, Bank<Row> bank, const int64_t* __restrict__ positions,
                      const X* __restrict__ cos_sin, Shape shape) {
  const Items<kIsNeox, kN> items(shape);
  const int half = shape.rotary_dim / 2;
  const int step = static_cast<int>(gridDim.x * blockDim.x);
  for (int64_t token = blockIdx.y; token < shape.num_tokens; token += gridDim.y) {
    const TokenScale<Row> scale = bank.of_token(token);
    const X* from = x + token * shape.stride;
    X* to = out + token * shape.out_stride;
    const X* cosines = cos_sin + __ldg(positions + token) * shape.cache_stride;
    for (int item = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); item < items.all;
         item += step) {
      int64_t column;
      if (item < items.of_heads) {
        const int head = item / items.of_head, part = item % items.of_head;
        column = static_cast<int64_t>(head) * shape.head_size;
        if (part < items.rotated) {
          rotate_item<kIsNeox, kN>(from, to, scale, cosines, column, part, half);
          continue;
        }
        column += shape.rotary_dim + (part - items.rotated) * kN;
      } else {
        column = static_cast<int64_t>(shape.heads) * shape.head_size +
                 static_cast<int64_t>(item - items.of_heads) * kN;
      }
      if (x == out && scale.is_base()) continue;
      float values[kN];
      load(values, from + column);
      scale.apply(values, column);
      store(to + column, values);
    }
  }
}

template <bool kIsNeox>
void run(const char* op, const Tensor& qkv, const Tensor& out, const BankView& view,
         const Tensor& positions, const Tensor& cos_sin, const Shape& shape) {
  const DeviceStream device(qkv);
  const auto start = [&](auto kernel, auto type, const auto& bank, int vector) {
    using X = typename decltype(type)::type;
    const int64_t items =
        ceil_div(static_cast<int64_t>(shape.heads) * shape.head_size + shape.value_width, vector);
    const int threads = round_to_warps(items, 256);
    const dim3 grid(static_cast<unsigned>(ceil_div(items, threads)),
                    static_cast<unsigned>(std::min(shape.num_tokens, kMaxGridY)));
    launch(op, device, grid, dim3(threads), kernel, values_of<X>(qkv), values_of<X>(out), bank,
           values_of<int64_t>(positions), values_of<X>(cos_sin), shape);
  };
  with_bank(
      op, qkv.scalar_type(), view,
      [&](auto type) {
        using X = typename decltype(type)::type;
        constexpr int kN = kVector<X>;
        // A GPT-J vector takes half as many cosines as values.
        constexpr int kCosines = kIsNeox ? kN : kN / 2;
        return shape.head_size % kN == 0 && shape.value_width % kN == 0 &&
               shape.rotary_dim % (kIsNeox ? 2 * kN : kN) == 0 &&
               rows_are_aligned(values_of<X>(qkv), shape.stride, kN) &&
               rows_are_aligned(values_of<X>(out), shape.out_stride, kN) &&
               rows_are_aligned(values_of<X>(cos_sin), shape.cache_stride, kCosines) &&
               rows_are_aligned(values_of<X>(cos_sin), shape.rotary_dim / 2, kCosines);
      },
      [&](auto type, auto bank) {
        using X = typename decltype(type)::type;
        constexpr int kN = kVector<X>;
        start(&scale_rope_kernel<kIsNeox, kN, X, decltype(bank.rows)>, type, bank, kN);
      },
      [&](auto type, auto bank) {
        using X = typename decltype(type)::type;
        start(&scale_rope_kernel<kIsNeox, 1, X, decltype(bank.rows)>, type, bank, 1);
      });
}

void scale_rope_to(const char* op, const Tensor& qkv, const Tensor& out, const Tensor& bank,
                   const Tensor& slots, const std::optional<Tensor>& negative_slots,
                   const Tensor& positions, const Tensor& cos_sin, int64_t heads,
                   int64_t head_size, bool is_neox) {
  const RopeView rope = rope_view(op, qkv, positions, cos_sin, heads, head_size);
  const BankView view = bank_view(op, bank, slots, negative_slots, qkv.size(0), qkv.size(1));
  check_types(op, qkv, view);
  const Shape shape{qkv.size(0),
                    qkv.stride(0),
                    out.stride(0),
                    cos_sin.stride(0),
                    static_cast<int>(heads),
                    static_cast<int>(head_size),
                    static_cast<int>(rope.rotary_dim),
                    static_cast<int>(rope.value_width)};
  if (shape.num_tokens == 0 || qkv.size(1) == 0) return;
  if (is_neox) {
    run<true>(op, qkv, out, view, positions, cos_sin, shape);
  } else {
    run<false>(op, qkv, out, view, positions, cos_sin, shape);
  }
}

void scale_rope_(Tensor qkv, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots,
                 Tensor positions, Tensor cos_sin, int64_t heads, int64_t head_size,
                 bool is_neox) {
  scale_rope_to("scale_rope_", qkv, qkv, bank, slots, negative_slots, positions, cos_sin, heads,
                head_size, is_neox);
}

Tensor scale_rope(Tensor qkv, Tensor bank, Tensor slots, std::optional<Tensor> negative_slots,
                  Tensor positions, Tensor cos_sin, int64_t heads, int64_t head_size,
                  bool is_neox) {
  Tensor out = torch::stable::empty_like(qkv);
  scale_rope_to("scale_rope", qkv, out, bank, slots, negative_slots, positions, cos_sin, heads,
                head_size, is_neox);
  return out;
}

}  // namespace
}  // namespace propulsion

STABLE_TORCH_LIBRARY_IMPL(propulsion, PROPULSION_DEVICE, m) {
  m.impl("scale_rope_", TORCH_BOX(&propulsion::scale_rope_));
  m.impl("scale_rope", TORCH_BOX(&propulsion::scale_rope));
}
