#include "runtime/base/awake_clock.h"

#include <gtest/gtest.h>

#include "runtime/sim/virtual_clock.h"

namespace troupe {
namespace {

constexpr int64_t kMs = 1'000'000;

TEST(AwakeClock, GoesAsTheMachineWhileItIsLookedAt) {
  VirtualClock machine;
  machine.AdvanceMs(5000);
  AwakeClock clock(machine);
  EXPECT_EQ(clock.NowNs(), 0);
  for (int i = 1; i <= 10; ++i) {
    machine.AdvanceMs(700);
    EXPECT_EQ(clock.NowNs(), i * 700 * kMs);
  }
  EXPECT_EQ(clock.WallUs(), machine.WallUs());
}

TEST(AwakeClock, APauseIsOneStepHoweverLong) {
  VirtualClock machine;
  AwakeClock clock(machine);
  machine.AdvanceMs(400);
  EXPECT_EQ(clock.NowNs(), 400 * kMs);
  machine.AdvanceMs(3'600'000);
  EXPECT_EQ(clock.NowNs(), 400 * kMs + AwakeClock::kMaxStepNs);
  EXPECT_EQ(clock.NowNs(), 400 * kMs + AwakeClock::kMaxStepNs) << "a look takes no time";
  machine.AdvanceMs(1);
  EXPECT_EQ(clock.NowNs(), 401 * kMs + AwakeClock::kMaxStepNs);
}

}  // namespace
}  // namespace troupe
