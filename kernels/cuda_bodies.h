// The seam to the CUDA bodies. troupe_kernels knows no CUDA: a program that links
// troupe_kernels_cuda calls UseCudaBodies() once at its start, and from then on ops called with
// Device::kCuda run there. Views then point to device memory and work is queued on Exec::stream.
#pragma once

#include "kernels/matmul.h"
#include "kernels/rms_norm.h"

namespace troupe {

struct CudaBodies {
  decltype(&MatmulForward) matmul_forward;
  decltype(&MatmulInputGrad) matmul_input_grad;
  decltype(&MatmulWeightGrad) matmul_weight_grad;
  // Without delta and sum: the plain forward.
  void (*rms_norm_forward)(const Exec& exec, const AddRmsNormArgs& args);
  void (*rms_norm_backward)(const Exec& exec, const RmsNormBackwardArgs& args);
};

// Defined in troupe_kernels_cuda.
void UseCudaBodies();

// Called by UseCudaBodies; `bodies` lives forever.
void InstallCudaBodies(const CudaBodies& bodies);

// A broken precondition where none are installed.
const CudaBodies& InstalledCudaBodies();

}  // namespace troupe
