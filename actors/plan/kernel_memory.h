// What the kernels of a stage are given beside its tensors, by the vector instructions of its CPU:
// copies of the weights in the layout that the products read fastest, and scratch. The kernels
// decide (PackedWeightBytes, MatmulWorkspaceBytes and AttentionWorkspaceBytes of kernels/); these
// formulas say the same, so that a plan can be made where no kernel is linked, and a test holds the
// two against each other for every value of VectorIsa. Pure.
#pragma once

#include <cstdint>

#include "actors/plan/memory_model.h"
#include "runtime/base/vector_isa.h"

namespace troupe {

// Elements between rows of `columns` float32 in copies that the products make with AVX2: a cache
// line more where rows would lie a multiple of 512 bytes apart.
int64_t SpreadColumns(int64_t columns, VectorIsa isa);

// bfloat16 products exist in oneDNN 2.6 from AVX-512 with bfloat16 on; elsewhere operands are
// widened to float32.
bool WidensBFloat16(const NumberWidths& widths, VectorIsa isa);

// All packed weights of the stage, exactly. Of one weight (O, I):
//   float32, AVX2          Forward's copy, I rows of O; the input gradient's, O rows of I, where
//                          such rows are worth spreading (SpreadColumns)
//   float32, AVX-512       a copy for each product, columns of its result in blocks of 64, depth in
//                          blocks of 16
//   bfloat16               the same with a depth in blocks of 32; where it is widened two float32
//                          copies as above, the input gradient's always
int64_t PackedWeightsBytes(const StageShape& shape, VectorIsa isa);
// Those of one of its units.
int64_t PackedWeightsBytes(const StageShape& shape, int unit, VectorIsa isa);

// Scratch for whichever kernel needs most, exactly as it is allocated: attention, or products: with
// AVX2 spread copies of a weight gradient's operands, with AVX-512 2 MiB a math thread, and where
// bfloat16 is widened a product's operands and result. (With less than AVX2 attention takes less.)
// What oneDNN takes by itself is not in it: some MiB for the length of a product without AVX-512;
// with AVX-512, where four math threads or more share a weight gradient of few input channels, what
// it wants beyond 2 MiB a thread.
int64_t KernelScratchBytes(const StageShape& shape, VectorIsa isa);

}  // namespace troupe
