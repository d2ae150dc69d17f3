#include "coordinator/report/clock_alignment.h"

#include <gtest/gtest.h>

#include <limits>

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

TEST(ClockAlignmentTest, AMessageCorrectsAClockAndThoseBehindIt) {
  ClockAlignment clocks;
  clocks.Add(0, 100 * kMs, 1'000'000);
  clocks.Add(1, 500'000 * kMs, 1'000'000);
  clocks.Add(2, 900'000 * kMs, 1'000'000);
  EXPECT_EQ(clocks.CommonNs(1, 500'000 * kMs), 0);
  clocks.AddMessage(1, 500'010 * kMs, 2, 900'012 * kMs);  // forwards: nothing to correct
  EXPECT_EQ(clocks.CommonNs(2, 900'012 * kMs), 12 * kMs);
  clocks.AddMessage(0, 110 * kMs, 1, 500'002 * kMs);  // sent at 10, arrives at 2
  EXPECT_EQ(clocks.CommonNs(1, 500'002 * kMs), 10 * kMs);
  EXPECT_EQ(clocks.CommonNs(2, 900'012 * kMs), 18 * kMs) << "sent at 18 of the corrected clock";
}

TEST(ClockAlignmentTest, ClocksThatContradictOneAnotherEndTheCorrecting) {
  ClockAlignment clocks;
  clocks.Add(0, 0, 1'000'000);
  clocks.Add(1, 500'000 * kMs, 1'000'000);
  clocks.AddMessage(0, 50 * kMs, 1, 500'000 * kMs);
  clocks.AddMessage(1, 500'050 * kMs, 0, 0);
  EXPECT_LT(clocks.CommonNs(1, 500'000 * kMs), 1000 * kMs);
}

TEST(ClockAlignmentTest, NumbersOutOfRangeOverflowNothing) {
  ClockAlignment clocks;
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  clocks.Add(0, kMost, -kMost);
  clocks.Add(1, -kMost, kMost);
  clocks.AddMessage(0, kMost, 1, -kMost);
  clocks.AddMessage(1, kMost, 0, -kMost);
  EXPECT_NE(clocks.CommonNs(0, kMost), clocks.CommonNs(1, -kMost));
}

}  // namespace
}  // namespace troupe
