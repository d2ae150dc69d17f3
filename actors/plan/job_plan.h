// JobPlan: everything that follows from an effective job: what each rank holds, in which order it
// works, what it needs. The coordinator prints it and every rank builds itself from it, so both
// mean the same. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "actors/plan/batch_arithmetic.h"
#include "actors/plan/data_parallel_keys.h"
#include "actors/plan/gradient_reduction.h"
#include "actors/plan/learning_rate.h"
#include "actors/plan/memory_model.h"
#include "actors/plan/mesh.h"
#include "actors/plan/model_config.h"
#include "actors/plan/parameter_shard.h"
#include "actors/plan/parameter_table.h"
#include "actors/plan/recompute.h"
#include "actors/plan/stage_partition.h"
#include "actors/plan/train_schedule.h"
#include "actors/schedule/channels.h"
#include "actors/schedule/execution_policy.h"
#include "actors/schedule/schedule.h"
#include "actors/schedule/simulator.h"
#include "proto/job.pb.h"

namespace troupe {

struct JobPlan {
  Mesh mesh{};
  ModelConfig config{};
  ParameterTable table;
  BatchArithmetic batch{};
  NumberWidths widths{};
  Recompute recompute = Recompute::kNone;
  int num_threads = 1;  // math threads of a worker
  ZeroSharding zero{};  // as asked; where one rank has the weights nothing is shared
  ReductionAlgorithm reduction = ReductionAlgorithm::kOrdered;  // over ranks with the same weights
  int64_t bucket_bytes = kBucketBytes;                          // as StageShape has it
  std::vector<StageLayout> stages{};  // by StageId; the other direction's have their owner's
  Schedule train{};
  ExecutionPolicy policy{};  // of training
  // What a re-plan may run instead, with the same stages on the same ranks. Slots and memory below
  // are enough for any of them.
  std::vector<TrainSchedule> others{};
  std::string reason{};   // why `train`, where it was chosen (JobOrders)
  bool ascending = true;  // bit-equal to one worker in float32 (TrainSchedule)
  bool halves = false;    // some backward comes in halves
  Schedule evaluate{};    // forward only
  Schedule sample{};      // forward only, one microbatch
  std::vector<Channel> channels{};
  std::vector<GradientReduction> reductions{};
  std::vector<int> peak_microbatches{};  // per stage: most that are kept at once
  Simulation simulation{};               // of a step, by FLOPs (1 ns each)
  LearningRate learning_rate{};

  // A rank's place in the schedules, and its stages there.
  PipelineRank PipelineRankOf(Rank rank) const { return mesh.PipelineRankOf(rank); }
  std::vector<StageId> StagesOf(Rank rank) const { return train.StagesOf(PipelineRankOf(rank)); }
  // The members of the reduction's group in the order of the sum: the ranks of `rank`'s pipeline
  // that hold a copy, ascending. Of kStage those of each pipeline in its turn (Mesh::ReplicasOf),
  // the first direction's before the second's (gradient_piece.h, MemberOf).
  std::vector<Rank> MembersOf(const GradientReduction& reduction, Rank rank) const;

  // Of a rank that holds the stage, among all that do.
  ShardPlace ShardPlaceOf(Rank rank, StageId stage) const;
  int num_owners() const;          // with the same weights between them, by zero
  int num_shard_replicas() const;  // with the same shard: of those owners there are so many groups
  // Owners of one copy of the weights, and those with one shard, meet beside all that hold a stage.
  bool RepeatsShards() const { return num_owners() > 1 && num_shard_replicas() > 1; }
  // The ranks that share the weights of `rank` between them, by owner: among them go gathers.
  std::vector<Rank> OwnersOf(Rank rank) const;
  // The ranks with the same shard of the stage, by replica.
  std::vector<Rank> ShardReplicasOf(Rank rank, StageId stage) const;
  // Whether ranks bring all weights together after each update (ZeRO-1 and 2), or each unit's
  // before a pass over it (ZeRO-3).
  bool GathersAfterUpdate() const { return num_owners() > 1 && zero.stage < 3; }
  bool GathersUnits() const { return num_owners() > 1 && zero.stage == 3; }
  // Votes and saves its shards of the parameters of `stage`, one of its own.
  bool Owns(Rank rank, StageId stage) const;
  // Writes the stage's weights into an exported model: one rank of those that have them.
  bool Exports(Rank rank, StageId stage) const;
  // By parameter of the table, the place in the pipeline whose rank exports it.
  std::vector<PipelineRank> ExportedBy() const;
  // What the stage of one rank computes with; its microbatches are those of its direction, and
  // where one rank has its weights its zero.stage is 0.
  StageShape ShapeOf(StageId stage) const;
  // Of a tied weight those of the shard, where it is in shards.
  int64_t ElementsOf(const GradientReduction& reduction, const ShardPlace& shards = {}) const;
  // Of the blocks in which gradients are reduced between ranks: the largest, where all are small.
  int64_t ReductionSlotBytes() const;
  // Of the blocks in which owners send what others gather of a row: no run is larger, or it goes in
  // several.
  int64_t ShardSlotBytes() const;
  // By tag, on a CPU with these vector instructions: all but the workspace is the same on any.
  MemoryPrediction MemoryOf(Rank rank, VectorIsa isa) const;
};

// Every error found, each by field name, as far as one does not follow from another; a plan where
// there is none. `orders` (JobOrders) take the place of the job's
// own parallelism; where they are empty and the schedule is to be chosen, it is by FLOPs.
struct JobPlanReading {
  std::optional<JobPlan> plan{};
  std::vector<Error> errors{};
};
JobPlanReading ReadJobPlan(const proto::JobSpec& spec,
                           std::span<const proto::Parallelism> orders = {});

// The first error, for those who were given an effective job.
Result<JobPlan> MakeJobPlan(const proto::JobSpec& spec,
                            std::span<const proto::Parallelism> orders = {});

// Fills in what follows from the plan's schedules, policies and stages: forward-only lists, halves,
// slots, reductions, peaks. For plans that are made without a spec too: the mesh is known.
Status DeriveFromSchedules(JobPlan& plan);

// The same job on one worker: the reference that parity is measured against. Microbatches, gradient
// groups and when gradients are added stay.
proto::JobSpec SingleWorkerSpec(const proto::JobSpec& spec);

}  // namespace troupe
