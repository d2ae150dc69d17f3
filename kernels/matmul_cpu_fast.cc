#include <algorithm>

#include "kernels/cpu/fast_bodies.h"
#include "kernels/cpu/onednn_product.h"
#include "kernels/elementwise.h"

namespace troupe {
namespace {

constexpr int64_t kAlignment = 64;

int64_t Aligned(int64_t num_bytes) {
  return (num_bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Takes aligned pieces off the front of a workspace.
class Carver {
 public:
  explicit Carver(std::span<std::byte> workspace) : rest_(workspace) {}

  void* Take(int64_t num_bytes) {
    const auto size = static_cast<size_t>(Aligned(num_bytes));
    KERNEL_CHECK(size <= rest_.size(), "the workspace is smaller than MatmulWorkspaceBytes");
    void* piece = rest_.data();
    rest_ = rest_.subspan(size);
    return piece;
  }
  std::span<std::byte> rest() const { return rest_; }

 private:
  std::span<std::byte> rest_;
};

enum class Layer : uint8_t { kForward, kInputGrad, kWeightGrad };

bool Widens(DType dtype) { return dtype == DType::kBFloat16 && !HasBFloat16Products(); }

// The product of dense operands of one layer, as oneDNN sees it.
ProductShape DenseProduct(const MatmulShape& s, Layer layer) {
  ProductShape p{.inputs = s.dtype, .result = s.dtype};
  switch (layer) {
    case Layer::kForward:  // y = x W^T
      p = {.m = s.tokens,
           .n = s.out,
           .k = s.in,
           .a_row = s.in,
           .a_column = 1,
           .b_row = 1,
           .b_column = s.in};
      break;
    case Layer::kInputGrad:  // dx = dy W
      p = {.m = s.tokens,
           .n = s.in,
           .k = s.out,
           .a_row = s.out,
           .a_column = 1,
           .b_row = s.in,
           .b_column = 1};
      break;
    case Layer::kWeightGrad:  // dw = dy^T x
      p = {.m = s.out,
           .n = s.in,
           .k = s.tokens,
           .a_row = 1,
           .a_column = s.out,
           .b_row = s.in,
           .b_column = 1};
      break;
  }
  p.c_row = p.n;
  p.inputs = s.dtype;
  p.result = layer == Layer::kWeightGrad ? DType::kFloat32 : s.dtype;
  return p;
}

Layer LayerOf(WeightUse use) {
  return use == WeightUse::kForward ? Layer::kForward : Layer::kInputGrad;
}

// The shape that oneDNN is given.
MatmulShape MultipliedShape(MatmulShape shape) {
  if (Widens(shape.dtype)) shape.dtype = DType::kFloat32;
  return shape;
}

// Scratch over everything that may differ between calls of one layer with dense operands: result
// dtype, accumulation, packed b.
int64_t LargestScratch(const MatmulShape& shape, int num_threads) {
  int64_t largest = 0;
  for (const Layer layer : {Layer::kForward, Layer::kInputGrad, Layer::kWeightGrad}) {
    const ProductShape dense = DenseProduct(shape, layer);
    for (const int variant : {0, 1, 2, 3, 4, 5, 6, 7}) {
      ProductShape p = dense;
      p.num_threads = num_threads;
      p.accumulate = variant % 2 == 1;
      if (variant / 2 % 2 == 1) p.result = DType::kFloat32;
      if (variant / 4 == 1) p.b_is_packed = layer != Layer::kWeightGrad;
      if (!HasProduct(p)) continue;
      largest = std::max(largest, ProductScratchBytes(p));
    }
  }
  return largest;
}

// A matrix as an operand: (rows, columns) of the view, or its transpose.
struct Side {
  ConstTensorView view;
  bool transposed = false;
};

ProductShape ProductOf(const Exec& exec, const TensorView& c, const Side& a, const Side& b,
                       bool accumulate) {
  ProductShape p;
  p.m = c.rows();
  p.n = c.row_elements();
  p.k = a.transposed ? a.view.rows() : a.view.row_elements();
  p.a_row = a.transposed ? 1 : a.view.row_stride();
  p.a_column = a.transposed ? a.view.row_stride() : 1;
  p.b_row = b.transposed ? 1 : b.view.row_stride();
  p.b_column = b.transposed ? b.view.row_stride() : 1;
  p.c_row = c.row_stride();
  p.inputs = a.view.dtype();
  p.result = c.dtype();
  p.accumulate = accumulate;
  p.num_threads = exec.num_threads;
  return p;
}

// With `packed`, b in the packed layout, where oneDNN takes it; else b itself.
bool Multiply(const Exec& exec, const TensorView& c, const Side& a, const Side& b,
              const void* packed, bool accumulate, std::span<std::byte> scratch) {
  ProductShape p = ProductOf(exec, c, a, b, accumulate);
  p.b_is_packed = packed != nullptr;
  if (p.b_is_packed && HasProduct(p)) {
    RunProduct(p, c.data(), a.view.data(), packed, scratch);
    return true;
  }
  p.b_is_packed = false;
  if (b.view.dtype() != p.inputs || !HasProduct(p)) return false;
  RunProduct(p, c.data(), a.view.data(), b.view.data(), scratch);
  return true;
}

int64_t SpreadBytes(int64_t rows, int64_t columns) {
  return Aligned(rows * SpreadStride(columns) * DTypeBytes(DType::kFloat32));
}

// `in` as float32 in rows that lie well: itself, or a copy.
ConstTensorView Spread(const Exec& exec, Carver& workspace, const ConstTensorView& in) {
  if (in.dtype() == DType::kFloat32 && SpreadStride(in.row_stride()) == in.row_stride()) return in;
  const int64_t rows = in.rows(), columns = in.row_elements();
  const TensorView spread(workspace.Take(SpreadBytes(rows, columns)), DType::kFloat32,
                          {rows, columns}, SpreadStride(columns));
  Cast(exec, spread, in);
  return spread;
}

// bfloat16 operands on a CPU without bfloat16 products: widened, multiplied in float32, and the
// result rounded once.
bool MultiplyWidened(const Exec& exec, const TensorView& c, Side a, Side b, const void* packed,
                     bool accumulate) {
  Carver workspace(exec.workspace);
  a.view = Spread(exec, workspace, a.view);
  TensorView wide_c = c;
  if (c.dtype() != DType::kFloat32) {
    wide_c = TensorView(workspace.Take(c.num_elements() * 4), DType::kFloat32,
                        {c.rows(), c.row_elements()});
    if (accumulate) Cast(exec, wide_c, c);
  }
  if (packed == nullptr || !Multiply(exec, wide_c, a, b, packed, accumulate, workspace.rest())) {
    b.view = Spread(exec, workspace, b.view);
    if (!Multiply(exec, wide_c, a, b, nullptr, accumulate, workspace.rest())) return false;
  }
  if (wide_c.data() != c.data()) Cast(exec, c, wide_c);
  return true;
}

bool MultiplyByWeight(const Exec& exec, const TensorView& result, const ConstTensorView& left,
                      const PackedWeight& weight, WeightUse use, bool accumulate) {
  const bool fits = weight.use == use && weight.rows == left.rows();
  const Side a{left};
  const Side b{weight.weight, use == WeightUse::kForward};
  const void* packed = fits ? weight.packed : nullptr;
  if (Widens(left.dtype())) return MultiplyWidened(exec, result, a, b, packed, accumulate);
  return Multiply(exec, result, a, b, packed, accumulate, exec.workspace);
}

}  // namespace

int64_t MatmulWorkspaceBytes(const MatmulShape& shape, int num_threads) {
  if (shape.dtype == DType::kFloat64 || shape.tokens * shape.in * shape.out == 0) return 0;
  const int64_t scratch = Aligned(LargestScratch(MultipliedShape(shape), num_threads));
  if (!Widens(shape.dtype) && !SpreadsRows()) return scratch;
  const int64_t copies = SpreadBytes(shape.tokens, shape.in) + SpreadBytes(shape.tokens, shape.out);
  return scratch + copies + (Widens(shape.dtype) ? SpreadBytes(shape.out, shape.in) : 0);
}

int64_t PackedWeightBytes(const MatmulShape& shape, WeightUse use) {
  if (shape.dtype == DType::kFloat64 || shape.tokens * shape.in * shape.out == 0) return 0;
  const int64_t packed = PackedOperandBytes(DenseProduct(MultipliedShape(shape), LayerOf(use)));
  return Aligned(packed == 0 && Widens(shape.dtype) ? shape.out * shape.in * 4 : packed);
}

PackedWeight PackWeight(const Exec& exec, const MatmulShape& shape, WeightUse use,
                        ConstTensorView weight, std::span<std::byte> memory) {
  KERNEL_CHECK(exec.device == Device::kCpu, "weights are packed on the CPU");
  KERNEL_CHECK(weight.rows() == shape.out && weight.row_elements() == shape.in &&
                   weight.dtype() == shape.dtype,
               "the weight is (O, I)");
  PackedWeight packed = weight;
  packed.use = use;
  packed.rows = shape.tokens;
  const int64_t num_bytes = PackedWeightBytes(shape, use);
  if (num_bytes == 0 || exec.specification || !weight.is_dense()) return packed;
  KERNEL_CHECK(static_cast<int64_t>(memory.size()) >= num_bytes,
               "the memory is smaller than PackedWeightBytes");
  packed.packed = memory.data();
  const ProductShape product = DenseProduct(MultipliedShape(shape), LayerOf(use));
  const bool moves = PackedOperandBytes(product) > 0;
  if (Widens(shape.dtype)) {
    void* to = moves ? Carver(exec.workspace).Take(shape.out * shape.in * 4) : memory.data();
    const TensorView wide(to, DType::kFloat32, {shape.out, shape.in});
    Cast(exec, wide, weight);
    weight = wide;
  }
  if (moves) PackOperand(product, memory.data(), weight.data());
  return packed;
}

bool MatmulForwardFast(const Exec& exec, TensorView y, ConstTensorView x,
                       const PackedWeight& weight, bool accumulate) {
  return MultiplyByWeight(exec, y, x, weight, WeightUse::kForward, accumulate);
}

bool MatmulInputGradFast(const Exec& exec, TensorView dx, ConstTensorView dy,
                         const PackedWeight& weight, bool accumulate) {
  return MultiplyByWeight(exec, dx, dy, weight, WeightUse::kInputGrad, accumulate);
}

bool MatmulWeightGradFast(const Exec& exec, TensorView dw, ConstTensorView dy, ConstTensorView x,
                          bool accumulate) {
  Side a{dy, true}, b{x};
  if (Widens(dy.dtype())) return MultiplyWidened(exec, dw, a, b, nullptr, accumulate);
  // Packing x first was measured with AVX-512: it costs what it gains.
  Carver workspace(exec.workspace);
  a.view = Spread(exec, workspace, a.view);
  b.view = Spread(exec, workspace, b.view);
  return Multiply(exec, dw, a, b, nullptr, accumulate, workspace.rest());
}

}  // namespace troupe
