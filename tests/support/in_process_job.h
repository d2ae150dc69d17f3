// A whole job in one process and on one thread: a root for every rank, as in a worker process, and
// this class in the coordinator's place. The plan is made by hand, for any schedule; the test
// brings the stages and loaders.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/schedule/generators.h"
#include "runtime/transport/inproc/inproc_transport.h"
#include "tests/support/test_rank.h"

namespace troupe::testing {

struct JobSteps {
  int steps = 1;
  double grad_clip = 0;
  int evaluate_every = 0;
  int evaluate_rounds = 0;
  std::string prompt{};  // sample after the last step; bytes as tokens
  int sample_tokens = 0;
};

struct InProcessJobOptions {
  std::string schedule = "1f1b";
  int num_ranks = 1;
  int num_microbatches = 1;
  std::optional<Schedule> train{};  // in place of the three above
  ExecutionPolicy policy{};
  std::vector<TrainSchedule> others{};  // what a step may run instead (Choose)
  // What travels between stages is (tokens of a microbatch, hidden_size).
  int64_t tokens = 1;
  int64_t hidden_size = 1;
  bool tied = false;
  // In place of the three above.
  std::optional<ModelConfig> config{};
  std::optional<BatchArithmetic> batch{};
  Recompute recompute = Recompute::kNone;
  ZeroSharding zero{};
  int64_t bucket_bytes = kBucketBytes;
  DType dtype = DType::kFloat32;
  bool rounds_gradients = false;  // adds them up in bfloat16
  ReductionAlgorithm reduction = ReductionAlgorithm::kOrdered;
  JobSteps steps{};
  proto::TraceWindow trace{};
  int slots = 0;           // posted per channel; 0: what the plan says
  int output_buffers = 0;  // of an executor's channel; 0: as many as the network needs
  // Where the job runs on another network or clock: one transport a rank.
  std::function<std::unique_ptr<Transport>(Rank)> new_transport{};
  Clock* clock = &SystemClock();
  // In place of training.
  std::function<std::unique_ptr<Program>()> new_program{};
};

inline JobPlan PlanByHand(const InProcessJobOptions& options) {
  Schedule train;
  if (options.train) {
    train = *options.train;
  } else {
    auto generated = Generate({.name = options.schedule,
                               .num_ranks = options.num_ranks,
                               .num_microbatches = options.num_microbatches});
    CHECK(generated.ok(), "{}", generated.error().message);
    train = *generated;
  }
  const int chain = train.StagesPerDirection();
  const ModelConfig toy{.hidden_size = options.hidden_size,
                        .intermediate_size = 1,
                        .num_hidden_layers = chain,
                        .num_attention_heads = 1,
                        .num_key_value_heads = 1,
                        .head_dim = 1,
                        .vocab_size = 1,
                        .tie_word_embeddings = options.tied};
  JobPlan plan{.table = ParameterTable(options.config.value_or(toy))};
  plan.config = options.config.value_or(toy);
  plan.batch = options.batch.value_or(BatchArithmetic{.global_batch_size = train.num_microbatches,
                                                      .seq_len = options.tokens,
                                                      .num_microbatches = train.num_microbatches});
  const int64_t width = DTypeBytes(options.dtype);
  const int64_t master_bytes = options.dtype == DType::kBFloat16 ? 4 : width;
  plan.widths = {width, master_bytes, options.rounds_gradients ? 2 : master_bytes};
  auto stages = PartitionStages(plan.config, chain, plan.batch.seq_len);
  CHECK(stages.ok(), "{}", stages.error().message);
  for (int stage = 0; stage < train.num_stages; ++stage) {
    plan.stages.push_back((*stages)[static_cast<size_t>(stage % chain)]);
  }
  proto::JobSpec rates;
  rates.mutable_optimizer()->set_lr(1);
  rates.mutable_lr_scheduler()->set_warmup_steps(100);
  plan.learning_rate = *LearningRate::FromSpec(rates);
  plan.train = std::move(train);
  proto::Parallelism parallelism;
  parallelism.set_pp(plan.train.num_ranks);
  parallelism.set_dp(plan.batch.data_parallel);
  parallelism.set_cp(plan.batch.context.num_ranks);
  plan.mesh = *Mesh::FromSpec(parallelism);
  plan.recompute = options.recompute;
  plan.zero = options.zero;
  plan.reduction = options.reduction;
  plan.bucket_bytes = options.bucket_bytes;
  plan.policy = options.policy;
  plan.others = options.others;
  const Status derived = DeriveFromSchedules(plan);
  CHECK(derived.ok(), "{}", derived.error().message);
  for (Channel& channel : plan.channels) {
    if (options.slots > 0) channel.slots = options.slots;
  }
  return plan;
}

inline proto::StartRank StartByHand(const InProcessJobOptions& options, const JobPlan& plan) {
  proto::StartRank start;
  start.set_job(1);
  start.set_epoch(1);
  start.set_world_size(plan.mesh.num_ranks());
  proto::JobSpec& spec = *start.mutable_spec();
  spec.mutable_train()->set_steps(options.steps.steps);
  spec.mutable_train()->set_dtype(options.dtype == DType::kBFloat16 ? "bfloat16" : "float32");
  spec.mutable_optimizer()->set_grad_clip(options.steps.grad_clip);
  spec.mutable_eval()->set_every(options.steps.evaluate_every);
  spec.mutable_eval()->set_batches(options.steps.evaluate_rounds);
  if (!options.steps.prompt.empty()) {
    spec.mutable_eval()->mutable_sample()->set_prompt(options.steps.prompt);
    spec.mutable_eval()->mutable_sample()->set_tokens(options.steps.sample_tokens);
  }
  *spec.mutable_log()->mutable_trace() = options.trace;
  return start;
}

class InProcessJob {
 public:
  using NewStage = std::function<SpawnedStage(const RankPlace&, StageId)>;
  using NewLoader = std::function<SpawnedLoader(const RankPlace&)>;

