#include "kernels/cpu/fast_bodies.h"
#include "kernels/cpu/onednn_product.h"
#include "kernels/cpu/product_path.h"
#include "kernels/cpu/workspace.h"
#include "kernels/elementwise.h"

namespace troupe {
namespace {

bool IsEmpty(const MatmulShape& s) { return s.tokens * s.in * s.out == 0; }

std::string Described(const char* op, const MatmulShape& s) {
  return std::string(op) + " of " + std::to_string(s.tokens) + " tokens, " + std::to_string(s.in) +
         " channels in, " + std::to_string(s.out) + " out, " + DTypeName(s.dtype);
}

ProductOp OpOf(WeightUse use) {
  return use == WeightUse::kForward ? ProductOp::kForward : ProductOp::kInputGrad;
}

// The layer's weight as operand b, dense, for PackOperand and its questions.
ProductShape WeightProduct(const CpuCapabilities& cpu, const MatmulShape& s, WeightUse use) {
  ProductShape p{.m = s.tokens, .inputs = MultipliedAs(cpu, s.dtype)};
  const bool forward = use == WeightUse::kForward;
  p.n = forward ? s.out : s.in;
  p.k = forward ? s.in : s.out;
  p.b_row = forward ? 1 : s.in;
  p.b_column = forward ? s.in : 1;
  return p;
}

// A copy of `view` as the path makes one, in memory still to be taken; or the view itself.
ConstTensorView Spread(const CpuCapabilities& cpu, const ConstTensorView& view, int64_t copy) {
  if (copy == 0) return view;
  return {nullptr,
          DType::kFloat32,
          {view.rows(), view.row_elements()},
          SpreadStride(cpu, view.row_elements())};
}

// One product of dense or strided views on this CPU.
struct ViewProduct {
  ProductOp op;
  ProductOperands operands;
  ProductPath path{};
  ProductShape shape{};

