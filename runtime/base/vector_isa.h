// The vector instructions of this CPU, as far as they decide how much memory matrix products take.
// The plan, its printers and the ranks ask here, so that they mean the same CPU; a test holds the
// answer against oneDNN's own.
#pragma once

#include <cstdint>
#include <string_view>

namespace troupe {

enum class VectorIsa : uint8_t {
  kAvx2,        // or less
  kAvx512,      // F, BW, DQ and VL
  kAvx512Bf16,  // and products of bfloat16; AMX counts here
};

std::string_view VectorIsaName(VectorIsa isa);  // "AVX2", "AVX-512", "AVX-512 with bfloat16"

// What is left of `cpu` under a value of ONEDNN_MAX_CPU_ISA, read as oneDNN reads it: in any case
// of letters, without effect where it is unknown or empty.
VectorIsa CappedIsa(VectorIsa cpu, std::string_view cap);

// Of the CPU that runs this, capped by the process's environment.
VectorIsa ThisVectorIsa();

}  // namespace troupe
