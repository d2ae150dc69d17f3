#include "actors/model/product_rate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "tests/support/cpu_clock.h"

namespace troupe {
namespace {

// Says that half a second has passed whenever it is asked.
class SlowClock : public Clock {
 public:
  int64_t NowNs() const override { return now_ns_ += 500'000'000; }
  int64_t WallUs() const override { return 0; }
  int64_t ThreadCpuNs() const override { return 0; }

 private:
  mutable int64_t now_ns_ = 0;
};

TEST(ProductRate, IsOperationsOverTime) {
  const MatmulShape shape{.tokens = 16, .in = 32, .out = 48};
  EXPECT_DOUBLE_EQ(MeasureProductRate(shape, 1, SlowClock()), 2.0 * 16 * 32 * 48 / 0.5);
}

TEST(ProductRate, LargeProductsAreCut) {
  const MatmulShape shape{.tokens = 1 << 20, .in = 1 << 16, .out = 16};
  EXPECT_DOUBLE_EQ(MeasureProductRate(shape, 1, SlowClock()),
                   2.0 * kRateDimensionMax * kRateDimensionMax * 16 / 0.5);
}

TEST(ProductRate, IsMeasuredInBothDtypes) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const MatmulShape shape{.tokens = 64, .in = 64, .out = 64, .dtype = dtype};
    EXPECT_GT(MeasureProductRate(shape, 1, testing::CpuClock()), 1e6) << DTypeName(dtype);
  }
}

// Zeros would be multiplied faster than what a model holds.
TEST(ProductRate, OperandsAreOrdinaryNumbers) {
  std::vector<float> floats(1000);
  FillOperand(DType::kFloat32, std::as_writable_bytes(std::span(floats)));
  std::vector<bfloat16> halves(1000);
  FillOperand(DType::kBFloat16, std::as_writable_bytes(std::span(halves)));
  for (const bool wide : {true, false}) {
    std::set<float> seen;
    for (size_t i = 0; i < 1000; ++i) {
      const float number = wide ? floats[i] : static_cast<float>(halves[i]);
      EXPECT_GE(std::abs(number), 1);
      EXPECT_LT(std::abs(number), 2);
      seen.insert(number);
    }
    EXPECT_GT(seen.size(), 200u) << "of 256 in bfloat16";
    EXPECT_LT(*seen.begin(), 0);
    EXPECT_GT(*seen.rbegin(), 0);
  }
}

}  // namespace
}  // namespace troupe