  InProcessJob(InProcessJobOptions options, const NewStage& new_stage, const NewLoader& new_loader)
      : options_(std::move(options)), plan_(PlanByHand(options_)) {
    const proto::StartRank start = StartByHand(options_, plan_);
    for (int rank = 0; rank < plan_.mesh.num_ranks(); ++rank) {
      ranks_.push_back(std::make_unique<TestRank>(*options_.clock));
      ranks_.back()->Start(SeamsOf(Rank(rank), new_stage, new_loader));
      proto::ToRank order;
      *order.mutable_start() = start;
      order.mutable_start()->set_rank(rank);
      ranks_.back()->root().Take(std::move(order));
    }
    proto::ToRank order;
    *order.mutable_peers() = peers_;
    for (auto& rank : ranks_) rank->root().Take(order);
    RunWhile([this] { return num_ready_ < plan_.mesh.num_ranks(); });
    CHECK(num_ready_ == plan_.mesh.num_ranks() || !errors.empty(), "the ranks do not get ready");
  }

  void Begin() {
    TellFirst([](proto::ToRank& order) { order.mutable_begin(); });
  }
  void Cancel() {
    TellFirst([](proto::ToRank& order) { order.mutable_cancel()->set_checkpoint(false); });
  }
  // Which of the plan's orders the steps run that start from now on.
  void Choose(size_t order) { CHECK(ranks_[0]->actors().schedule().Send(OrderChosen{order}).ok()); }

  // Runs every rank in turn until the job has ended, a rank has failed, or nothing moves.
  void Run() {
    Begin();
    RunWhile([this] { return !ended; });
  }

  const JobPlan& plan() const { return plan_; }
  Scheduler& scheduler(int rank) { return ranks_[static_cast<size_t>(rank)]->scheduler(); }
  // What the rank sent in training steps, beside what the plan says.
  proto::CommunicationReport Communication(int rank) {
    return ranks_[static_cast<size_t>(rank)]->actors().Communication();
  }
  RankRouter& router(int rank) { return ranks_[static_cast<size_t>(rank)]->actors().router(); }

