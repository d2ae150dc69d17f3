// The stages of all ranks of a small job, built from its plan as each rank builds its own, for
// tests of what is saved and loaded.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "actors/stage_set.h"

namespace troupe::testing {

struct SmallLayout {
  int pp = 1;
  int dp = 1;
  int zero_stage = 0;
  std::string schedule = "1f1b";
  bool tied = false;
  int cp = 1;
};

inline proto::JobSpec SmallSpec(const SmallLayout& layout = {}) {
  proto::JobSpec spec;
  auto& model = *spec.mutable_model();
  model.set_hidden_size(16);
  model.set_intermediate_size(24);
  model.set_num_hidden_layers(4);
  model.set_num_attention_heads(4);
  model.set_num_key_value_heads(2);
  model.set_vocab_size(29);
  model.set_tie_word_embeddings(layout.tied);
  auto& batch = *spec.mutable_batch();
  batch.set_micro_batch_size(2);
  batch.set_global_batch_size(16);
  batch.set_seq_len(6);
  batch.set_gradient_groups(layout.dp > 1 ? layout.dp : layout.cp > 1 ? 1 : 2);
  spec.mutable_parallelism()->set_pp(layout.pp);
  spec.mutable_parallelism()->set_dp(layout.dp);
  spec.mutable_parallelism()->set_cp(layout.cp);
  spec.mutable_parallelism()->set_zero_stage(layout.zero_stage);
  spec.mutable_parallelism()->set_schedule(layout.schedule);
  spec.mutable_optimizer()->set_lr(0.001);
  spec.mutable_train()->set_steps(20);
  spec.mutable_train()->set_seed(5);
  return spec;
}

inline std::string BytesAt(const TensorView& view) {
  return {static_cast<const char*>(view.data()), static_cast<size_t>(view.num_bytes())};
}

class RankStages {
 public:
  // Weights and moments are zeros.
  explicit RankStages(const proto::JobSpec& spec) : spec_(spec), plan_(PlanOf(spec)) {
    for (int rank = 0; rank < num_ranks(); ++rank) {
      stages_.push_back(BuildStages(spec_, plan_, Rank(rank), ledger_));
    }
  }

  int num_ranks() const { return plan_.mesh.num_ranks(); }
  const JobPlan& plan() const { return plan_; }
  StageSet& stages(int rank) { return stages_[static_cast<size_t>(rank)]; }
  std::vector<const StageParameters*> parameters(int rank) const {
    return ParametersOf(stages_[static_cast<size_t>(rank)]);
  }
  // What every rank is told but its number.
  proto::StartRank Start(const std::string& run_directory = "") const {
    proto::StartRank start;
    *start.mutable_spec() = spec_;
    start.set_world_size(num_ranks());
    start.set_run_directory(run_directory);
    return start;
  }

  // As ranks do when they start; the step of the last one.
  Result<int64_t> Fill(const proto::StartRank& start, FileSystem& files = SystemFiles()) {
    int64_t step = 0;
    for (StageSet& stages : stages_) {
      ASSIGN_OR_RETURN(step, FillStages(files, start, stages));
    }
    return step;
  }
  // Weights by `seed`, and moments that are no other element's.
  void FillBySeed(int seed) {
    proto::StartRank start = Start();
    start.mutable_spec()->mutable_train()->set_seed(seed);
    CHECK(Fill(start).ok());
    for (const auto& [number, p] : All()) {
      for (int64_t i = 0; i < p->m.num_elements(); ++i) {
        const auto element = static_cast<float>(1000 * p->index + i);
        p->m.Flat().as<float>()[i] = element + static_cast<float>(seed) / 64;
        p->v.Flat().as<float>()[i] = -element;
      }
    }
  }

  // Weight, first and second moment of every parameter. All copies must agree.
  std::map<std::string, std::string> Bytes() const {
    std::map<std::string, std::string> bytes;
    for (const auto& [rank, p] : All()) {
      const std::string own = BytesAt(p->weight) + BytesAt(p->m) + BytesAt(p->v);
      const auto [at, fresh] = bytes.emplace(p->spec->name, own);
      CHECK(fresh || at->second == own, "{} differs between its stages", p->spec->name);
    }
    return bytes;
  }
  // Without the moments.
  std::map<std::string, std::string> WeightBytes() const {
    std::map<std::string, std::string> bytes;
    for (const auto& [rank, p] : All()) bytes[p->spec->name] = BytesAt(p->weight);
    return bytes;
  }
  std::vector<std::pair<int, const StageParameter*>> All() const {
    std::vector<std::pair<int, const StageParameter*>> all;
    for (int rank = 0; rank < num_ranks(); ++rank) {
      for (const StageParameters* stage : parameters(rank)) {
        for (const StageParameter& p : stage->all()) all.emplace_back(rank, &p);
      }
    }
    return all;
  }

 private:
  static JobPlan PlanOf(const proto::JobSpec& spec) {
    auto plan = MakeJobPlan(spec);
    CHECK(plan.ok(), "{}", plan.error().message);
    return *std::move(plan);
  }

  const proto::JobSpec spec_;
  const JobPlan plan_;
  MemoryLedger ledger_{};
  std::vector<StageSet> stages_{};
};

}  // namespace troupe::testing
