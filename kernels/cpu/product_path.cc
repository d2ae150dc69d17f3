#include "kernels/cpu/product_path.h"

#include <algorithm>

#include "kernels/cpu/workspace.h"

namespace troupe {
namespace {

constexpr int64_t kFloatBytes = DTypeBytes(DType::kFloat32);

int64_t RoundedUp(int64_t count, int64_t block) { return (count + block - 1) / block * block; }

int64_t SpreadBytes(const CpuCapabilities& cpu, const ConstTensorView& view) {
  return AlignedBytes(view.rows() * SpreadStride(cpu, view.row_elements()) * kFloatBytes);
}

// Of operands whose rows lie as badly as rows can, by shape alone.
ProductOperands WorstOperands(ProductOp op, const MatmulShape& s, DType result) {
  const auto matrix = [](DType dtype, int64_t rows, int64_t columns) {
    return ConstTensorView(nullptr, dtype, {rows, columns}, RoundedUp(columns, 128));
  };
  const ConstTensorView x = matrix(s.dtype, s.tokens, s.in), w = matrix(s.dtype, s.out, s.in);
  const ConstTensorView dy = matrix(s.dtype, s.tokens, s.out);
  switch (op) {
    case ProductOp::kForward:
      return {matrix(result, s.tokens, s.out), x, w};
    case ProductOp::kInputGrad:
      return {matrix(result, s.tokens, s.in), dy, w};
    case ProductOp::kWeightGrad:
      return {matrix(DType::kFloat32, s.out, s.in), dy, x};
  }
  return {};
}

}  // namespace

const char* ProductOpName(ProductOp op) {
  switch (op) {
    case ProductOp::kForward:
      return "MatmulForward";
    case ProductOp::kInputGrad:
      return "MatmulInputGrad";
    case ProductOp::kWeightGrad:
      return "MatmulWeightGrad";
  }
  return "?";
}

MatmulShape LayerOf(ProductOp op, const ProductOperands& o) {
  const DType dtype = o.a.dtype();
  switch (op) {
    case ProductOp::kForward:
      return {o.c.rows(), o.a.row_elements(), o.c.row_elements(), dtype};
    case ProductOp::kInputGrad:
      return {o.c.rows(), o.c.row_elements(), o.a.row_elements(), dtype};
    case ProductOp::kWeightGrad:
      return {o.a.rows(), o.c.row_elements(), o.c.rows(), dtype};
  }
  return {};
}

ProductPath PathOf(const CpuCapabilities& cpu, ProductOp op, const ProductOperands& o,
                   bool b_is_packed) {
  ProductPath path{.inputs = MultipliedAs(cpu, o.a.dtype())};
  if (path.inputs != o.a.dtype()) {
    path.a_copy = SpreadBytes(cpu, o.a);
    if (!b_is_packed) path.b_copy = SpreadBytes(cpu, o.b);
    if (o.c.dtype() != path.inputs) path.c_copy = AlignedBytes(o.c.num_elements() * kFloatBytes);
    return path;
  }
  // Operands that change from call to call: no packed copy of them lies well, so one is made where
  // that pays. (Packing x first was measured with AVX-512: it costs what it gains.)
  if (op != ProductOp::kWeightGrad || path.inputs != DType::kFloat32) return path;
  const auto lies_well = [&](const ConstTensorView& view) {
    return SpreadStride(cpu, view.row_stride()) == view.row_stride();
  };
  if (!lies_well(o.a)) path.a_copy = SpreadBytes(cpu, o.a);
  if (!lies_well(o.b)) path.b_copy = SpreadBytes(cpu, o.b);
  return path;
}

int64_t LargestPathBytes(const CpuCapabilities& cpu, const MatmulShape& shape) {
  int64_t largest = 0;
  for (const ProductOp op : {ProductOp::kForward, ProductOp::kInputGrad, ProductOp::kWeightGrad}) {
    for (const DType result : {shape.dtype, DType::kFloat32}) {
      const ProductPath path = PathOf(cpu, op, WorstOperands(op, shape, result), false);
      largest = std::max(largest, path.num_bytes());
    }
  }
  return largest;  // a widened weight, which PackWeight takes, is one of Forward's copies
}

DType MultipliedAs(const CpuCapabilities& cpu, DType dtype) {
  return dtype == DType::kBFloat16 && !cpu.bfloat16_products ? DType::kFloat32 : dtype;
}

int64_t SpreadStride(const CpuCapabilities& cpu, int64_t columns) {
  constexpr int64_t kLine = 16;  // elements
  const int64_t lines = RoundedUp(columns, kLine) / kLine;
  return !cpu.blocked_products && lines % 8 == 0 ? (lines + 1) * kLine : columns;
}

int64_t PackedOperandBytes(const CpuCapabilities& cpu, const MatmulShape& s, WeightUse use) {
  const bool transposed = use == WeightUse::kForward;
  const int64_t depth = transposed ? s.in : s.out;
  const int64_t columns = transposed ? s.out : s.in;
  const int64_t item = DTypeBytes(MultipliedAs(cpu, s.dtype));
  if (cpu.blocked_products) return RoundedUp(columns, 64) * RoundedUp(depth, 64 / item) * item;
  const int64_t stride = SpreadStride(cpu, columns);
  return transposed || stride != columns ? depth * stride * item : 0;
}

int64_t ProductScratchBytes(const CpuCapabilities& cpu) {
  return cpu.blocked_products ? int64_t{2} << 20 : 0;
}

}  // namespace troupe
