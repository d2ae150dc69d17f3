#include "runtime/actor/gate.h"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "runtime/actor/actor.h"
#include "runtime/sim/virtual_clock.h"

namespace troupe {
namespace {

struct CloseIt {};

class Doorkeeper : public Actor<Doorkeeper, CloseIt> {
 public:
  Doorkeeper(Gate& gate, bool& closed) : gate_(gate), closed_(closed) {}
  Task<Status> On(CloseIt) {
    co_await gate_.Close();
    closed_ = true;
    co_return Status{};
  }

 private:
  Gate& gate_;
  bool& closed_;
};

struct GateTest : ::testing::Test {
  Gate gate{"writes"};
  bool closed = false;
  VirtualClock clock{};
  Scheduler scheduler{{.clock = &clock}};
  Doorkeeper::SelfRef keeper = scheduler.Spawn<Doorkeeper>({.name = "keeper"}, gate, closed);
};

TEST_F(GateTest, ClosesAtOnceWhenNobodyIsInside) {
  ASSERT_TRUE(keeper.Send(CloseIt{}).ok());
  scheduler.RunUntilIdle();
  EXPECT_TRUE(closed);
}

TEST_F(GateTest, ClosingWaitsForEveryPassAndRefusesNewOnes) {
  std::optional<Gate::Pass> first = gate.Enter().value();
  Gate::Pass second = gate.Enter().value();
  ASSERT_TRUE(keeper.Send(CloseIt{}).ok());
  scheduler.RunUntilIdle();
  EXPECT_FALSE(closed);
  const auto refused = gate.Enter();
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(refused.error().message, "writes: it is closing, new work is refused");
  first.reset();
  scheduler.RunUntilIdle();
  EXPECT_FALSE(closed);
  EXPECT_EQ(gate.inside(), 1);
  Gate::Pass moved = std::move(second);
  EXPECT_EQ(gate.inside(), 1);
  moved.Return();
  moved.Return();  // a pass comes back once
  scheduler.RunUntilIdle();
  EXPECT_TRUE(closed);
}

TEST_F(GateTest, ACloserThatEndsWhileItWaitsIsForgotten) {
  Gate::Pass pass = gate.Enter().value();
  ASSERT_TRUE(keeper.Send(CloseIt{}).ok());
  scheduler.RunUntilIdle();
  scheduler.End(keeper);
  pass.Return();
  scheduler.RunUntilIdle();
  EXPECT_FALSE(closed);
}

TEST(GateDeathTest, PassesMustComeBackBeforeTheGateGoes) {
  EXPECT_DEATH(
      {
        auto gate = std::make_unique<Gate>("writes");
        auto pass = gate->Enter();
        gate.reset();
      },
      "1 passes are still out");
}

}  // namespace
}  // namespace troupe
