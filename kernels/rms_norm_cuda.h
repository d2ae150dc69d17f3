// The CUDA bodies of RMSNorm; reached through cuda_bodies.h.
#pragma once

#include "kernels/rms_norm.h"

namespace troupe {

void RmsNormForwardCuda(const Exec& exec, const AddRmsNormArgs& args);
void RmsNormBackwardCuda(const Exec& exec, const RmsNormBackwardArgs& args);

}  // namespace troupe
