#include "runtime/actor/timer_wheel.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <vector>

namespace troupe {
namespace {

constexpr int64_t kMs = TimerWheel::kTickNs;

struct Timer : TimerNode {
  explicit Timer(std::function<void()> f) : function(std::move(f)) {
    fire = [](TimerNode* self) { static_cast<Timer*>(self)->function(); };
  }
  std::function<void()> function;
};

TEST(TimerWheel, FiresNeverEarlyAndInOrder) {
  TimerWheel wheel(500);
  std::vector<int> fired;
  Timer late([&] { fired.push_back(2); });
  Timer early([&] { fired.push_back(1); });
  wheel.Arm(&late, 500 + 70 * kMs);
  wheel.Arm(&early, 500 + 3 * kMs - 1);
  EXPECT_EQ(wheel.NextDeadlineNs(), 500 + 3 * kMs);
  EXPECT_EQ(wheel.Advance(500 + 3 * kMs - 1), 0);
  EXPECT_EQ(wheel.Advance(500 + 3 * kMs), 1);
  EXPECT_EQ(wheel.NextDeadlineNs(), 500 + 70 * kMs);
  EXPECT_EQ(wheel.Advance(500 + 1000 * kMs), 1);
  EXPECT_EQ(fired, (std::vector<int>{1, 2}));
  EXPECT_EQ(wheel.NextDeadlineNs(), TimerWheel::kNever);
}

TEST(TimerWheel, APassedDeadlineFiresInTheNextAdvance) {
  TimerWheel wheel(0);
  wheel.Advance(10 * kMs);
  int fired = 0;
  Timer timer([&] { ++fired; });
  wheel.Arm(&timer, 4 * kMs);
  EXPECT_EQ(wheel.Advance(10 * kMs), 1);
  EXPECT_EQ(fired, 1);
}

TEST(TimerWheel, AFiringTimerMayArmAndCancelOthers) {
  TimerWheel wheel(0);
  std::vector<int> fired;
  Timer second([&] { fired.push_back(2); });
  auto third = std::make_unique<Timer>([&] { fired.push_back(3); });
  Timer again([&] { fired.push_back(4); });
  Timer first([&] {
    fired.push_back(1);
    if (third != nullptr) wheel.Cancel(third.get());
    third.reset();
    wheel.Arm(&again, 5 * kMs);
    if (fired.size() < 3) wheel.Arm(&first, 6 * kMs);
  });
  wheel.Arm(&first, 5 * kMs);
  wheel.Arm(&second, 5 * kMs);
  wheel.Arm(third.get(), 5 * kMs);
  wheel.Advance(5 * kMs);
  EXPECT_EQ(fired, (std::vector<int>{1, 2}));
  wheel.Advance(6 * kMs);
  EXPECT_EQ(fired, (std::vector<int>{1, 2, 4, 1}));
}

// Against the obvious model: a map from tick to the timers in order of arming.
TEST(TimerWheel, AgreesWithASortedMap) {
  rc::check("random arms, cancels and advances", [] {
    TimerWheel wheel(0);
    std::multimap<int64_t, int> model;
    std::vector<int> fired;
    std::map<int, std::unique_ptr<Timer>> timers;
    std::map<int, std::multimap<int64_t, int>::iterator> armed;
    int64_t now_tick = 0;
    const int operations = *rc::gen::inRange(1, 60);
    for (int i = 0; i < operations; ++i) {
      const int kind = *rc::gen::inRange(0, 4);
      if (kind <= 1) {
        const int bits = *rc::gen::inRange(0, 24);
        const int64_t tick = now_tick + 1 + *rc::gen::inRange<int64_t>(0, int64_t{1} << bits);
        auto timer = std::make_unique<Timer>([&fired, i] { fired.push_back(i); });
        wheel.Arm(timer.get(), tick * kMs);
        armed[i] = model.emplace(tick, i);
        timers[i] = std::move(timer);
      } else if (kind == 2 && !armed.empty()) {
        auto victim = armed.begin();
        std::advance(victim, *rc::gen::inRange<size_t>(0, armed.size()));
        wheel.Cancel(timers[victim->first].get());
        model.erase(victim->second);
        armed.erase(victim);
      } else {
        const int bits = *rc::gen::inRange(0, 25);
        now_tick += *rc::gen::inRange<int64_t>(0, int64_t{1} << bits);
        std::vector<int> expected;
        while (!model.empty() && model.begin()->first <= now_tick) {
          expected.push_back(model.begin()->second);
          armed.erase(model.begin()->second);
          model.erase(model.begin());
        }
        fired.clear();
        RC_ASSERT(wheel.Advance(now_tick * kMs) == static_cast<int>(expected.size()));
        RC_ASSERT(fired == expected);
      }
      RC_ASSERT(wheel.NextDeadlineNs() ==
                (model.empty() ? TimerWheel::kNever : model.begin()->first * kMs));
    }
  });
}

}  // namespace
}  // namespace troupe