  ViewProduct(const Exec& exec, ProductOp which, const ProductOperands& given, bool accumulate,
              bool b_is_packed)
      : op(which), operands(given) {
    const CpuCapabilities& cpu = ThisCpu();
    path = PathOf(cpu, op, operands, b_is_packed);
    const ConstTensorView a = Spread(cpu, operands.a, path.a_copy);
    const ConstTensorView b = Spread(cpu, operands.b, path.b_copy);
    const bool a_transposed = op == ProductOp::kWeightGrad;
    const bool b_transposed = op == ProductOp::kForward;
    const bool widens_c = path.c_copy > 0;
    shape = {.m = operands.c.rows(),
             .n = operands.c.row_elements(),
             .k = a_transposed ? a.rows() : a.row_elements(),
             .a_row = a_transposed ? 1 : a.row_stride(),
             .a_column = a_transposed ? a.row_stride() : 1,
             .b_row = b_transposed ? 1 : b.row_stride(),
             .b_column = b_transposed ? b.row_stride() : 1,
             .c_row = widens_c ? operands.c.row_elements() : operands.c.row_stride(),
             .inputs = path.inputs,
             .result = widens_c ? DType::kFloat32 : operands.c.dtype(),
             .accumulate = accumulate,
             .b_is_packed = b_is_packed,
             .num_threads = exec.num_threads};
  }
};

// `view`, or its copy in a piece of the workspace.
const void* Taken(const Exec& exec, WorkspacePieces& pieces, const ConstTensorView& view,
                  int64_t copy) {
  if (copy == 0) return view.data();
  const ConstTensorView spread = Spread(ThisCpu(), view, copy);
  const TensorView to(pieces.Take(copy), spread.dtype(), {spread.rows(), spread.row_elements()},
                      spread.row_stride());
  Cast(exec, to, view);
  return to.data();
}

// With `packed`, b in the packed layout, where oneDNN takes it; else b itself. False where oneDNN
// has no such product.
bool Multiply(const Exec& exec, ProductOp op, const TensorView& c, const ConstTensorView& a,
              const ConstTensorView& b, const void* packed, bool accumulate) {
  ViewProduct product(exec, op, {c, a, b}, accumulate, packed != nullptr);
  if (packed != nullptr && !HasProduct(product.shape)) {
    packed = nullptr;
    product = ViewProduct(exec, op, {c, a, b}, accumulate, false);
  }
  if (b.dtype() != a.dtype() || !HasProduct(product.shape)) return false;
  const ProductPath& path = product.path;
  CheckWorkspace(exec.workspace, path.num_bytes(),
                 [&] { return Described(ProductOpName(op), LayerOf(op, product.operands)); });
  WorkspacePieces pieces(exec.workspace);
  const void* a_data = Taken(exec, pieces, a, path.a_copy);
  const void* b_data = packed != nullptr ? packed : Taken(exec, pieces, b, path.b_copy);
  if (path.c_copy == 0) {
    RunProduct(product.shape, c.data(), a_data, b_data, pieces.rest());
    return true;
  }
  const TensorView wide(pieces.Take(path.c_copy), DType::kFloat32, {c.rows(), c.row_elements()});
  if (accumulate) Cast(exec, wide, c);
  RunProduct(product.shape, wide.data(), a_data, b_data, pieces.rest());
  Cast(exec, c, wide);
  return true;
}

bool MultiplyByWeight(const Exec& exec, const TensorView& result, const ConstTensorView& left,
                      const PackedWeight& weight, WeightUse use, bool accumulate) {
  const bool fits = weight.use == use && weight.rows == left.rows();
  return Multiply(exec, OpOf(use), result, left, weight.weight, fits ? weight.packed : nullptr,
                  accumulate);
}

}  // namespace

int64_t MatmulWorkspaceBytes(const MatmulShape& shape, int num_threads,
                             const CpuCapabilities& cpu) {
  if (shape.dtype == DType::kFloat64 || IsEmpty(shape)) return 0;
  return LargestPathBytes(cpu, shape) + num_threads * ProductScratchBytes(cpu);
}

int64_t PackedWeightBytes(const MatmulShape& shape, WeightUse use, const CpuCapabilities& cpu) {
  if (shape.dtype == DType::kFloat64 || IsEmpty(shape)) return 0;
  const int64_t packed = PackedOperandBytes(cpu, shape, use);
  const bool widens = MultipliedAs(cpu, shape.dtype) != shape.dtype;
  return AlignedBytes(packed == 0 && widens ? shape.out * shape.in * 4 : packed);
}

PackedWeight PackWeight(const Exec& exec, const MatmulShape& shape, WeightUse use,
                        ConstTensorView weight, std::span<std::byte> memory) {
  KERNEL_CHECK(exec.device == Device::kCpu, "weights are packed on the CPU");
  KERNEL_CHECK(weight.rows() == shape.out && weight.row_elements() == shape.in &&
                   weight.dtype() == shape.dtype,
               "the weight is (O, I)");
  const CpuCapabilities& cpu = ThisCpu();
  PackedWeight packed = weight;
  packed.use = use;
  packed.rows = shape.tokens;
  const int64_t num_bytes = PackedWeightBytes(shape, use, cpu);
  if (num_bytes == 0 || exec.specification || !weight.is_dense()) return packed;
  const auto described = [&] { return Described("PackWeight", shape); };
  CheckWorkspace(memory, num_bytes, described);
  const ProductShape product = WeightProduct(cpu, shape, use);
  const bool moves = PacksOperand(product, num_bytes);
  const bool widens = product.inputs != shape.dtype;
  // A widened weight is worth a copy in any layout; blocks, where oneDNN has those planned for.
  if (!moves && (!widens || cpu.blocked_products)) return packed;
  packed.packed = memory.data();
  if (widens) {
    const int64_t wide_bytes = shape.out * shape.in * DTypeBytes(product.inputs);
    if (moves) CheckWorkspace(exec.workspace, wide_bytes, described);
    const TensorView wide(moves ? exec.workspace.data() : memory.data(), product.inputs,
                          {shape.out, shape.in});
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
  return Multiply(exec, ProductOp::kWeightGrad, dw, dy, x, nullptr, accumulate);
}

}  // namespace troupe
