// The vector bodies for AVX512; see vector_bodies.h for what this file may include (B2).
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention_layout.h"
#include "kernels/cpu/vector_bodies.h"

namespace troupe {
namespace {

// In this order.
// clang-format off
#include "kernels/cpu/lanes_common.inc"
#include "kernels/cpu/lanes_avx512.inc"
#include "kernels/cpu/rows.inc"
#include "kernels/cpu/reductions.inc"
#include "kernels/cpu/attention_tiles.inc"
#include "kernels/cpu/attention.inc"
#include "kernels/cpu/bodies.inc"
// clang-format on

}  // namespace

const VectorBodies kAvx512Bodies = Bodies("avx512");

}  // namespace troupe
