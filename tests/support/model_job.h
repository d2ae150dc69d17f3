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
  RandomLoader(const SmallModel& model, int data_parallel_rank, int context_rank)
      : model_(model), data_parallel_rank_(data_parallel_rank), context_rank_(context_rank) {}
  Status On(MeetExecutor meet) {
    executor_ = meet.executor;
    return {};
  }
  Status On(FetchMicrobatches fetch) {
    MicrobatchesReady ready{.round = fetch.round};
    for (int32_t m = 0; m < fetch.num_microbatches; ++m) {
      // All pipelines sample the same.
      const bool samples = fetch.mode == proto::STEP_MODE_SAMPLE;
      const auto number = static_cast<int32_t>(fetch.first_sample) +
                          (samples ? m : model_.batch.NumberInStep(data_parallel_rank_, m));
      ready.microbatches.push_back(
          std::make_shared<const Microbatch>(RandomMicrobatch(model_, number, context_rank_)));
    }
    return executor_.Send(std::move(ready));
  }

 private:
  const SmallModel& model_;
  const int data_parallel_rank_;
  const int context_rank_;
  ExecutorAnswers executor_{};
};

// What a job leaves to compare.
struct Outcome {
  std::vector<std::optional<double>> losses{};  // none of a skipped step
  std::vector<std::optional<double>> norms{};
  std::map<std::string, std::string> weights{};
  // Of the first step: a constant times the gradient's mean.
  std::map<std::string, std::string> first_moments{};
  std::vector<std::optional<double>> val_losses{};  // where it evaluates
  std::string sampled{};                            // where it samples
};

class ModelJob {
 public:
  static constexpr int kSteps = 2;

  // The schedule's stages of one direction are the model's; batch.num_microbatches its
  // microbatches; batch.data_parallel pipelines, and each of batch.context.num_ranks beside it.
  ModelJob(const SmallModel& model, Schedule train, const ExecutionPolicy& policy = {},
           const AdamWOptions& adamw = {}, std::vector<TrainSchedule> others = {},
           const JobSteps& steps = {.steps = kSteps, .grad_clip = 0.7})
      : model_(model), adamw_(adamw) {
    InProcessJobOptions options{.train = std::move(train),
                                .policy = policy,
                                .others = std::move(others),
                                .config = model.config,
                                .batch = model.batch,
                                .recompute = model.recompute,
                                .zero = model.zero,
                                .bucket_bytes = model.bucket_bytes,
                                .dtype = model.dtype,
                                .rounds_gradients = model.rounds_gradients,
                                .reduction = model.reduction,
                                .steps = steps};
    num_orders_ = options.others.size() + 1;
    job_ = std::make_unique<InProcessJob>(
        std::move(options),
        [this](const RankPlace& place, StageId stage) { return NewStage(place, stage); },
        [this](const RankPlace& place) {
          const Mesh& mesh = place.plan.mesh;
          return place.scheduler.Spawn<RandomLoader>({.name = "loader"}, model_,
                                                     mesh.Coordinate(place.rank, Axis::kDp),
                                                     mesh.Coordinate(place.rank, Axis::kCp));
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
    Outcome outcome;
    job_->on_step = [&](int64_t step) {
      if (step == 1) outcome.first_moments = WholeOf(&StageParameter::m);
    };
    job_->Run();
    CHECK(job_->errors.empty(), "{}", job_->errors.front());
    CHECK(job_->ended, "the job stands still");
    for (const auto& metrics : job_->metrics) {
      const bool skipped = !metrics.has_loss();
      outcome.losses.push_back(skipped ? std::nullopt : std::optional(metrics.loss()));
      outcome.norms.push_back(skipped ? std::nullopt : std::optional(metrics.grad_norm()));
    }
    for (const auto& evaluation : job_->evaluations) {
      const bool none = !evaluation.has_val_loss();
      outcome.val_losses.push_back(none ? std::nullopt : std::optional(evaluation.val_loss()));
    }
    outcome.sampled = job_->sampled;
    CheckCopies();
    outcome.weights = WholeOf(&StageParameter::weight);
    return outcome;
  }

 private:
  static std::string BytesAt(const TensorView& view) {
    return {static_cast<const char*>(view.data()), static_cast<size_t>(view.num_bytes())};
  }

  // What products read of a weight agrees between all stages.
  void CheckCopies() {
    std::map<std::string, std::string> copies;
    for (auto& stage : stages_) {
      if (stage->parameters().gathered()) continue;
      for (const StageParameter& p : stage->parameters().all()) {
        const auto [copy, first] = copies.emplace(p.spec->name, BytesAt(p.compute));
        CHECK(first || copy->second == BytesAt(p.compute), "{} differs between its stages",
              p.spec->name);
      }
    }
  }
  // By parameter; all copies of a shard agree.
  std::map<std::string, std::string> WholeOf(TensorView StageParameter::*tensor) {
    std::map<std::pair<std::string, int64_t>, std::string> shards;
    for (auto& stage : stages_) {
      for (const StageParameter& p : stage->parameters().all()) {
        if (p.shard.num_elements == 0) continue;
        const std::string bytes = BytesAt(p.*tensor);
        const auto [at, fresh] =
            shards.emplace(std::pair(p.spec->name, p.shard.first_element), bytes);
        CHECK(fresh || at->second == bytes, "{} differs between its owners", p.spec->name);
      }
    }
    std::map<std::string, std::string> whole;
    for (const auto& [shard, bytes] : shards) whole[shard.first] += bytes;
    return whole;
  }

  SpawnedStage NewStage(const RankPlace& place, StageId stage) {
    StageModelOptions options;
    options.shape = place.plan.ShapeOf(stage);
    options.dtype = model_.dtype;
    options.new_layer = model_.new_layer;
    options.shards = place.plan.ShardPlaceOf(place.rank, stage);
    options.listed_reduction = place.plan.train.ListsSums(stage);
    StageModel*& own = of_stages_[{place.rank, stage}];
    stages_.push_back(std::make_unique<StageModel>(options, place.plan.table, ledger_));
    stages_.back()->parameters().Initialize(model_.seed);
    stages_.back()->WeightsChanged();
    stages_.back()->Join(place.Sharing());
    own = stages_.back().get();
    return place.scheduler.Spawn<StageActor>(
        {.name = fmt::format("stage {}", stage)},
        StageOptions{
            .rank = place.rank,
            .stage = stage,
            .last = place.plan.train.IsLastStage(stage),
            .first_microbatch = place.plan.train.FirstMicrobatch(stage).value,
            .context_rank = place.plan.mesh.Coordinate(place.rank, Axis::kCp),
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
