#include "kernels/cpu/vector_bodies.h"

namespace troupe {

const VectorBodies* VectorBodiesFor(const CpuCapabilities& cpu) {
  switch (cpu.vector_lanes) {
    case 16:
      return &kAvx512Bodies;
    case 8:
      return &kAvx2Bodies;
    default:
      return nullptr;
  }
}

}  // namespace troupe
