#include "kernels/cpu/vector_bodies.h"

#include <oneapi/dnnl/dnnl.hpp>

namespace troupe {

const VectorBodies* BestVectorBodies() {
  static const VectorBodies* const best = []() -> const VectorBodies* {
    // oneDNN numbers instruction sets as growing sets of bits.
    const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
    const auto reaches = [isa](dnnl::cpu_isa wanted) {
      return (isa & static_cast<unsigned>(wanted)) == static_cast<unsigned>(wanted);
    };
    if (reaches(dnnl::cpu_isa::avx512_core)) return &kAvx512Bodies;
    if (reaches(dnnl::cpu_isa::avx2) && __builtin_cpu_supports("fma")) return &kAvx2Bodies;
    return nullptr;
  }();
  return best;
}

}  // namespace troupe
