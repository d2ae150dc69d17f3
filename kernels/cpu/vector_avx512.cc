// The vector bodies for AVX512; see vector_bodies.h for what this file may include (B2).
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention_layout.h"
#include "kernels/cpu/vector_bodies.h"

namespace troupe {
namespace {

struct bfloat16 {
  uint16_t bits;
};

// In this order.
// clang-format off
#include "kernels/cpu/lanes_common.inc"
#include "kernels/cpu/lanes_avx512.inc"
#include "kernels/cpu/rows.inc"
#include "kernels/cpu/reductions.inc"
#include "kernels/cpu/attention.inc"
// clang-format on

}  // namespace

const VectorBodies kAvx512Bodies = {
    .isa = "avx512",
    .cast = CastBody,
    .add = AddBody,
    .scale = ScaleBody,
    .rms_norm = RmsNormBody,
    .rms_norm_grad = RmsNormGradBody,
    .rotate = RotateBody,
    .swiglu = SwigluBody,
    .swiglu_grad = SwigluGradBody,
    .cross_entropy = CrossEntropyBody,
    .adamw = AdamWBody,
    .norm_leaf = NormLeafBody,
    .attention = AttentionBody,
    .attention_grad = AttentionGradBody,
};

}  // namespace troupe
