// How a matrix product reaches oneDNN: which operands it reads as they lie and which from copies in
// the workspace. Pure, by the capabilities of a CPU. What a product takes and what
// MatmulWorkspaceBytes promises are sums over the same paths, so that neither can be the smaller.
#pragma once

#include <cstdint>

#include "kernels/cpu_capabilities.h"
#include "kernels/matmul.h"
#include "kernels/tensor_view.h"

namespace troupe {

// c (M, N) [+]= a b:
enum class ProductOp : uint8_t {
  kForward,     // y = x W^T
  kInputGrad,   // dx = dy W
  kWeightGrad,  // dw = dy^T x
};
const char* ProductOpName(ProductOp op);  // the public function's: "MatmulForward"

struct ProductOperands {
  ConstTensorView c, a, b;  // as the op is given them: x, W; dy, W; dy, x
};
// Shapes, dtypes and strides count here; data may be null.
MatmulShape LayerOf(ProductOp op, const ProductOperands& operands);

// Bytes of the workspace for each matrix; 0 where it is read or written where it lies.
struct ProductPath {
  DType inputs = DType::kFloat32;  // what oneDNN multiplies
  int64_t a_copy = 0;              // float32, rows SpreadStride apart
  int64_t b_copy = 0;              // likewise
  int64_t c_copy = 0;              // dense float32, rounded to the result once

  int64_t num_bytes() const { return a_copy + b_copy + c_copy; }
};
// `b_is_packed`: b is read from a packed copy.
ProductPath PathOf(const CpuCapabilities& cpu, ProductOp op, const ProductOperands& operands,
                   bool b_is_packed);

// The most that any path of the layer takes, PackWeight's included, whatever the strides.
int64_t LargestPathBytes(const CpuCapabilities& cpu, const MatmulShape& shape);

// What `dtype` is multiplied as.
DType MultipliedAs(const CpuCapabilities& cpu, DType dtype);

// Elements between rows of `columns` float32 in a copy. Where products read operands as they lie,
// rows a multiple of 512 bytes apart share few sets of the first-level cache (measured: 5 to 45 %
// of a product's time): there a cache line more.
int64_t SpreadStride(const CpuCapabilities& cpu, int64_t columns);

// Bytes of the weight, as operand b of `use`, in the layout that products read fastest; 0 where
// that is the plain one. Blocked: columns by 64, depth by 64 bytes. Else rows of SpreadStride.
int64_t PackedOperandBytes(const CpuCapabilities& cpu, const MatmulShape& shape, WeightUse use);

// Scratch that products are given, for each thread. At all shapes measured oneDNN asks for no
// more, but where four threads or more share a weight gradient of few input channels (AVX-512):
// there memory that the thread keeps serves, which no workspace holds.
int64_t ProductScratchBytes(const CpuCapabilities& cpu);

}  // namespace troupe
