#include "runtime/format/widen.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using testing::TemporaryFolder;

// All 65,536 values, by the format's own definition.
TEST(WidenTest, EveryHalfHasItsExactFloat) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const int exponent = static_cast<int>(bits >> 10 & 0x1f);
    const double fraction = bits & 0x3ff;
    const double sign = (bits & 0x8000) != 0 ? -1 : 1;
    const float value = HalfToFloat(static_cast<uint16_t>(bits));
    ASSERT_EQ(std::signbit(value), sign < 0) << bits;
    if (exponent == 31) {
      ASSERT_EQ(std::isnan(value), fraction != 0) << bits;
      ASSERT_EQ(std::isinf(value), fraction == 0) << bits;
      continue;
    }
    const double magnitude =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    ASSERT_EQ(static_cast<double>(value), sign * magnitude) << bits;
  }
}

TEST(WidenTest, StoredTensorsOfThreeDtypesAreWidened) {
  const auto widened = [](TensorDtype dtype, std::vector<uint16_t> words, int64_t elements) {
    const TemporaryFolder folder;
    auto writer = *SafetensorsWriter::Create(SystemFiles(), folder / "model.safetensors",
                                             {{"t", dtype, {elements}}});
    CHECK(writer.Append(std::as_bytes(std::span(words))).ok() && writer.Finish().ok());
    const auto opened = *SafetensorsFolder::Open(SystemFiles(), folder.path());
    std::vector<float> out(static_cast<size_t>(elements));
    CHECK(WidenToFloat32(*opened.Find("t"), 0, out).ok());
    // And from the middle on.
    std::vector<float> part(out.size() / 2);
    const auto first = static_cast<int64_t>(out.size() - part.size());
    CHECK(WidenToFloat32(*opened.Find("t"), first, part).ok());
    CHECK(std::ranges::equal(part, std::span(out).subspan(static_cast<size_t>(first))));
    return out;
  };
  using ::testing::ElementsAre;
  EXPECT_THAT(widened(TensorDtype::kF16, {0x3c00, 0xc100}, 2), ElementsAre(1.0f, -2.5f));
  EXPECT_THAT(widened(TensorDtype::kBf16, {0x3f80, 0xc020}, 2), ElementsAre(1.0f, -2.5f));
  EXPECT_THAT(widened(TensorDtype::kF32, {0x0000, 0xc020}, 1), ElementsAre(-2.5f));
  EXPECT_THAT(widened(TensorDtype::kF16, {}, 0), ElementsAre());
  constexpr int64_t kSeveralPieces = 1'300'001;
  EXPECT_THAT(
      widened(TensorDtype::kF16, std::vector<uint16_t>(kSeveralPieces, 0xc100), kSeveralPieces),
      ::testing::Each(-2.5f));
}

TEST(WidenTest, OtherDtypesAreRefusedByName) {
  for (const TensorDtype dtype : {TensorDtype::kF8E4M3, TensorDtype::kF8E5M2, TensorDtype::kF64,
                                  TensorDtype::kI8, TensorDtype::kU8}) {
    const Status status = CheckWidens({"lm_head.weight", dtype, {1}}, "/hf");
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().message,
              fmt::format("/hf: lm_head.weight has dtype {}: save it as F32, BF16 or F16",
                          TensorDtypeName(dtype)));
  }
}

}  // namespace
}  // namespace troupe
