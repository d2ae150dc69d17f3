#include "actors/schedule/v_generators.h"

#include <gtest/gtest.h>

#include "actors/schedule/csv.h"
#include "actors/schedule/validator.h"

namespace troupe {
namespace {

TEST(VGenerators, ZeroBubbleVAsPublished) {
  const Schedule schedule = *Generate({.name = "zb-v", .num_ranks = 2, .num_microbatches = 4});
  EXPECT_EQ(ToCsv(schedule),
            "0F0,0F1,0F2,3F0,3I0,3W0,3F1,3I1,3W1,0F3,0I0,0W0,3F2,3I2,3W2,0I1,0W1,3F3,3I3,3W3,0I2,"
            "0W2,0I3,0W3\r\n"
            "1F0,2F0,1F1,2F1,2I0,2W0,1F2,1I0,1W0,2F2,2I1,2W1,1F3,1I1,1W1,2F3,2I2,2W2,1I2,2I3,1I3,"
            "1W2,2W3,1W3\r\n");
}

TEST(VGenerators, ZeroBubbleVLeavesOutWhatIsBeyondTheLastMicrobatch) {
  for (const int p : {1, 2, 4, 7}) {
    for (int m = 1; m < 2 * p; ++m) {
      const auto schedule = Generate({.name = "zb-v", .num_ranks = p, .num_microbatches = m});
      const auto report = Validate(*schedule);
      ASSERT_TRUE(report.ok()) << report.error().message;
    }
  }
}

}  // namespace
}  // namespace troupe
