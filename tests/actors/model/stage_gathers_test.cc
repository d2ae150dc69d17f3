// What a stage whose weights are in shards asks for, and when: beside what it computes, never
// twice, never in vain.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "actors/model/stage_model.h"
#include "tests/support/small_model.h"

namespace troupe {
namespace {

using testing::RandomMicrobatch;
using testing::SmallModel;
using Log = std::vector<std::string>;

Log& TheLog() {
  static Log log;
  return log;
}

// Rows of zeros, here as soon as they are asked for.
class LoggedRows final : public RowSource {
 public:
  explicit LoggedRows(std::string name) : name_(std::move(name)) {}
  void Gather(int row, std::span<std::byte> whole, RowArrival& arrival) override {
    TheLog().push_back(name_ + std::to_string(row));
    std::ranges::fill(whole, std::byte{0});
    arrival.here.Set();
  }
  void Publish(int, std::span<const std::byte>, int64_t) override {}

 private:
  const std::string name_;
};

class LoggedLayer final : public Layer {
 public:
  explicit LoggedLayer(const UnitSite& site) : layer_(NewLayer(site)) {}
  static std::unique_ptr<Layer> New(const UnitSite& site) {
    return std::make_unique<LoggedLayer>(site);
  }

  void WriteConstants(std::byte* shared) const override { layer_->WriteConstants(shared); }
  ResidualStart Input(const Pass& pass) const override { return layer_->Input(pass); }
  ResidualEnd Output(const Pass& pass) const override { return layer_->Output(pass); }
  Task<Status> Forward(const Pass& pass) const override {
    TheLog().emplace_back("forward");
    return layer_->Forward(pass);
  }
  Task<Status> BackwardInput(const Pass& pass, ConstTensorView dy, TensorView dx) const override {
    TheLog().emplace_back("backward");
    return layer_->BackwardInput(pass, dy, dx);
  }
  int num_weight_parts() const override { return layer_->num_weight_parts(); }
  Task<Status> BackwardWeight(const Pass& pass, WeightParts parts,
                              ConstTensorView dy) const override {
    return layer_->BackwardWeight(pass, parts, dy);
  }

 private:
  const std::unique_ptr<Layer> layer_;
};

// A stage of a model of two layers, whose rows are named after the stage: the embedding's, each
// layer's, the head's.
class GatheringStage {
 public:
  GatheringStage(const SmallModel& model, std::string name, const StageLayout& layout,
                 const ParameterTable& table)
      : model_(model), rows_(std::move(name)) {
    options_.shape = {.model = table.model(),
                      .layout = layout,
                      .batch = model.batch,
                      .widths = testing::WidthsOf(model.dtype),
                      .recompute = model.recompute,
                      .zero = model.zero};
    options_.new_layer = LoggedLayer::New;
    options_.shards = {.owner = 0, .num_owners = 2};
    stage_ = std::make_unique<StageModel>(options_, table, ledger_);
    stage_->parameters().Initialize(1);
    stage_->WeightsChanged();
    stage_->Meet({.groups = {}, .rows = &rows_, .launch = {}});
  }

  StageModel& stage() { return *stage_; }
  StageModel::NextPass Pass(PassDirection direction) {
    return {.stage = stage_.get(), .pass = {.direction = direction, .step = 1, .microbatch = 0}};
  }
  Log Forward(const StageModel::NextPass& next = {}, std::span<const std::byte> input = {}) {
    const Microbatch data = RandomMicrobatch(model_, 0);
    stage_->AtPass(0, next);
    return Logged(Discarding(stage_->Forward(0, input, data)));
  }
  Log Backward(const StageModel::NextPass& next = {}) {
    stage_->AtPass(0, next);
    return Logged(Discarding(stage_->Backward(0, {})));
  }
  Log Logged(Task<Status> task) {
    TheLog().clear();
    std::optional<Status> end;
    stream_.LaunchTask(scope_, std::move(task),
                       [&end](const WorkTime&, Status status) { end = std::move(status); });
    scheduler_.RunUntilIdle();
    EXPECT_TRUE(end.has_value() && end->ok());
    return std::exchange(TheLog(), {});
  }
  int64_t PeakBytes(MemoryTag tag) const {
    return ledger_.Snapshot().peak_bytes[static_cast<size_t>(tag)];
  }

 private:
  template <typename T>
  static Task<Status> Discarding(Task<Result<T>> task) {
    const auto result = co_await std::move(task);
    if (!result.ok()) co_return result.error();
    co_return Status{};
  }

