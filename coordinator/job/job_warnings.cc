#include "coordinator/job/job_warnings.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "actors/plan/batch_arithmetic.h"
#include "actors/plan/data_parallel_keys.h"
#include "actors/plan/job_orders.h"
#include "actors/plan/job_shape.h"
#include "actors/plan/recompute.h"
#include "actors/plan/train_schedule.h"
#include "runtime/format/token_file.h"

namespace troupe {
namespace {

class Oddities {
 public:
  Oddities(const proto::JobSpec& spec, const Provenance& provenance)
      : spec_(spec), provenance_(provenance) {}

  std::vector<std::string> Run() {
    Periods();
    Resume();
    Rates();
    Data();
    Pipeline();
    DataParallel();
    SharedSequences();
    Recomputation();
    return std::move(found_);
  }

 private:
  template <typename... Args>
  void Say(fmt::format_string<Args...> format, Args&&... args) {
    found_.push_back(fmt::format(format, std::forward<Args>(args)...));
  }
  bool Written(std::string_view key) const {
    const auto origin = provenance_.find(key);
    return origin != provenance_.end() && !origin->second.place.where.empty();
  }

  // Steps of this run, and the key that says so.
  std::pair<int, std::string_view> Steps() const {
    const proto::Train& train = spec_.train();
    if (train.stop_after() > 0) return {train.stop_after(), "train.stop_after"};
    return {train.steps(), "train.steps"};
  }

  void Periods() {
    const auto [steps, key] = Steps();
    const auto longer = [&](std::string_view name, int value, std::string_view what) {
      if (Written(name) && value > steps) {
        Say("{} = {} is more than {} = {}: {}", name, value, key, steps, what);
      }
    };
    longer("lr_scheduler.warmup_steps", spec_.lr_scheduler().warmup_steps(),
           "the warm-up outlasts the run, which never reaches optimizer.lr");
    longer("eval.every", spec_.eval().every(), "nothing is evaluated");
    longer("checkpoint.every", spec_.checkpoint().every(),
           "the only checkpoint is that of the end");
    if (spec_.log().trace().steps() > 0) {
      longer("log.trace.first", spec_.log().trace().first(), "no step is traced");
    }
    longer("log.every", spec_.log().every(), "few steps are shown");
    if (Written("data.val_fraction") && spec_.data().val_fraction() > 0 &&
        spec_.eval().every() == 0) {
      Say("data.val_fraction = {} keeps data from training, and eval.every = 0 evaluates on none",
          spec_.data().val_fraction());
    }
  }

  void Resume() {
    const proto::Checkpoint& checkpoint = spec_.checkpoint();
    if (checkpoint.resume_as() != "new_run" || checkpoint.resume().starts_with('/')) return;
    Say("checkpoint.resume_as = new_run has no effect: checkpoint.resume names no checkpoint of "
        "another run");
  }

  void Rates() {
    constexpr double kRateMax = 0.1;
    const proto::Optimizer& optimizer = spec_.optimizer();
    const proto::LrScheduler& scheduler = spec_.lr_scheduler();
    if (optimizer.lr() > kRateMax) {
      Say("optimizer.lr = {} is more than AdamW bears, as a rule: 1e-4 to 1e-2 are usual",
          optimizer.lr());
    }
    if (optimizer.lr() * optimizer.weight_decay() >= 1) {
      Say("optimizer.weight_decay = {} times optimizer.lr = {} takes away whole weights each step",
          optimizer.weight_decay(), optimizer.lr());
    }
    if (optimizer.betas(0) > optimizer.betas(1)) {
      Say("optimizer.betas = [{}, {}]: the first is usually the smaller one", optimizer.betas(0),
          optimizer.betas(1));
    }
    if (scheduler.name() == "constant") {
      for (const char* key : {"lr_scheduler.decay_steps", "lr_scheduler.min_lr"}) {
        if (Written(key)) Say("{} has no effect: lr_scheduler.name = constant", key);
      }
    } else if (const auto [steps, key] = Steps();
               scheduler.min_lr() == 0 && scheduler.decay_steps() < steps) {
      Say("lr_scheduler.decay_steps = {} is less than {} = {}, and lr_scheduler.min_lr = 0: "
          "nothing "
          "is learnt after it",
          scheduler.decay_steps(), key, steps);
    }
  }

  void Data() {
    const auto format = ParseTokenFormat(spec_.data().format());
    const int vocab_size = spec_.model().vocab_size();
    if (!format.ok() || !BytesAreTokens(*format, spec_.data().train())) return;
    if (spec_.model().has_init_from() && vocab_size > 256) {
      Say("data.train = {} gives bytes as tokens, but model.init_from has a vocabulary of {}: its "
          "tokens mean something else",
          spec_.data().train(), vocab_size);
    }
  }

