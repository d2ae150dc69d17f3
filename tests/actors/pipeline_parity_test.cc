// Any pipeline computes what one worker computes: real models through the real executor, stage and
// schedule actors over the inproc transport, bit for bit.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <map>
#include <memory>

#include "actors/plan/job_plan.h"
#include "actors/stage_actor.h"
#include "tests/support/in_process_job.h"
#include "tests/support/small_model.h"

namespace troupe {
namespace {

using testing::InProcessJob;
using testing::SmallModel;

constexpr int kSteps = 2;

class RandomLoader : public Actor<RandomLoader, MeetExecutor, FetchTokens> {
 public:
  explicit RandomLoader(const SmallModel& model) : model_(model) {}
  Status On(MeetExecutor meet) {
    executor_ = meet.executor;
    return {};
  }
  Status On(FetchTokens fetch) {
    for (int32_t m = 0; m < fetch.num_microbatches; ++m) {
      const auto number = static_cast<int32_t>(fetch.first_sample) + m;
      RETURN_IF_ERROR(executor_.Send(TokensReady{
          fetch.round, MicrobatchId(m),
          std::make_shared<const std::vector<int32_t>>(testing::RandomTokens(model_, number))}));
    }
    return {};
  }

 private:
  const SmallModel& model_;
  ExecutorAnswers executor_{};
};

struct Outcome {
  std::vector<double> losses{};
  std::vector<double> norms{};
  std::map<std::string, std::string> weights{};
};

class ModelJob {
 public:
  ModelJob(const SmallModel& model, const std::string& schedule)
      : model_(model), table_(model.config) {
    auto partition = PartitionStages(model.config, model.num_stages, model.batch.seq_len);
    CHECK(partition.ok());
    partition_ = *partition;
    const int64_t hidden = model.config.hidden_size;
    const int64_t tokens = model.batch.tokens_per_microbatch();
    const int64_t width = DTypeBytes(model.dtype);
    testing::InProcessJobOptions options{.schedule = schedule,
                                         .num_ranks = model.num_stages,
                                         .num_microbatches = model.batch.num_microbatches};
    options.boundary = {.dtype = static_cast<uint8_t>(model.dtype),
                        .rank = 2,
                        .shape = {tokens, hidden, 0, 0},
                        .num_bytes = static_cast<uint64_t>(tokens * hidden * width)};
    options.tied = {.dtype = static_cast<uint8_t>(DType::kFloat32),
                    .rank = 2,
                    .shape = {model.config.vocab_size, hidden, 0, 0},
                    .num_bytes = static_cast<uint64_t>(model.config.vocab_size * hidden * 4)};
    options.tied_embedding = table_.tied();
    options.steps = {.steps = kSteps,
                     .num_microbatches = model.batch.num_microbatches,
                     .global_batch_size = model.batch.global_batch_size,
                     .num_parameters = table_.size(),
                     .grad_clip = 0.7,
                     .checkpoint_at_end = false};
    options.steps.learning_rate = [](int64_t step) { return 0.01 * static_cast<double>(step); };
    options.on_executor = [this](Rank rank, const ExecutorAnswers& executor) {
      CHECK(meet_[rank](executor).ok());
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
    for (const auto& metrics : job_->metrics) {
      outcome.losses.push_back(metrics.loss());
      outcome.norms.push_back(metrics.grad_norm());
    }
    for (auto& stage : stages_) {
      for (const StageParameter& p : stage->parameters().all()) {
        const std::string bytes(static_cast<const char*>(p.weight.data()),
                                static_cast<size_t>(p.weight.num_bytes()));
        // Both copies of a tied weight agree.
        const auto [at, fresh] = outcome.weights.emplace(p.spec->name, bytes);
        CHECK(fresh || at->second == bytes, "{} differs between its stages", p.spec->name);
      }
    }
    return outcome;
  }

 private:
  StageRef NewStage(const InProcessJob::RankContext& context) {
    StageModelOptions options;
    options.shape = {.config = model_.config,
                     .layout = partition_[static_cast<size_t>(context.rank.value)],
                     .batch = model_.batch,
                     .widths = testing::WidthsOf(model_.dtype)};
    options.dtype = model_.dtype;
    stages_.push_back(std::make_unique<StageModel>(options, table_, ledger_));
    stages_.back()->parameters().Initialize(model_.seed);
    stages_.back()->WeightsChanged();
    streams_.push_back(std::make_unique<InlineStream>(context.scheduler));
    const auto stage = context.scheduler.Spawn<StageActor>(
        {.name = "stage"},
        StageOptions{.rank = context.rank,
                     .stage = context.stage,
                     .last = context.schedule.IsLastStage(context.stage)},
        *stages_.back(), *streams_.back());
    meet_[context.rank] = [stage](const ExecutorAnswers& e) { return stage.Send(MeetExecutor{e}); };
    return stage;
  }
  LoaderRef NewLoader(const InProcessJob::RankContext& context) {
    const auto loader = context.scheduler.Spawn<RandomLoader>({.name = "loader"}, model_);
    meet_[context.rank] = [loader,
                           stage = meet_[context.rank]](const ExecutorAnswers& e) -> Status {
      RETURN_IF_ERROR(stage(e));
      return loader.Send(MeetExecutor{e});
    };
    return loader;
  }

  const SmallModel model_;
  const ParameterTable table_;
  std::vector<StageLayout> partition_;
  MemoryLedger ledger_;
  std::vector<std::unique_ptr<StageModel>> stages_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::map<Rank, std::function<Status(const ExecutorAnswers&)>> meet_;
  std::unique_ptr<InProcessJob> job_;
};

SmallModel Drawn() {
  SmallModel model;
  auto& c = model.config;
  c.num_key_value_heads = *rc::gen::element<int64_t>(1, 2);
  c.num_attention_heads = c.num_key_value_heads * *rc::gen::inRange<int64_t>(1, 4);
  c.head_dim = 2 * *rc::gen::inRange<int64_t>(1, 5);
  c.hidden_size = *rc::gen::inRange<int64_t>(2, 24);
  c.intermediate_size = *rc::gen::inRange<int64_t>(2, 30);
  c.num_hidden_layers = *rc::gen::inRange<int64_t>(1, 7);
  c.vocab_size = *rc::gen::inRange<int64_t>(2, 40);
  c.tie_word_embeddings = *rc::gen::arbitrary<bool>();
  auto& batch = model.batch;
  batch.micro_batch_size = *rc::gen::inRange<int64_t>(1, 3);
  batch.seq_len = *rc::gen::inRange<int64_t>(1, 12);
  batch.gradient_groups = *rc::gen::inRange<int32_t>(1, 3);
  batch.num_microbatches = batch.gradient_groups * *rc::gen::inRange<int32_t>(1, 5);
  batch.global_batch_size = batch.micro_batch_size * batch.num_microbatches;
  model.seed = *rc::gen::inRange<uint64_t>(0, 1000);
  return model;
}

TEST(PipelineParity, AnyPipelineComputesWhatOneWorkerComputes) {
  EXPECT_TRUE(rc::check("losses, gradient norms and weights are bit-equal", [] {
    SmallModel model = Drawn();
    const Outcome one = ModelJob(model, "1f1b").Run();
    RC_ASSERT(one.losses.size() == static_cast<size_t>(kSteps));
    model.num_stages = *rc::gen::inRange<int>(
        1, static_cast<int>(std::min<int64_t>(4, model.config.num_hidden_layers)) + 1);
    const Outcome many = ModelJob(model, *rc::gen::element<std::string>("1f1b", "gpipe")).Run();
    RC_ASSERT(many.losses == one.losses);
    RC_ASSERT(many.norms == one.norms);
    RC_ASSERT(many.weights == one.weights);
  }));
}

}  // namespace
}  // namespace troupe
