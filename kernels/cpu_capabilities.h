// What of a CPU decides which bodies run, from which copies they read their operands, and how much
// memory that takes at most: functions of this value alone, so that any machine can tell, and test,
// what every other would do. One thing oneDNN is asked when a product is first run: whether it has
// the product, and a weight's layout as it is planned for here. Where it has not, the plain loops
// serve, or the weight is read as it lies, in no more memory; a test holds plan and answer against
// each other on the CPU that runs it.
#pragma once

namespace troupe {

struct CpuCapabilities {
  // Float32 lanes of the vector bodies: 16 (AVX-512), 8 (AVX2 with FMA), 0 where the plain loops
  // serve.
  int vector_lanes = 0;
  // oneDNN multiplies float32 from operands that it lays out in blocks (AVX-512). Elsewhere it
  // reads them as they lie, a few columns of many rows at a time.
  bool blocked_products = false;
  // oneDNN multiplies bfloat16 as it is (AVX-512 with bfloat16, AMX); elsewhere it is widened.
  bool bfloat16_products = false;

  bool operator==(const CpuCapabilities&) const = default;
};

// Of the CPU that runs this, as far as ONEDNN_MAX_CPU_ISA allows; oneDNN is asked once.
const CpuCapabilities& ThisCpu();

}  // namespace troupe
