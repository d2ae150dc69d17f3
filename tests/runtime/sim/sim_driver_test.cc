#include "runtime/sim/sim_driver.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

namespace troupe {
namespace {

TEST(SimDriver, TimeJumpsToWhatHappensNext) {
  VirtualClock clock;
  SimDriver driver(clock, 1);
  std::vector<std::pair<std::string, int64_t>> log;
  driver.At(500, [&] { log.emplace_back("b", clock.NowNs()); });
  driver.At(20, [&] { log.emplace_back("a", clock.NowNs()); });
  driver.At(500, [&] { log.emplace_back("c", clock.NowNs()); });
  while (driver.Step()) {
  }
  EXPECT_EQ(log, (std::vector<std::pair<std::string, int64_t>>{{"a", 20}, {"b", 500}, {"c", 500}}));
}

TEST(SimDriver, TimeStandsStillWhileSomebodyHasWork) {
  VirtualClock clock;
  SimDriver driver(clock, 1);
  int left = 5;
  driver.Add([&] { return left > 0 ? left-- : 0; }, [] { return int64_t{1000}; });
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(driver.Step());
    EXPECT_EQ(clock.NowNs(), 0);
  }
  ASSERT_TRUE(driver.Step());
  EXPECT_EQ(clock.NowNs(), 1000);
}

TEST(SimDriver, EveryOrderOfTwoOccurs) {
  VirtualClock clock;
  SimDriver driver(clock, 1);
  std::string round;
  for (const char who : {'a', 'b'}) {
    driver.Add(
        [&round, who] {
          round += who;
          return int64_t{1};
        },
        nullptr);
  }
  std::set<std::string> rounds;
  for (int i = 0; i < 50; ++i) {
    round.clear();
    driver.Step();
    rounds.insert(round);
  }
  EXPECT_EQ(rounds, (std::set<std::string>{"ab", "ba"}));
}

TEST(SimDriver, WhoIsRemovedRunsNoMore) {
  VirtualClock clock;
  SimDriver driver(clock, 1);
  int runs = 0;
  const auto guest = driver.Add(
      [&runs] {
        ++runs;
        return int64_t{1};
      },
      nullptr);
  driver.Step();
  driver.At(0, [&] { driver.Remove(guest); });
  driver.Step();
  EXPECT_EQ(runs, 1);
  EXPECT_FALSE(driver.Step()) << "nobody is left";
}

TEST(SimDriver, ItLooksAfterEverythingThatHappens) {
  VirtualClock clock;
  SimDriver driver(clock, 1);
  std::string happened;
  int left = 2;
  driver.Add([&] { return left > 0 ? happened += 'r', left-- : 0; }, nullptr);
  driver.Add([] { return int64_t{0}; }, nullptr);
  for (int i = 0; i < 2; ++i) driver.At(10, [&] { happened += 'a'; });
  driver.AfterEach([&] { happened += '.'; });
  while (driver.Step()) {
  }
  EXPECT_EQ(happened, "r.r.a.a.");
}

TEST(SimDriver, RunUntilStopsAtItsDeadline) {
  VirtualClock clock;
  SimDriver driver(clock, 1);
  driver.Add(nullptr, [&] { return clock.NowNs() + 10; });
  EXPECT_FALSE(driver.RunUntil([] { return false; }, 100));
  EXPECT_EQ(clock.NowNs(), 100);
  EXPECT_TRUE(driver.RunUntil([&] { return clock.NowNs() >= 150; }));
  SimDriver empty(clock, 1);
  EXPECT_FALSE(empty.RunUntil([] { return false; })) << "nothing will ever happen";
}

}  // namespace
}  // namespace troupe
