// Copies of an operand b (K, N) of a product in the layouts that oneDNN reads fastest. They move
// bytes alone. (oneDNN's own reorders take, measured with AVX2, up to 4 times as long to transpose
// float32, and convert bfloat16 element by element.)
#pragma once

#include <cstdint>

#include "kernels/tensor_view.h"

namespace troupe {

// Element (i, j) lies at data[i * row + j * column]; one of the two strides is 1.
struct PlainOperand {
  const void* data = nullptr;
  int64_t k = 0;
  int64_t n = 0;
  int64_t row = 0;
  int64_t column = 0;
  DType dtype = DType::kFloat32;  // or bfloat16
};

// K rows of N float32, `stride` apart; what lies between stays as it is.
void CopyToRows(const PlainOperand& from, int64_t stride, float* to);

// Blocks of 64 columns and 16 rows of float32, or 16 pairs of rows of bfloat16 side by side
// (oneDNN's BA16a64b and BA16a64b2a), down each 64 columns; zeros fill the edges.
void CopyToBlocks(const PlainOperand& from, void* to);

}  // namespace troupe
