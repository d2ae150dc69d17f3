// Whole jobs of small real models through the real executor, stage and schedule actors over the
// inproc transport, under any schedule and policy.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/rank_setup.h"
#include "actors/stage_actor.h"
#include "tests/support/in_process_job.h"
#include "tests/support/small_model.h"

namespace troupe::testing {

class RandomLoader : public Actor<RandomLoader, MeetExecutor, FetchMicrobatches> {
 public:
  RandomLoader(const SmallModel& model, int data_parallel_rank)
      : model_(model), data_parallel_rank_(data_parallel_rank) {}
  Status On(MeetExecutor meet) {
    executor_ = meet.executor;
    return {};
  }
  Status On(FetchMicrobatches fetch) {
    MicrobatchesReady ready{.round = fetch.round};
    for (int32_t m = 0; m < fetch.num_microbatches; ++m) {
      const auto number = static_cast<int32_t>(fetch.first_sample) +
                          model_.batch.NumberInStep(data_parallel_rank_, m);
      ready.microbatches.push_back(
          std::make_shared<const Microbatch>(RandomMicrobatch(model_, number)));
    }
    return executor_.Send(std::move(ready));
  }

 private:
  const SmallModel& model_;
  const int data_parallel_rank_;
  ExecutorAnswers executor_{};
};

// What a job leaves to compare.
struct Outcome {
  std::vector<std::optional<double>> losses{};  // none of a skipped step
  std::vector<std::optional<double>> norms{};
  std::map<std::string, std::string> weights{};
};

class ModelJob {
 public:
  static constexpr int kSteps = 2;

  // The schedule's stages of one direction are the model's; batch.num_microbatches its
  // microbatches; batch.data_parallel pipelines.
  ModelJob(const SmallModel& model, Schedule train, const ExecutionPolicy& policy = {},
           const AdamWOptions& adamw = {}, std::vector<TrainSchedule> others = {})
      : model_(model), adamw_(adamw) {
    InProcessJobOptions options{.train = std::move(train),
                                .policy = policy,
                                .others = std::move(others),
                                .config = model.config,
                                .batch = model.batch,
                                .zero = model.zero,
                                .bucket_bytes = model.bucket_bytes,
                                .dtype = model.dtype,
                                .rounds_gradients = model.rounds_gradients,
                                .reduction = model.reduction,
                                .steps = {.steps = kSteps, .grad_clip = 0.7}};
    num_orders_ = options.others.size() + 1;
    job_ = std::make_unique<InProcessJob>(
        std::move(options),
        [this](const RankPlace& place, StageId stage) { return NewStage(place, stage); },
        [this](const RankPlace& place) {
          return place.scheduler.Spawn<RandomLoader>(
              {.name = "loader"}, model_, place.plan.mesh.Coordinate(place.rank, Axis::kDp));
        });
  }

  InProcessJob& job() { return *job_; }
  // Of all stages of all ranks, and as the plan says.
  int64_t PeakBytes(MemoryTag tag) const {
    return ledger_.Snapshot().peak_bytes[static_cast<size_t>(tag)];
  }
  int64_t PredictedBytes(MemoryTag tag) const {
    int64_t num_bytes = 0;
    for (int rank = 0; rank < job_->plan().mesh.num_ranks(); ++rank) {
      num_bytes += job_->plan().MemoryOf(Rank(rank), ThisVectorIsa())[static_cast<size_t>(tag)];
    }
    return num_bytes;
  }

  Outcome Run() {
    // Every order in its turn.
    job_->after_pass = [this] { job_->Choose((job_->metrics.size() + 1) % num_orders_); };
    job_->Run();
    Outcome outcome;
    CHECK(job_->errors.empty(), "{}", job_->errors.front());
    CHECK(job_->ended, "the job stands still");
    for (const auto& metrics : job_->metrics) {
      const bool skipped = !metrics.has_loss();
      outcome.losses.push_back(skipped ? std::nullopt : std::optional(metrics.loss()));
      outcome.norms.push_back(skipped ? std::nullopt : std::optional(metrics.grad_norm()));
    }
    // All copies of a weight agree, and so do all of a shard's.
    std::map<std::pair<std::string, int64_t>, std::string> shards;
    std::map<std::string, std::string> copies;
    const auto bytes_of = [](const TensorView& view) {
      return std::string(static_cast<const char*>(view.data()),
                         static_cast<size_t>(view.num_bytes()));
    };
    for (auto& stage : stages_) {
      for (const StageParameter& p : stage->parameters().all()) {
        const std::string& name = p.spec->name;
        if (!stage->parameters().gathered()) {
          const auto [copy, first] = copies.emplace(name, bytes_of(p.compute));
          CHECK(first || copy->second == bytes_of(p.compute), "{} differs between its stages",
                name);
        }
        if (p.shard.num_elements == 0) continue;
        const auto [at, fresh] =
            shards.emplace(std::pair(name, p.shard.first_element), bytes_of(p.weight));
        CHECK(fresh || at->second == bytes_of(p.weight), "{} differs between its owners", name);
      }
    }
    for (const auto& [shard, bytes] : shards) outcome.weights[shard.first] += bytes;
    return outcome;
  }

 private:
  SpawnedStage NewStage(const RankPlace& place, StageId stage) {
    StageModelOptions options;
    options.shape = place.plan.ShapeOf(stage);
    options.dtype = model_.dtype;
    options.shards = place.plan.ShardPlaceOf(place.rank, stage);
    options.listed_reduction = place.plan.train.ListsSums(stage);
    StageModel*& own = of_stages_[{place.rank, stage}];
    stages_.push_back(std::make_unique<StageModel>(options, place.plan.table, ledger_));
    stages_.back()->parameters().Initialize(model_.seed);
    stages_.back()->WeightsChanged();
    own = stages_.back().get();
    return place.scheduler.Spawn<StageActor>(
        {.name = fmt::format("stage {}", stage)},
        StageOptions{
            .rank = place.rank,
            .stage = stage,
            .last = place.plan.train.IsLastStage(stage),
            .first_microbatch = place.plan.train.FirstMicrobatch(stage).value,
            .adamw = adamw_,
            .reductions = place.groups.ReductionsOf(stage,
                                                    [this, rank = place.rank](StageId copy) {
                                                      return of_stages_.at({rank, copy});
                                                    }),
            .siblings = place.groups.SiblingsOf(stage),
            .rows = place.shards.OfStage(stage),
            .stage_of_rank =
                [this, rank = place.rank](StageId held) {
                  return of_stages_.at({rank, held});
                }},
        *stages_.back(), place.stream);
  }

  const SmallModel model_;
  const AdamWOptions adamw_;
  size_t num_orders_ = 1;
  MemoryLedger ledger_;
  std::vector<std::unique_ptr<StageModel>> stages_;
  std::map<std::pair<Rank, StageId>, StageModel*> of_stages_{};
  std::unique_ptr<InProcessJob> job_;
};

}  // namespace troupe::testing