  const SmallModel model_;
  MemoryLedger ledger_;
  LoggedRows rows_;
  StageModelOptions options_{};
  std::unique_ptr<StageModel> stage_;
  Scheduler scheduler_{{.spin_us = 0}};
  InlineStream stream_{scheduler_};
  StreamScope scope_{stream_};
};

SmallModel TwoLayers(int prefetch, bool reshard = true) {
  SmallModel model;
  model.config.num_hidden_layers = 2;
  model.batch.data_parallel = 2;
  model.zero = {.stage = 3, .prefetch = prefetch, .reshard_after_forward = reshard};
  return model;
}

struct OneStage {
  explicit OneStage(const SmallModel& model)
      : table(model.Spec()), stage(model, "", {.num_layers = 2}, table) {}
  const ParameterTable table;
  GatheringStage stage;
};

TEST(StageGathers, TheNextUnitIsAskedForBeforeThisOneComputes) {
  OneStage of(TwoLayers(/*prefetch=*/1));
  EXPECT_EQ(of.stage.Forward(), (Log{"0", "1", "2", "forward", "3", "forward"}));
  EXPECT_EQ(of.stage.Backward(), (Log{"2", "1", "backward", "backward"}))
      << "and nothing for the head";
}

TEST(StageGathers, ABackwardThatComputesAgainAsksForNoMore) {
  SmallModel model = TwoLayers(/*prefetch=*/1);
  model.recompute = Recompute::kFull;
  OneStage of(model);
  EXPECT_EQ(of.stage.Forward(), (Log{"0", "1", "2", "forward", "3", "forward"}));
  EXPECT_EQ(of.stage.Backward(), (Log{"2", "1", "backward", "backward"}));
  const MemoryPrediction predicted =
      PredictGatheredUnits(of.table, {&of.stage.stage().options().shape, 1}, ThisVectorIsa());
  EXPECT_LE(of.stage.PeakBytes(MemoryTag::kComm), predicted[static_cast<size_t>(MemoryTag::kComm)]);
}

TEST(StageGathers, WithoutPrefetchWhenThisOneHasComputed) {
  OneStage of(TwoLayers(/*prefetch=*/0));
  const auto forward = of.stage.Pass(PassDirection::kForward);
  const auto backward = of.stage.Pass(PassDirection::kBackward);
  EXPECT_EQ(of.stage.Forward(backward), (Log{"0", "1", "forward", "2", "forward", "3"}));
  EXPECT_EQ(of.stage.Backward(forward), (Log{"2", "backward", "1", "backward"}));
}

// One more when nothing is at work any more.
TEST(StageGathers, TheNextPassFindsItsFirstUnits) {
  for (const int prefetch : {1, 2, 3}) {
    OneStage of(TwoLayers(prefetch));
    const auto forward = of.stage.Pass(PassDirection::kForward);
    const auto backward = of.stage.Pass(PassDirection::kBackward);
    Log asked;
    for (int pass = 0; pass < 3; ++pass) {
      const bool last = pass == 2;
      for (const Log& log : {of.stage.Forward(backward),
                             of.stage.Backward(last ? StageModel::NextPass{} : forward)}) {
        asked.insert(asked.end(), log.begin(), log.end());
      }
    }
    if (prefetch == 1) {
      const Log forwards = {"2", "forward", "3", "forward", "2", "1"};
      const Log backwards = {"backward", "0", "backward", "1"};
      Log expected = {"0", "1"};
      for (const Log* log : {&forwards, &backwards, &forwards, &backwards, &forwards}) {
        expected.insert(expected.end(), log->begin(), log->end());
      }
      expected.insert(expected.end(), {"backward", "backward"});
      EXPECT_EQ(asked, expected);
    }
    // Layers by each Forward and each Backward, the others by Forwards alone.
    for (const auto& [row, gathers] : {std::pair("0", 3), {"1", 6}, {"2", 6}, {"3", 3}}) {
      EXPECT_EQ(std::ranges::count(asked, row), gathers) << row << " with prefetch " << prefetch;
    }
    const MemoryPrediction predicted =
        PredictGatheredUnits(of.table, {&of.stage.stage().options().shape, 1}, ThisVectorIsa());
    EXPECT_LE(of.stage.PeakBytes(MemoryTag::kComm),
              predicted[static_cast<size_t>(MemoryTag::kComm)])
        << prefetch;
  }
}

TEST(StageGathers, WhatAForwardKeepsNobodyGathers) {
  OneStage of(TwoLayers(/*prefetch=*/1, /*reshard=*/false));
  const auto forward = of.stage.Pass(PassDirection::kForward);
  const auto backward = of.stage.Pass(PassDirection::kBackward);
  EXPECT_EQ(of.stage.Forward(backward), (Log{"0", "1", "2", "forward", "3", "forward"}));
  EXPECT_EQ(of.stage.Backward(forward), (Log{"backward", "0", "backward", "1"}));
  EXPECT_EQ(of.stage.Forward(backward), (Log{"2", "forward", "3", "forward"}));
}

TEST(StageGathers, TheNextPassMayBeAnotherStages) {
  const SmallModel model = TwoLayers(/*prefetch=*/1);
  const ParameterTable table(model.Spec());
  GatheringStage first(model, "a", {.num_stages = 2, .num_layers = 1}, table);
  GatheringStage second(model, "b",
                        {.stage = 1, .num_stages = 2, .first_layer = 1, .num_layers = 1}, table);
  EXPECT_EQ(first.Forward(second.Pass(PassDirection::kForward)),
            (Log{"a0", "a1", "b0", "forward", "b1"}));
  const std::vector<std::byte> input(static_cast<size_t>(first.stage().boundary_bytes()));
  EXPECT_EQ(second.Forward(second.Pass(PassDirection::kBackward), input), (Log{"forward", "b0"}));
  EXPECT_EQ(second.Backward(first.Pass(PassDirection::kBackward)), (Log{"a1", "backward"}));
}

TEST(StageGathers, UnshardedUnitsAreGatheredOnce) {
  OneStage of(TwoLayers(/*prefetch=*/1));
  EXPECT_EQ(of.stage.Logged(of.stage.stage().Unshard()), (Log{"0", "1", "2", "3"}));
  EXPECT_EQ(of.stage.Forward(of.stage.Pass(PassDirection::kBackward)), (Log{"forward", "forward"}));
  EXPECT_EQ(of.stage.Backward(), (Log{"backward", "backward"}));
  EXPECT_EQ(of.stage.Logged(of.stage.stage().Reshard()), Log{});
  EXPECT_EQ(of.stage.Forward(), (Log{"0", "1", "2", "forward", "3", "forward"}));
}

}  // namespace
}  // namespace troupe