  std::vector<proto::StepMetrics> metrics{};
  std::vector<proto::EvalMetrics> evaluations{};
  std::string sampled{};
  std::vector<proto::Span> spans{};  // of all ranks
  std::vector<std::string> errors{};
  bool ended = false;
  bool cancelled = false;
  int64_t end_step = 0;
  std::function<void()> after_pass{};
  std::function<void(int64_t step)> on_step{};  // when it is committed

 private:
  RankSeams SeamsOf(Rank rank, const NewStage& new_stage, const NewLoader& new_loader) {
    RankSeams seams = SeamsOfTest(ranks_.back()->scheduler(),
                                  [this, rank](const proto::FromRank& news) { Hear(rank, news); });
    seams.new_transport =
        [this](const TransportNeeds& needs) -> Result<std::unique_ptr<Transport>> {
      if (options_.new_transport) return options_.new_transport(needs.self);
      return network_.NewTransport(needs.self);
    };
    seams.plan = [this](const proto::JobSpec&, std::span<const proto::Parallelism>) {
      return Result<JobPlan>(plan_);
    };
    seams.load = [](FileSystem&, const proto::StartRank&, const JobPlan&, MemoryLedger&) {
      return Result<LoadedRank>(LoadedRank{});
    };
    seams.keeps_checkpoints = false;
    if (options_.new_program) {
      seams.new_program = [this](const proto::StartRank&, const JobPlan&, double) {
        return Result<std::unique_ptr<Program>>(options_.new_program());
      };
    }
    seams.spawn_stage = new_stage;
    seams.spawn_loader = new_loader;
    if (options_.output_buffers > 0) {
      seams.more_output_buffers = options_.output_buffers - kOutputBuffers;
    } else if (!options_.new_transport) {
      // Handed over by pointer, an output's buffer is the receiver's slot until it is read.
      for (const Channel& channel : plan_.channels) {
        seams.more_output_buffers = std::max(seams.more_output_buffers, channel.slots);
      }
    }
    return seams;
  }

  void Hear(Rank rank, const proto::FromRank& news) {
    switch (news.message_case()) {
      case proto::FromRank::kHello: {
        auto* peer = peers_.add_peers();
        peer->set_rank(rank.value);
        peer->set_address(news.hello().transport_address());
        break;
      }
      case proto::FromRank::kReady:
        ++num_ready_;
        break;
      case proto::FromRank::kMetrics:
        metrics.push_back(news.metrics());
        if (on_step) on_step(news.metrics().step());
        break;
      case proto::FromRank::kEval:
        evaluations.push_back(news.eval());
        break;
      case proto::FromRank::kSampled:
        sampled = news.sampled().continuation();
        break;
      case proto::FromRank::kSpans:
        spans.insert(spans.end(), news.spans().spans().begin(), news.spans().spans().end());
        break;
      case proto::FromRank::kFinished:
        OnFinished(rank, news.finished());
        break;
      default:
        break;
    }
  }
  void OnFinished(Rank rank, const proto::Finished& finished) {
    if (!finished.error().empty()) return errors.push_back(finished.error());
    if (rank.value != 0) return;
    ended = true;
    end_step = finished.last_step();
    cancelled = finished.cancelled();
  }

  template <typename Fill>
  void TellFirst(Fill fill) {
    proto::ToRank order;
    fill(order);
    ranks_[0]->root().Take(std::move(order));
  }
  template <typename Goes>
  void RunWhile(Goes goes) {
    for (int idle = 0; goes() && errors.empty() && idle < 3;) {
      int64_t work = 0;
      for (auto& rank : ranks_) work += rank->scheduler().RunUntilIdle();
      idle = work == 0 ? idle + 1 : 0;
      if (after_pass) after_pass();
    }
  }

  const InProcessJobOptions options_;
  const JobPlan plan_;
  InprocNetwork network_{};
  proto::Peers peers_{};
  int num_ready_ = 0;
  std::vector<std::unique_ptr<TestRank>> ranks_{};
};

}  // namespace troupe::testing