  void Pipeline() {
    const auto batch = BatchOf(spec_.batch(), std::max(1, spec_.parallelism().dp()));
    const int pp = spec_.parallelism().pp();
    if (!batch.ok() || batch->num_microbatches >= pp) return;
    Say("parallelism.pp = {} with {} microbatch{} a step: most ranks wait most of the time; raise "
        "batch.global_batch_size, or lower batch.micro_batch_size",
        pp, batch->num_microbatches, batch->num_microbatches == 1 ? "" : "es");
  }

  void DataParallel() {
    const proto::Parallelism& p = spec_.parallelism();
    const int64_t replicas = WeightReplicasOf(p);
    if (Written("parallelism.zero_stage") && p.zero_stage() > 0 && replicas <= 1) {
      Say("parallelism.zero_stage = {} has no effect: parallelism.dp = 1, so nothing is shared out",
          p.zero_stage());
    }
    const std::pair<const char*, const char*> of_shards[] = {
        {"parallelism.zero_group", "shards"}, {"parallelism.persist_elements", "parameters"}};
    for (const auto& [key, what] : of_shards) {
      if (!Written(key) || p.zero_stage() > 0) continue;
      Say("{} has no effect: parallelism.zero_stage = 0 keeps all {} whole", key, what);
    }
    if (p.zero_stage() > 0 && replicas > 1 && p.has_zero_group() && p.zero_group() == 1) {
      Say("parallelism.zero_group = 1: every rank has all shards, as with parallelism.zero_stage = "
          "0; use more");
    }
    std::vector<Error> told;  // by CheckJob
    if (replicas <= 1 && ReadReduction(spec_, told) != ReductionAlgorithm::kOrdered) {
      Say("{} has no effect: parallelism.dp = 1, so nothing is added up over ranks",
          p.reduction() == kRingReduction ? "parallelism.reduction" : "data_parallel.algorithm");
    }
    const auto grad_reduce = GradReduceOf(p);
    const bool whole = (p.zero_stage() == 0 || p.zero_group() == 1) && replicas > 1 &&
                       grad_reduce.ok() && *grad_reduce == GradReduce::kStep;
    if (Written("parallelism.bucket_bytes") && !whole) {
      Say("parallelism.bucket_bytes has no effect: only gradients that are whole "
          "(parallelism.zero_stage = 0) and added up once a step over ranks go in runs of it");
    }
    for (const char* key : {"parallelism.zero_prefetch", "parallelism.reshard_after_forward"}) {
      if (!Written(key) || p.zero_stage() == 3) continue;
      Say("{} has no effect: parallelism.zero_stage = {}, and only 3 gathers units", key,
          p.zero_stage());
    }
  }

  void SharedSequences() {
    if (spec_.parallelism().cp() > 1) return;
    for (const char* key : {"parallelism.cp_method", "parallelism.cp_load_balance"}) {
      if (Written(key)) Say("{} has no effect: parallelism.cp = 1, so no sequence is shared", key);
    }
  }

  // Between the halves of a backward what was computed again waits beside what was kept.
  void Recomputation() {
    const proto::Parallelism& p = spec_.parallelism();
    const auto recompute = RecomputeOf(spec_.train());
    if (!recompute.ok() || *recompute == Recompute::kNone) return;
    if (!Trains(spec_)) {
      return Say("train.recompute = {} has no effect: kind = {} runs no backward",
                 spec_.train().recompute(), spec_.kind());
    }
    if (ChoosesSchedule(p)) return;  // which may come without halves
    const auto batch = BatchOf(spec_.batch(), std::max(1, p.dp()));
    if (!batch.ok()) return;
    const auto train = TrainScheduleOf(p, p.pp(), batch->num_microbatches);
    if (!train.ok() || !train->schedule.HasHalves()) return;
    Say("train.recompute = {} computes again and saves no memory: schedule {} runs backwards in "
        "halves, and what the second half reads is kept between them; use a schedule with whole "
        "ones, as 1f1b",
        spec_.train().recompute(), train->schedule.name);
  }

  const proto::JobSpec& spec_;
  const Provenance& provenance_;
  std::vector<std::string> found_{};
};

}  // namespace

std::vector<std::string> OddSettings(const proto::JobSpec& spec, const Provenance& provenance) {
  return Oddities(spec, provenance).Run();
}

}  // namespace troupe
