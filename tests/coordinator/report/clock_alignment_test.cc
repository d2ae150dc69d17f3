#include "coordinator/report/clock_alignment.h"

#include <gtest/gtest.h>

namespace troupe {
namespace {

constexpr int64_t kMs = 1'000'000;

TEST(ClockAlignmentTest, RanksOfOneMachineStayExactToEachOther) {
  ClockAlignment clocks;
  clocks.Add(0, /*steady_ns=*/100 * kMs, /*wall_us=*/1'000'000);
  // The same clock, read 3 ms later, while the wall clock was set forward by 1 ms.
  clocks.Add(1, /*steady_ns=*/103 * kMs, /*wall_us=*/1'004'000);
  EXPECT_EQ(clocks.CommonNs(0, 150 * kMs), clocks.CommonNs(1, 150 * kMs));
}

TEST(ClockAlignmentTest, MachinesMeetOnTheWallClock) {
  ClockAlignment clocks;
  clocks.Add(0, 100 * kMs, 1'000'000);
  clocks.Add(1, 900'000 * kMs, 1'002'000);  // another boot; 2 ms later
  EXPECT_EQ(clocks.CommonNs(0, 100 * kMs), 0);
  EXPECT_EQ(clocks.CommonNs(1, 900'000 * kMs), 2 * kMs);
}

TEST(ClockAlignmentTest, ARankThatSaidNothingKeepsItsClock) {
  EXPECT_EQ(ClockAlignment().CommonNs(3, 42), 42);
}

}  // namespace
}  // namespace troupe
