// Matrix products of a linear layer, weights (out, in) as in Hugging Face files.
// T tokens, I input channels, O output channels.
//   forward        y  (T, O) = x (T, I) W^T
//   input gradient dx (T, I) = dy (T, O) W
//   weight gradient dw (O, I) += dy^T x
// Inputs are float32, bfloat16 or float64, all of one dtype; products are summed in float32
// (float64). Results may be of the inputs' dtype or float32; dw is float32 (float64). `accumulate`
// adds to what the result holds. The bits of a product depend on its shape, row strides,
// num_threads and the CPU type, and on nothing else.
#pragma once

#include "kernels/cpu_capabilities.h"
#include "kernels/exec.h"

namespace troupe {

enum class WeightUse : uint8_t { kForward, kInputGrad };

// A weight, and perhaps a second copy of it in the layout that the product reads fastest. Built
// once a step after the optimizer (PackWeight), or from the plain view alone (no copy).
struct PackedWeight {
  PackedWeight() = default;
  PackedWeight(ConstTensorView plain) : weight(plain) {}  // NOLINT: a plain weight serves as is
  PackedWeight(TensorView plain) : weight(plain) {}       // NOLINT

  ConstTensorView weight;        // (O, I); must stay valid: fallbacks read it
  const void* packed = nullptr;  // null: read `weight`
  WeightUse use = WeightUse::kForward;
  int64_t rows = 0;  // tokens that the layout was chosen for; other counts read `weight`
};

// Shape of one linear layer's products.
struct MatmulShape {
  int64_t tokens = 0;
  int64_t in = 0;
  int64_t out = 0;
  DType dtype = DType::kFloat32;
};

// Workspace that any of the three products and PackWeight need on a CPU, at any result dtype and
// strides.
int64_t MatmulWorkspaceBytes(const MatmulShape& shape, int num_threads = 1,
                             const CpuCapabilities& cpu = ThisCpu());

// Bytes of the packed copy for `use`; 0 where packing does not pay (then PackWeight copies
// nothing).
int64_t PackedWeightBytes(const MatmulShape& shape, WeightUse use,
                          const CpuCapabilities& cpu = ThisCpu());

// Fills `memory` (PackedWeightBytes, 64-byte aligned, owned by the caller and outliving the
// result).
PackedWeight PackWeight(const Exec& exec, const MatmulShape& shape, WeightUse use,
                        ConstTensorView weight, std::span<std::byte> memory);

void MatmulForward(const Exec& exec, TensorView y, ConstTensorView x, const PackedWeight& weight,
                   bool accumulate = false);
void MatmulInputGrad(const Exec& exec, TensorView dx, ConstTensorView dy,
                     const PackedWeight& weight, bool accumulate = false);
void MatmulWeightGrad(const Exec& exec, TensorView dw, ConstTensorView dy, ConstTensorView x,
                      bool accumulate = true);

}  // namespace troupe
