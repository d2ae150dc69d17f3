// Whole jobs of small real models through the real executor, stage and schedule actors over the
// inproc transport, under any schedule and policy.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "actors/stage_actor.h"
#include "tests/support/in_process_job.h"
#include "tests/support/small_model.h"

namespace troupe::testing {

class RandomLoader : public Actor<RandomLoader, MeetExecutor, FetchTokens> {
 public:
  explicit RandomLoader(const SmallModel& model) : model_(model) {}
  Status On(MeetExecutor meet) {
    executor_ = meet.executor;
    return {};
  }
  Status On(FetchTokens fetch) {
    TokensReady ready{.round = fetch.round};
    for (int32_t m = 0; m < fetch.num_microbatches; ++m) {
      const auto number = static_cast<int32_t>(fetch.first_sample) + m;
      ready.blocks.push_back(
          std::make_shared<const std::vector<int32_t>>(RandomTokens(model_, number)));
    }
    return executor_.Send(std::move(ready));
  }

 private:
  const SmallModel& model_;
  ExecutorAnswers executor_{};
};

// What a job leaves to compare.
struct Outcome {
  std::vector<double> losses{};
  std::vector<double> norms{};
  std::map<std::string, std::string> weights{};
};

class ModelJob {
 public:
  static constexpr int kSteps = 2;

  // The schedule's stages of one direction are the model's; batch.num_microbatches its
  // microbatches.
  ModelJob(const SmallModel& model, Schedule train, const ExecutionPolicy& policy = {},
           const AdamWOptions& adamw = {}, std::vector<TrainSchedule> others = {})
      : model_(model), train_(std::move(train)), adamw_(adamw), table_(model.config) {
    auto partition =
        PartitionStages(model.config, train_.StagesPerDirection(), model.batch.seq_len);
    CHECK(partition.ok(), "{}", partition.error().message);
    partition_ = *partition;
    halves_ = HasHalves(train_);
    for (const TrainSchedule& other : others) halves_ = halves_ || HasHalves(other.schedule);
    const int64_t hidden = model.config.hidden_size;
    const int64_t tokens = model.batch.tokens_per_microbatch();
    InProcessJobOptions options{.train = train_, .policy = policy, .others = std::move(others)};
    options.boundary = {
        .dtype = static_cast<uint8_t>(model.dtype),
        .rank = 2,
        .shape = {tokens, hidden, 0, 0},
        .num_bytes = static_cast<uint64_t>(tokens * hidden * DTypeBytes(model.dtype))};
    options.tied = table_.tied();
    options.shared = [this](StageId stage, SharedWeights weights) {
      return SharedTensor(stage, weights);
    };
    options.steps = {.steps = kSteps,
                     .num_microbatches = model.batch.num_microbatches,
                     .global_batch_size = model.batch.global_batch_size,
                     .num_parameters = table_.size(),
                     .grad_clip = 0.7,
                     .checkpoint_at_end = false};
    // Every order in its turn.
    options.steps.order = [turn = size_t{0}, num_orders = options.others.size() + 1]() mutable {
      return turn++ % num_orders;
    };
    options.steps.learning_rate = [](int64_t step) { return 0.01 * static_cast<double>(step); };
    options.on_executor = [this](Rank rank, const ExecutorAnswers& executor) {
      for (const auto& meet : meet_[rank]) CHECK(meet(executor).ok());
    };
    job_ = std::make_unique<InProcessJob>(
        std::move(options),
        [this](const InProcessJob::RankContext& context) { return NewStage(context); },
        [this](const InProcessJob::RankContext& context) { return NewLoader(context); });
  }

  Outcome Run() {
    job_->Run();
    Outcome outcome;
    CHECK(job_->errors.empty(), "{}", job_->errors.front());
    CHECK(job_->ended, "the job stands still");
    for (const auto& metrics : job_->metrics) {
      outcome.losses.push_back(metrics.loss());
      outcome.norms.push_back(metrics.grad_norm());
    }
    for (auto& stage : stages_) {
      for (const StageParameter& p : stage->parameters().all()) {
        const std::string bytes(static_cast<const char*>(p.weight.data()),
                                static_cast<size_t>(p.weight.num_bytes()));
        // All copies of a weight agree.
        const auto [at, fresh] = outcome.weights.emplace(p.spec->name, bytes);
        CHECK(fresh || at->second == bytes, "{} differs between its stages", p.spec->name);
      }
    }
    return outcome;
  }

 private:
  static bool HasHalves(const Schedule& schedule) {
    return std::ranges::any_of(schedule.ranks, [](const std::vector<Action>& actions) {
      return std::ranges::any_of(
          actions, [](const Action& action) { return action.kind == ActionKind::kBackwardInput; });
    });
  }
  const StageLayout& LayoutOf(StageId stage) const {
    return partition_[static_cast<size_t>(OwnerOf(train_, stage).value)];
  }
  TensorDescriptor SharedTensor(StageId stage, SharedWeights weights) const {
    int64_t elements = 0;
    if (weights == SharedWeights::kTied) {
      elements = table_[table_.embedding_index()].num_elements();
    } else {
      for (const int index : ParametersOf(table_, LayoutOf(stage))) {
        elements += table_[index].num_elements();
      }
    }
    return {.dtype = static_cast<uint8_t>(DType::kFloat32),
            .rank = 1,
            .shape = {elements, 0, 0, 0},
            .num_bytes = static_cast<uint64_t>(elements * 4)};
  }
  StageRef NewStage(const InProcessJob::RankContext& context) {
    StageModelOptions options;
    options.shape = {.model = model_.config,
                     .layout = LayoutOf(context.stage),
                     .batch = model_.batch,
                     .widths = WidthsOf(model_.dtype),
                     .halves = halves_};
    options.shape.batch.num_microbatches = train_.MicrobatchesPerDirection();
    options.shape.batch.gradient_groups /= train_.num_directions;
    options.dtype = model_.dtype;
    options.owner = OwnerOf(train_, context.stage) == context.stage;
    stages_.push_back(std::make_unique<StageModel>(options, table_, ledger_));
    stages_.back()->parameters().Initialize(model_.seed);
    stages_.back()->WeightsChanged();
    streams_.push_back(std::make_unique<InlineStream>(context.scheduler));
    const auto stage = context.scheduler.Spawn<StageActor>(
        {.name = fmt::format("stage {}", context.stage)},
        StageOptions{.rank = context.rank,
                     .stage = context.stage,
                     .last = train_.IsLastStage(context.stage),
                     .first_microbatch = train_.FirstMicrobatch(context.stage).value,
                     .adamw = adamw_},
        *stages_.back(), *streams_.back());
    meet_[context.rank].push_back(
        [stage](const ExecutorAnswers& e) { return stage.Send(MeetExecutor{e}); });
    return stage;
  }
  LoaderRef NewLoader(const InProcessJob::RankContext& context) {
    const auto loader = context.scheduler.Spawn<RandomLoader>({.name = "loader"}, model_);
    meet_[context.rank].push_back(
        [loader](const ExecutorAnswers& e) { return loader.Send(MeetExecutor{e}); });
    return loader;
  }

  const SmallModel model_;
  const Schedule train_;
  const AdamWOptions adamw_;
  const ParameterTable table_;
  std::vector<StageLayout> partition_;
  bool halves_ = false;
  MemoryLedger ledger_;
  std::vector<std::unique_ptr<StageModel>> stages_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::map<Rank, std::vector<std::function<Status(const ExecutorAnswers&)>>> meet_;
  std::unique_ptr<InProcessJob> job_;
};

}  // namespace troupe::testing
