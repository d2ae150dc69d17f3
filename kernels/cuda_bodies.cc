#include "kernels/cuda_bodies.h"

namespace troupe {
namespace {

const CudaBodies* installed = nullptr;

}  // namespace

void InstallCudaBodies(const CudaBodies& bodies) { installed = &bodies; }

const CudaBodies& InstalledCudaBodies() {
  KERNEL_CHECK(installed != nullptr, "no CUDA bodies: the program did not call UseCudaBodies");
  return *installed;
}

}  // namespace troupe
