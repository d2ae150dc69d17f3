#include "actors/model/product_rate.h"

#include <gtest/gtest.h>

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
    EXPECT_GT(MeasureProductRate(shape, 1, SystemClock()), 1e6) << DTypeName(dtype);
  }
}

}  // namespace
}  // namespace troupe
