#include "runtime/base/vector_isa.h"

#include <gtest/gtest.h>

namespace troupe {
namespace {

TEST(VectorIsaTest, CapsAsOneDnnDoes) {
  constexpr VectorIsa kMost = VectorIsa::kAvx512Bf16;
  for (const char* cap : {"SSE41", "AVX", "AVX2", "avx2", "AVX2_VNNI"}) {
    EXPECT_EQ(CappedIsa(kMost, cap), VectorIsa::kAvx2) << cap;
  }
  for (const char* cap : {"AVX512_CORE", "avx512_core_vnni"}) {
    EXPECT_EQ(CappedIsa(kMost, cap), VectorIsa::kAvx512) << cap;
    EXPECT_EQ(CappedIsa(VectorIsa::kAvx2, cap), VectorIsa::kAvx2) << cap;
  }
  for (const char* cap : {"", "ALL", "AVX512_CORE_BF16", "AVX512_CORE_AMX", "AVX1024"}) {
    EXPECT_EQ(CappedIsa(kMost, cap), kMost) << cap;
  }
}

}  // namespace
}  // namespace troupe
