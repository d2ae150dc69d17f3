// A stage whose layers wait in their middle for another rank of their group, on a stream with a
// thread: other actions run meanwhile, and every bit is as it is without waiting.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "actors/stage_actor.h"
#include "runtime/actor/stream_wait.h"
#include "tests/runtime/collective/router_world.h"
#include "tests/support/small_model.h"
#include "tests/support/waiting_layer.h"

namespace troupe {
namespace {

using testing::SmallModel;
using testing::StageChain;

// Two ranks along tp, of which the other brings what this one brings, when the test says so.
class HeldGroup final : public Group {
 public:
  HeldGroup()
      : Group({.id = GroupId(1), .name = "tp", .ranks = {Rank(0), Rank(1)}, .self = Rank(0)},
              testing::ElementTypes()) {}
  Task<Status> Run(GroupOperation operation) override {
    const size_t number = num_begun_.fetch_add(1);
    co_await comes_.at(number);
    auto* sums = static_cast<float*>(operation.output.data);
    for (int64_t i = 0; i < operation.output.count; ++i) sums[i] += sums[i];
    co_return Status{};
  }
  // On the scheduler's thread: the other rank has come to the first `count` operations.
  void Come(size_t count) {
    for (; num_come_ < count; ++num_come_) comes_.at(num_come_).Set();
  }
  void ComeToAll() { Come(comes_.size()); }
  size_t num_begun() const { return num_begun_.load(); }

 private:
  std::array<StreamEvent, 64> comes_{};
  std::atomic<size_t> num_begun_{0};
  size_t num_come_ = 0;
};

// In the executor's place.
class Answers : public Actor<Answers, ActionDone, ActionWaits, GradientReduced, StageVote,
                             UpdateDone, MicrobatchesReady> {
 public:
  struct Heard {
    std::vector<std::string> done{};
    std::set<std::string> waiting{};
    double loss_sum = 0;
    bool ok = true;
  };
  explicit Answers(Heard& heard) : heard_(heard) {}
  Status On(ActionDone done) {
    heard_.done.push_back(ToString(done.action));
    if (done.loss) heard_.loss_sum += done.loss->nll;
    heard_.ok &= done.status.ok();
    return {};
  }
  Status On(ActionWaits waits) {
    if (waits.waits) {
      heard_.waiting.insert(ToString(waits.action));
    } else {
      heard_.waiting.erase(ToString(waits.action));
    }
    return {};
  }
  Status On(GradientReduced) { return {}; }
  Status On(StageVote) { return {}; }
  Status On(UpdateDone) { return {}; }
  Status On(MicrobatchesReady) { return {}; }

 private:
  Heard& heard_;
};

SmallModel Waiting(Group& group, int open_actions) {
  SmallModel model;
  model.halves = true;
  model.open_actions = open_actions;
  model.new_layer = testing::WaitingLayer::New;
  model.groups.Set(Axis::kTp, &group);
  return model;
}

// One stage with all layers, as an actor.
class StageUnderTest {
 public:
  StageUnderTest(const SmallModel& model, Scheduler& scheduler, Stream& stream)
      : model_(model), chain_(model), scheduler_(scheduler) {
    answers_ = scheduler.Spawn<Answers>({.name = "answers"}, heard);
    actor_ = scheduler.Spawn<StageActor>({.name = "stage"}, StageOptions{.last = true},
                                         chain_.stage(0), stream);
    CHECK(actor_.Send(MeetExecutor{answers_}).ok());
  }
  ~StageUnderTest() { End(); }

  void Run(ActionKind kind, int32_t microbatch) {
    RunAction run{.action = {.kind = kind, .microbatch = MicrobatchId(microbatch)}, .step = 1};
    if (kind == ActionKind::kForward) {
      run.data = std::make_shared<const Microbatch>(testing::RandomMicrobatch(model_, microbatch));
    }
    CHECK(actor_.Send(std::move(run)).ok());
  }
  void End() {
    scheduler_.End(actor_);
    scheduler_.End(answers_);
  }
  bool Waits(const std::string& action) const { return heard.waiting.contains(action); }
  bool Done(size_t count) const { return heard.done.size() >= count; }
  StageChain& chain() { return chain_; }

  Answers::Heard heard{};

 private:
  const SmallModel model_;
  StageChain chain_;
  Scheduler& scheduler_;
  Answers::SelfRef answers_{};
  StageActor::SelfRef actor_{};
};

struct Bits {
  double loss_sum = 0;
  std::string gradients{};
  bool operator==(const Bits&) const = default;
};
Bits BitsOf(StageUnderTest& stage) {
  stage.chain().stage(0).FinishGradients();
  return {stage.heard.loss_sum, stage.chain().GradientBytes()};
}

// The plain layers' bits, one pass after the other.
Bits Expected() {
  SmallModel model;
  model.halves = true;
  StageChain chain(model);
  const double loss = chain.RunStep();
  return {loss, chain.GradientBytes()};
}

class WaitingStage : public ::testing::Test {
 protected:
  template <typename Done>
  bool Until(Done done) {
    return testing::DrivenUntil(done, [this] { scheduler_.RunUntilIdle(); });
  }

