#include "runtime/base/vector_isa.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <string>

namespace troupe {
namespace {

VectorIsa CpuIsa() {
#if defined(__x86_64__)
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (!avx512) return VectorIsa::kAvx2;
  const bool bf16 = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
  return bf16 ? VectorIsa::kAvx512Bf16 : VectorIsa::kAvx512;
#else
  return VectorIsa::kAvx2;
#endif
}

std::string_view EnvironmentCap() {
  for (const char* name : {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"}) {
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') return value;
  }
  return "";
}

}  // namespace

std::string_view VectorIsaName(VectorIsa isa) {
  switch (isa) {
    case VectorIsa::kAvx2:
      return "AVX2";
    case VectorIsa::kAvx512:
      return "AVX-512";
    case VectorIsa::kAvx512Bf16:
      return "AVX-512 with bfloat16";
  }
  return "unknown";
}

VectorIsa CappedIsa(VectorIsa cpu, std::string_view cap) {
  std::string name(cap);
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
  if (name == "sse41" || name == "avx" || name == "avx2" || name == "avx2_vnni") {
    return VectorIsa::kAvx2;
  }
  if (name == "avx512_core" || name == "avx512_core_vnni") {
    return std::min(cpu, VectorIsa::kAvx512);
  }
  return cpu;
}

VectorIsa ThisVectorIsa() {
  static const VectorIsa isa = CappedIsa(CpuIsa(), EnvironmentCap());
  return isa;
}

}  // namespace troupe
