#include "coordinator/job/job_defaults.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "actors/plan/batch_arithmetic.h"
#include "actors/plan/context_parallel_keys.h"
#include "actors/plan/data_parallel_keys.h"
#include "actors/plan/job_orders.h"
#include "actors/plan/learning_rate.h"
#include "actors/plan/parameter_shard.h"
#include "actors/plan/recompute.h"
#include "actors/plan/trace_window.h"
#include "actors/plan/train_schedule.h"
#include "actors/schedule/generators.h"

namespace troupe {
namespace {

const Origin kDefault{.source = "default"};

// Sets `field` of `message` where it is not given.
#define TROUPE_DEFAULT(message, path, field, value)  \
  do {                                               \
    if (!(message)->has_##field()) {                 \
      (message)->set_##field(value);                 \
      provenance.emplace(path "." #field, kDefault); \
    }                                                \
  } while (false)

void ModelDefaults(proto::Model* model, Provenance& provenance) {
  if (model->has_num_attention_heads()) {
    TROUPE_DEFAULT(model, "model", num_key_value_heads, model->num_attention_heads());
    // Where the heads do not divide it, there is no default: that is refused later, by name.
    const int32_t heads = model->num_attention_heads();
    if (heads > 0 && model->hidden_size() > 0 && model->hidden_size() % heads == 0) {
      TROUPE_DEFAULT(model, "model", head_dim, model->hidden_size() / heads);
    }
  }
  TROUPE_DEFAULT(model, "model", max_position_embeddings, 2048);
  TROUPE_DEFAULT(model, "model", rms_norm_eps, 1e-6);
  TROUPE_DEFAULT(
      model, "model", rope_theta,
      model->rope_scaling().has_rope_theta() ? model->rope_scaling().rope_theta() : 10000.0);
  TROUPE_DEFAULT(model, "model", tie_word_embeddings, false);
  TROUPE_DEFAULT(model, "model", initializer_range, 0.02);
  TROUPE_DEFAULT(model, "model", hidden_act, "silu");
  TROUPE_DEFAULT(model, "model", attention_bias, false);
  TROUPE_DEFAULT(model, "model", mlp_bias, false);
}

// How the sums of a step are grouped where nobody says so. A bidirectional schedule sums each
// direction's microbatches by itself, one that is yet to be chosen keeps to one copy of the
// weights. What cannot be laid out is refused later.
int GradientGroups(const proto::Parallelism& p, const proto::Batch& batch) {
  const int ranks = std::max(1, p.dp());
  const auto grad_reduce = GradReduceOf(p);
  const auto read = BatchOf(batch, ranks, grad_reduce.ok() ? *grad_reduce : GradReduce::kStep);
  if (!read.ok()) return ranks;
  if (p.dp() < 1 || p.pp() < 1 || ChoosesSchedule(p)) return read->gradient_groups;
  const auto train = TrainScheduleOf(p, p.pp(), read->num_microbatches);
  if (!train.ok()) return read->gradient_groups;
  const int directions = train->schedule.num_directions;
  if (read->grad_reduce == GradReduce::kStep) return ranks * directions;
  if (directions == 2) return directions;
  // Where one rank has the weights nothing asks for groups that the order cannot close one by one.
  return train->ascending || WeightReplicasOf(p) > 1 ? read->gradient_groups : 1;
}

// What ranks with the same weights share out and how they add up, as far as it has an effect.
void SumDefaults(proto::JobSpec& spec, Provenance& provenance) {
  proto::Parallelism* p = spec.mutable_parallelism();
  const int64_t replicas = WeightReplicasOf(*p);
  if (replicas <= 1) return;
  TROUPE_DEFAULT(p, "parallelism", reduction, std::string(kOrderedReduction));
  if (p->zero_stage() > 0) {
    // Axes that are out of range are refused later.
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
    TROUPE_DEFAULT(p, "parallelism", zero_group, static_cast<int32_t>(std::min(replicas, kMost)));
    TROUPE_DEFAULT(p, "parallelism", persist_elements, ZeroSharding{}.persist_elements);
    return;
  }
  proto::DataParallel* data_parallel = spec.mutable_data_parallel();
  TROUPE_DEFAULT(data_parallel, "data_parallel", algorithm, std::string(kAllReduce));
  if (!ReducesEachMicrobatch(*p)) {
    TROUPE_DEFAULT(p, "parallelism", bucket_bytes, kBucketBytes);
  }
}

// How ranks share sequences, where they do. Unknown words stay, and are refused later.
void ContextDefaults(proto::JobSpec& spec, Provenance& provenance) {
  proto::Parallelism* p = spec.mutable_parallelism();
  if (p->cp() <= 1) return;
  std::vector<Error> told;
  const ContextParallel context = ReadContext(spec, p->cp(), told);
  TROUPE_DEFAULT(p, "parallelism", cp_method, std::string(ContextMethodName(context.method)));
  TROUPE_DEFAULT(p, "parallelism", cp_load_balance,
                 std::string(SequenceLayoutName(context.layout)));
  if (told.empty()) p->set_cp_method(std::string(ContextMethodName(context.method)));
}

void LayoutDefaults(proto::JobSpec& spec, Provenance& provenance) {
  proto::Parallelism* p = spec.mutable_parallelism();
  TROUPE_DEFAULT(p, "parallelism", dp, 1);
  TROUPE_DEFAULT(p, "parallelism", cp, 1);
  TROUPE_DEFAULT(p, "parallelism", tp, 1);
  TROUPE_DEFAULT(p, "parallelism", pp, 1);
  TROUPE_DEFAULT(p, "parallelism", ep, 1);
  TROUPE_DEFAULT(p, "parallelism", schedule, "1f1b");
  if (auto name = CanonicalScheduleName(p->schedule()); name.ok()) p->set_schedule(*name);
  proto::Batch* batch = spec.mutable_batch();
  if (const auto grad_reduce = GradReduceOf(*p); grad_reduce.ok()) {
    TROUPE_DEFAULT(p, "parallelism", grad_reduce, std::string(GradReduceName(*grad_reduce)));
  }
  if (p->zero_stage() == 3) {
    TROUPE_DEFAULT(p, "parallelism", zero_prefetch, ZeroSharding{}.prefetch);
    TROUPE_DEFAULT(p, "parallelism", reshard_after_forward, ZeroSharding{}.reshard_after_forward);
  }
  ContextDefaults(spec, provenance);
  SumDefaults(spec, provenance);
  TROUPE_DEFAULT(batch, "batch", gradient_groups, GradientGroups(*p, *batch));
  proto::Resources* resources = spec.mutable_resources();
  // Axes that are out of range are refused later; their product must not overflow here.
  const double product = double{1} * p->dp() * p->cp() * p->tp() * p->pp();
  TROUPE_DEFAULT(resources, "resources", workers,
                 static_cast<int32_t>(std::clamp(product, 0.0, 1e9)));
  TROUPE_DEFAULT(resources, "resources", threads_per_worker, 1);
  TROUPE_DEFAULT(resources, "resources", peer_silence_seconds, 30);
  TROUPE_DEFAULT(resources, "resources", hang_seconds, 300);
}

void TrainingDefaults(proto::JobSpec& spec, Provenance& provenance) {
  proto::Train* train = spec.mutable_train();
  TROUPE_DEFAULT(train, "train", stop_after, 0);
  TROUPE_DEFAULT(train, "train", dtype, "float32");
  TROUPE_DEFAULT(train, "train", grad_dtype, "float32");
  TROUPE_DEFAULT(train, "train", seed, 1234);
  TROUPE_DEFAULT(train, "train", recompute, std::string(RecomputeName(Recompute::kNone)));
  proto::Data* data = spec.mutable_data();
  TROUPE_DEFAULT(data, "data", val_fraction, 0.0);
  TROUPE_DEFAULT(data, "data", shuffle, true);
  TROUPE_DEFAULT(data, "data", allow_change, false);
  proto::Optimizer* optimizer = spec.mutable_optimizer();
  TROUPE_DEFAULT(optimizer, "optimizer", name, "adamw");
  TROUPE_DEFAULT(optimizer, "optimizer", lr, 3e-4);
  if (optimizer->betas_size() == 0) {
    optimizer->add_betas(0.9);
    optimizer->add_betas(0.95);
    provenance.emplace("optimizer.betas", kDefault);
  }
  TROUPE_DEFAULT(optimizer, "optimizer", eps, 1e-8);
  TROUPE_DEFAULT(optimizer, "optimizer", weight_decay, 0.1);
  TROUPE_DEFAULT(optimizer, "optimizer", grad_clip, 1.0);
  proto::LrScheduler* scheduler = spec.mutable_lr_scheduler();
  TROUPE_DEFAULT(scheduler, "lr_scheduler", name, "constant");
  TROUPE_DEFAULT(scheduler, "lr_scheduler", warmup_steps, 0);
  if (train->steps() > 0) {
    TROUPE_DEFAULT(scheduler, "lr_scheduler", decay_steps, DefaultDecaySteps(spec));
  }
  TROUPE_DEFAULT(scheduler, "lr_scheduler", min_lr, 0.0);
}

void OutputDefaults(proto::JobSpec& spec, Provenance& provenance) {
  proto::Eval* eval = spec.mutable_eval();
  TROUPE_DEFAULT(eval, "eval", every, 0);
  TROUPE_DEFAULT(eval, "eval", batches, 1);
  if (eval->has_sample()) {
    proto::Sample* sample = eval->mutable_sample();
    TROUPE_DEFAULT(sample, "eval.sample", tokens, 64);
    TROUPE_DEFAULT(sample, "eval.sample", temperature, 0.0);
    TROUPE_DEFAULT(sample, "eval.sample", seed, 1);
  }
  proto::Checkpoint* checkpoint = spec.mutable_checkpoint();
  // A run that nobody thought about loses ten minutes at most.
  TROUPE_DEFAULT(checkpoint, "checkpoint", every_seconds, checkpoint->has_every() ? 0 : 600);
  TROUPE_DEFAULT(checkpoint, "checkpoint", every, 0);
  TROUPE_DEFAULT(checkpoint, "checkpoint", keep, 2);
  TROUPE_DEFAULT(checkpoint, "checkpoint", save_hf, false);
  TROUPE_DEFAULT(checkpoint, "checkpoint", resume, "never");
  TROUPE_DEFAULT(checkpoint, "checkpoint", resume_as, "same_run");
  proto::Log* log = spec.mutable_log();
  TROUPE_DEFAULT(log, "log", every, 1);
  proto::TraceWindow* trace = log->mutable_trace();
  TROUPE_DEFAULT(trace, "log.trace", first, TraceWindow::kFirst);
  TROUPE_DEFAULT(trace, "log.trace", steps, TraceWindow::kSteps);
  TROUPE_DEFAULT(trace, "log.trace", every, TraceWindow::kEvery);
  TROUPE_DEFAULT(log, "log", tensorboard, true);
}

#undef TROUPE_DEFAULT

void Hyphenate(std::string* name) { std::ranges::replace(*name, '_', '-'); }

}  // namespace

void ApplyDefaults(proto::JobSpec& spec, Provenance& provenance) {
  if (!spec.has_spec_version()) {
    spec.set_spec_version(1);
    provenance.emplace("spec_version", kDefault);
  }
  if (!spec.has_kind()) {
    spec.set_kind("pretrain");
    provenance.emplace("kind", kDefault);
  }
  if (!spec.has_name()) {
    spec.set_name("job");
    provenance.emplace("name", kDefault);
  }
  ModelDefaults(spec.mutable_model(), provenance);
  if (spec.parallelism().has_schedule()) Hyphenate(spec.mutable_parallelism()->mutable_schedule());
  LayoutDefaults(spec, provenance);
  TrainingDefaults(spec, provenance);
  OutputDefaults(spec, provenance);
}

}  // namespace troupe