  Scheduler scheduler_{};
  HeldGroup group_{};
  ThreadStream stream_{scheduler_, "stage", /*spin_us=*/0};
};

TEST_F(WaitingStage, WhatHasComeAlreadyIsNotWaitedFor) {
  group_.ComeToAll();
  StageUnderTest stage(Waiting(group_, 1), scheduler_, stream_);
  for (const int32_t m : {0, 1}) {
    stage.Run(ActionKind::kForward, m);
    stage.Run(ActionKind::kBackwardInput, m);
    stage.Run(ActionKind::kBackwardWeight, m);
  }
  ASSERT_TRUE(Until([&] { return stage.Done(6); }));
  EXPECT_TRUE(stage.heard.ok);
  EXPECT_EQ(BitsOf(stage), Expected());
}

TEST_F(WaitingStage, AnotherActionRunsWhileALayerWaits) {
  StageUnderTest stage(Waiting(group_, 2), scheduler_, stream_);
  group_.Come(8);  // four layers, forth and back
  stage.Run(ActionKind::kForward, 0);
  stage.Run(ActionKind::kBackwardInput, 0);
  ASSERT_TRUE(Until([&] { return stage.Done(2); }));
  stage.Run(ActionKind::kForward, 1);
  ASSERT_TRUE(Until([&] { return stage.Waits("0F1"); }));
  stage.Run(ActionKind::kBackwardWeight, 0);
  ASSERT_TRUE(Until([&] { return stage.Done(3); }));
  EXPECT_EQ(stage.heard.done.back(), "0W0");
  EXPECT_TRUE(stage.Waits("0F1"));
  group_.ComeToAll();
  ASSERT_TRUE(Until([&] { return stage.Done(4); }));
  stage.Run(ActionKind::kBackwardInput, 1);
  stage.Run(ActionKind::kBackwardWeight, 1);
  ASSERT_TRUE(Until([&] { return stage.Done(6); }));
  EXPECT_TRUE(stage.heard.ok);
  EXPECT_EQ(BitsOf(stage), Expected());
}

// A Forward and a backward that hand the stream to each other at every layer.
TEST_F(WaitingStage, TwoPassesOpenAtOnceHaveTheBitsOfOneAfterTheOther) {
  StageUnderTest stage(Waiting(group_, 2), scheduler_, stream_);
  group_.Come(4);
  stage.Run(ActionKind::kForward, 0);
  ASSERT_TRUE(Until([&] { return stage.Done(1); }));
  stage.Run(ActionKind::kForward, 1);
  stage.Run(ActionKind::kBackwardInput, 0);
  for (size_t both = 6; both <= 12; both += 2) {
    ASSERT_TRUE(Until(
        [&] { return group_.num_begun() == both && stage.Waits("0F1") && stage.Waits("0I0"); }));
    group_.Come(both);
  }
  ASSERT_TRUE(Until([&] { return stage.Done(3); }));
  stage.Run(ActionKind::kBackwardWeight, 0);
  ASSERT_TRUE(Until([&] { return stage.Done(4); }));
  group_.ComeToAll();
  stage.Run(ActionKind::kBackwardInput, 1);
  stage.Run(ActionKind::kBackwardWeight, 1);
  ASSERT_TRUE(Until([&] { return stage.Done(6); }));
  EXPECT_TRUE(stage.heard.ok);
  EXPECT_EQ(BitsOf(stage), Expected());

  const MemoryPrediction predicted =
      PredictMemory(stage.chain().table(), {.shape = stage.chain().stage(0).options().shape,
                                            .peak_microbatches = 2,
                                            .isa = ThisVectorIsa()});
  const auto used = stage.chain().ledger(0).Snapshot().peak_bytes;
  for (const MemoryTag tag : {MemoryTag::kActivations, MemoryTag::kWorkspace}) {
    EXPECT_EQ(used[static_cast<size_t>(tag)], predicted[static_cast<size_t>(tag)])
        << MemoryTagName(tag);
  }
}

TEST_F(WaitingStage, AnActionThatEndsWithItsActorGivesItsWorkspaceBack) {
  SmallModel model = Waiting(group_, 1);
  StageUnderTest stage(model, scheduler_, stream_);
  stage.Run(ActionKind::kForward, 0);
  ASSERT_TRUE(Until([&] { return stage.Waits("0F0"); }));
  stage.End();
  group_.ComeToAll();
  SmallModel plain;
  EXPECT_EQ(stage.chain().Evaluate(1), StageChain(plain).Evaluate(1));
}

// The same over real groups: two ranks, each with a stage of its own.
TEST(WaitingStages, OfTwoRanksComputeWhatOneComputes) {
  RouterWorld<InprocWorldNetwork> world(2);
  std::vector<std::unique_ptr<Group>> groups;
  for (int rank = 0; rank < 2; ++rank) {
    groups.push_back(world.Open(
        {.id = GroupId(5), .name = "tp", .ranks = {Rank(0), Rank(1)}, .self = Rank(rank)},
        /*channel=*/3));
  }
  std::vector<std::unique_ptr<StageUnderTest>> stages;
  for (int rank = 0; rank < 2; ++rank) {
    stages.push_back(std::make_unique<StageUnderTest>(
        Waiting(*groups[static_cast<size_t>(rank)], 1), world.scheduler(rank), world.stream(rank)));
  }
  size_t count = 0;
  for (const int32_t m : {0, 1}) {
    for (const ActionKind kind :
         {ActionKind::kForward, ActionKind::kBackwardInput, ActionKind::kBackwardWeight}) {
      for (auto& stage : stages) stage->Run(kind, m);
      ++count;
      ASSERT_TRUE(world.Until([&] { return stages[0]->Done(count) && stages[1]->Done(count); }));
    }
  }
  const Bits expected = Expected();
  for (auto& stage : stages) {
    EXPECT_TRUE(stage->heard.ok);
    EXPECT_EQ(BitsOf(*stage), expected);
  }
}

}  // namespace
}  // namespace troupe
