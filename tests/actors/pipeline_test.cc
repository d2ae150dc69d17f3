// The executor and schedule actors over a toy stage whose numbers can be worked out by hand:
// forward adds stage + 1 to every element, the loss is the sum, backward passes the gradient on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <numeric>

#include "tests/support/answering_stage.h"
#include "tests/support/in_process_job.h"
#include "tests/support/two_chains.h"

namespace troupe {
namespace {

constexpr int kElements = 4;

// What the test sees of every stage.
struct Seen {
  std::vector<std::string> actions{};
  std::function<void()> on_action{};
  std::vector<double> factors{};
  double gradient = 0;
  int updates = 0;
};

class ToyStage : public testing::AnsweringStage<ToyStage> {
 public:
  ToyStage(const RankPlace& place, StageId stage, MemoryLedger& ledger, Seen& seen)
      : AnsweringStage(place, stage), ledger_(ledger), seen_(seen) {}

  using AnsweringStage::On;
  Status On(RunAction run) {
    seen_.actions.push_back(ToString(run.action));
    if (seen_.on_action) seen_.on_action();
    ActionDone done{.action = run.action, .round = run.round};
    const Schedule& schedule = plan().train;
    const bool first = schedule.IsFirstStage(run.action.stage);
    const bool last = schedule.IsLastStage(run.action.stage);
    std::vector<float> values(kElements);
    if (run.action.kind == ActionKind::kForward) {
      if (first) {
        for (int i = 0; i < kElements; ++i) values[i] = static_cast<float>(run.data->tokens[i]);
      }
      for (const auto& input : run.inputs) Add(input, values);
      for (float& value : values) value += static_cast<float>(run.action.stage.value + 1);
      if (last) {
        if (run.mode == proto::STEP_MODE_SAMPLE) {
          done.sampled_token = static_cast<int32_t>(values[kElements - 1]);
        } else {
          done.loss = {.nll = std::accumulate(values.begin(), values.end(), 0.0),
                       .num_tokens = kElements};
        }
      }
    } else {
      if (last) values.assign(kElements, 1.0f);
      Add(run.inputs[0], values);
      seen_.gradient += std::accumulate(values.begin(), values.end(), 0.0);
    }
    if (OutputOf(schedule, run.action)) done.output = Output(values);
    return executor().Send(std::move(done));
  }
  Status On(CollectVote collect) {
    return executor().Send(
        testing::UnitVote(plan(), stage(), collect.round, seen_.gradient * seen_.gradient));
  }
  Status On(ReduceGradient reduce) {
    tied_ = 1.0f + static_cast<float>(stage().value);
    place().stream.LaunchTask(
        scope_, AddUp(*place().groups.OfReduction(reduce.reduction), tied_),
        [this, reduce](const WorkTime&, Status status) {
          seen_.gradient += 100 * static_cast<double>(tied_);
          (void)executor().Send(GradientReduced{reduce.round, reduce.reduction, std::move(status)});
        });
    return {};
  }
  Status On(ApplyUpdate update) {
    seen_.gradient = 0;
    ++seen_.updates;
    seen_.factors.push_back(update.gradient_factor);
    return executor().Send(UpdateDone{.stage = stage(), .step = update.step});
  }

 private:
  Buffer Output(const std::vector<float>& values) {
    Buffer output(ledger_, MemoryTag::kActivations, kElements * 4);
    std::memcpy(output.data(), values.data(), kElements * 4);
    return output;
  }
  // `input`: none, or kElements floats.
  static void Add(std::span<const std::byte> input, std::vector<float>& values) {
    std::vector<float> read(input.size() / sizeof(float));
    if (!read.empty()) std::memcpy(read.data(), input.data(), input.size());
    std::ranges::transform(read, values, values.begin(), std::plus<>());
  }
  static Task<Status> AddUp(Group& group, float& value) {
    co_return co_await group.AllReduce({static_cast<uint8_t>(DType::kFloat32), &value, 1});
  }

  MemoryLedger& ledger_;
  Seen& seen_;
  const StreamScope scope_{place().stream};
  float tied_ = 0;
};

class ToyLoader : public Actor<ToyLoader, MeetExecutor, FetchMicrobatches> {
 public:
  Status On(MeetExecutor meet) {
    executor_ = meet.executor;
    return {};
  }
  Status On(FetchMicrobatches fetch) {
    MicrobatchesReady ready{.round = fetch.round};
    for (int m = 0; m < fetch.num_microbatches; ++m) {
      auto data = std::make_shared<Microbatch>();
      data->tokens = fetch.text;
      if (data->tokens.empty()) {
        data->tokens.assign(kElements, static_cast<int32_t>(fetch.first_sample + m));
      }
      ready.microbatches.push_back(std::move(data));
    }
    return executor_.Send(std::move(ready));
  }

 private:
  ExecutorAnswers executor_{};
};

struct Toy {
  explicit Toy(testing::InProcessJobOptions options)
      : seen(static_cast<size_t>(options.num_ranks)),
        job(
            Fill(std::move(options)),
            [this](const RankPlace& place, StageId stage) {
              const auto rank = static_cast<size_t>(place.rank.value);
              return place.scheduler.Spawn<ToyStage>({.name = fmt::format("stage {}", stage)},
                                                     place, stage, ledgers.at(rank), seen[rank]);
            },
            [](const RankPlace& place) {
              return place.scheduler.Spawn<ToyLoader>({.name = "loader"});
            }) {}
  static testing::InProcessJobOptions Fill(testing::InProcessJobOptions options) {
    options.tokens = kElements;
    return options;
  }
  static constexpr auto kOutputs = static_cast<size_t>(MemoryTag::kActivations);
  std::array<MemoryLedger, 4> ledgers{};  // by rank
  std::vector<Seen> seen;
  testing::InProcessJob job;
};

// loss of step s (from 1): mean over microbatches m of (s-1)·M + m + p(p+1)/2.
double ExpectedLoss(int step, int ranks, int microbatches) {
  return (step - 1) * microbatches + (microbatches - 1) / 2.0 + ranks * (ranks + 1) / 2.0;
}

class PipelineTest : public ::testing::TestWithParam<std::tuple<std::string, int, int, int>> {};

TEST_P(PipelineTest, EveryStepCommitsTheSumOfAllMicrobatches) {
  const auto [schedule, ranks, microbatches, slots] = GetParam();
  Toy toy({.schedule = schedule,
           .num_ranks = ranks,
           .num_microbatches = microbatches,
           .steps = {.steps = 3},
           .slots = slots});
  toy.job.Run();
  ASSERT_TRUE(toy.job.errors.empty()) << toy.job.errors.front();
  ASSERT_TRUE(toy.job.ended);
  ASSERT_EQ(toy.job.metrics.size(), 3u);
  for (int step = 1; step <= 3; ++step) {
    const auto& metrics = toy.job.metrics[static_cast<size_t>(step - 1)];
    EXPECT_EQ(metrics.step(), step);
    EXPECT_DOUBLE_EQ(metrics.loss(), ExpectedLoss(step, ranks, microbatches));
    // Every stage's gradient is 4·M; the norm of the token mean is sqrt(p).
    EXPECT_DOUBLE_EQ(metrics.grad_norm(), std::sqrt(static_cast<double>(ranks)));
  }
  for (const Seen& seen : toy.seen) {
    EXPECT_EQ(seen.updates, 3);
    for (const double factor : seen.factors) {
      EXPECT_DOUBLE_EQ(factor, 1.0 / (kElements * microbatches));
    }
  }
  // Every output buffer was let go.
  for (const MemoryLedger& ledger : toy.ledgers) {
    EXPECT_EQ(ledger.Snapshot().current_bytes[Toy::kOutputs], 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, PipelineTest,
                         ::testing::Combine(::testing::Values("1f1b", "gpipe"),
                                            ::testing::Values(1, 2, 3, 4),
                                            ::testing::Values(1, 3, 8), ::testing::Values(0, 1)));

// A teacher, stages 1 and 2, feeds the student's loss, stage 3: over the student's own channel, or
// on the loss's rank.
TEST(PipelineTest, ASecondChainFeedsTheLoss) {
  constexpr int kMicrobatches = 3;
  for (const auto& placement : {testing::SameSender(), testing::TeacherBesideLoss()}) {
    for (const int slots : {0, 2}) {
      const Schedule schedule = testing::TwoChains(placement, kMicrobatches);
      Toy toy({.num_ranks = schedule.num_ranks,
               .train = schedule,
               .steps = {.steps = 2},
               .slots = slots});
      toy.job.Run();
      ASSERT_TRUE(toy.job.errors.empty()) << toy.job.errors.front();
      ASSERT_EQ(toy.job.metrics.size(), 2u);
      for (int step = 0; step < 2; ++step) {
        // Of token t, the student gives t + 1, the teacher t + 5, and the loss adds 4.
        const double mean_token = step * kMicrobatches + (kMicrobatches - 1) / 2.0;
        EXPECT_DOUBLE_EQ(toy.job.metrics[static_cast<size_t>(step)].loss(), 2 * mean_token + 10);
      }
      for (int rank = 0; rank < schedule.num_ranks; ++rank) {
        const std::vector<Action>& list = schedule.ActionsOf(PipelineRank(rank));
        const Seen& seen = toy.seen[static_cast<size_t>(rank)];
        EXPECT_EQ(seen.actions.size(), 2 * list.size()) << "of two steps";
        EXPECT_EQ(toy.ledgers[static_cast<size_t>(rank)].Snapshot().current_bytes[Toy::kOutputs],
                  0);
      }
    }
  }
}

TEST(PipelineTest, RanksRunTheirListsInOrder) {
  Toy toy({.num_ranks = 2, .num_microbatches = 3, .steps = {.steps = 1}});
  toy.job.Run();
  ASSERT_TRUE(toy.job.errors.empty()) << toy.job.errors.front();
  EXPECT_THAT(toy.seen[0].actions,
              (std::vector<std::string>{"0F0", "0F1", "0B0", "0F2", "0B1", "0B2"}));
  EXPECT_THAT(toy.seen[1].actions,
              (std::vector<std::string>{"1F0", "1B0", "1F1", "1B1", "1F2", "1B2"}));
}

// A re-plan: every step runs the order that it is told.
TEST(PipelineTest, AStepRunsTheOrderThatItIsTold) {
  const auto gpipe = Generate({.name = "gpipe", .num_ranks = 2, .num_microbatches = 3});
  ASSERT_TRUE(gpipe.ok());
  Toy toy({.num_ranks = 2,
           .num_microbatches = 3,
           .others = {{.schedule = *gpipe}},
           .steps = {.steps = 2}});
  toy.job.after_pass = [&] { toy.job.Choose(1); };  // the first step has started
  toy.job.Run();
  ASSERT_TRUE(toy.job.errors.empty()) << toy.job.errors.front();
  EXPECT_EQ(toy.seen[1].actions,
            (std::vector<std::string>{"1F0", "1B0", "1F1", "1B1", "1F2", "1B2",  // 1f1b
                                      "1F0", "1F1", "1F2", "1B0", "1B1", "1B2"}));
  EXPECT_EQ(toy.job.metrics[0].order(), 0);
  EXPECT_EQ(toy.job.metrics[1].order(), 1);
}

TEST(PipelineTest, AnOrderThatNobodyHasIsANamedError) {
  Toy toy({.num_ranks = 2, .num_microbatches = 3, .steps = {.steps = 1}});
  toy.job.Choose(7);
  toy.job.Run();
  ASSERT_FALSE(toy.job.errors.empty());
  EXPECT_THAT(toy.job.errors.front(), ::testing::HasSubstr("round 1 asks for order 7 of 1"));
}

// Spans of phases and messages, for a window of steps alone.
TEST(PipelineTest, AWindowOfStepsIsTraced) {
  (void)DrainTrace([](const SpanRecord&) {});
  proto::TraceWindow window;
  window.set_first(2);
  window.set_steps(1);
  Toy toy({.num_ranks = 2,
           .num_microbatches = 3,
           .steps = {.steps = 3, .evaluate_every = 2, .evaluate_rounds = 1},
           .trace = window});
  toy.job.Run();
  ASSERT_TRUE(toy.job.errors.empty()) << toy.job.errors.front();
  std::map<std::string, std::vector<proto::Span>> spans;
  for (const proto::Span& span : toy.job.spans) {
    EXPECT_EQ(span.step(), 2) << span.name();
    EXPECT_LE(span.start_ns(), span.end_ns());
    spans[span.name()].push_back(span);
  }
  for (const char* phase : {"step", "vote", "optimizer", "evaluation"}) {
    EXPECT_EQ(spans[phase].size(), 2u) << phase << ", once a rank";
  }
  for (size_t rank = 0; rank < 2; ++rank) {
    const proto::Span& step = spans["step"][rank];
    const proto::Span& vote = spans["vote"][rank];
    const proto::Span& optimizer = spans["optimizer"][rank];
    EXPECT_LT(step.start_ns(), vote.start_ns());
    EXPECT_LT(vote.end_ns(), optimizer.start_ns());
    EXPECT_LT(optimizer.end_ns(), step.end_ns());
  }
  // Three activations of the step and three of the evaluation, three gradients.
  EXPECT_EQ(spans["send activation"].size(), 6u);
  EXPECT_EQ(spans["receive activation"].size(), 6u);
  EXPECT_EQ(spans["send gradient"].size(), 3u);
  std::map<uint64_t, int64_t> sent_ns;
  for (const proto::Span& send : spans["send activation"])
    sent_ns[send.flow_out()] = send.start_ns();
  for (const proto::Span& receive : spans["receive activation"]) {
    ASSERT_TRUE(sent_ns.contains(receive.flow_in()));
    EXPECT_GE(receive.start_ns(), sent_ns[receive.flow_in()])
        << "nothing arrives before it is sent";
  }
}

// Sending takes the actor's thread as long as the copy of an output: the device must not wait for
// it.
TEST(PipelineTest, TheNextActionIsLaunchedBeforeAnOutputIsSent) {
  Toy toy({.num_ranks = 2, .num_microbatches = 3, .steps = {.steps = 1}});
  std::vector<int64_t> sent_bytes;  // to rank 1, when rank 0 runs 0F0 0F1 0B0 0F2 0B1 0B2
  toy.seen[0].on_action = [&] {
    sent_bytes.push_back(toy.job.router(0).transport().BytesSentTo(Rank(1)));
  };
  toy.job.Run();
  ASSERT_TRUE(toy.job.errors.empty()) << toy.job.errors.front();
  ASSERT_EQ(sent_bytes.size(), 6u);
  EXPECT_EQ(sent_bytes[1], sent_bytes[0]);
  EXPECT_GT(sent_bytes[2], sent_bytes[1]);
}

TEST(PipelineTest, TiedGradientsAreExchangedOnceAStep) {
  Toy toy({.num_ranks = 3, .num_microbatches = 2, .tied = true, .steps = {.steps = 2}});
  toy.job.Run();
  ASSERT_TRUE(toy.job.errors.empty()) << toy.job.errors.front();
  ASSERT_EQ(toy.job.metrics.size(), 2u);
  // Both ends end up with the tied sum 1 + 3: 8 + 400, 8, 8 + 400; tokens 8.
  EXPECT_DOUBLE_EQ(toy.job.metrics[1].grad_norm(),
                   std::sqrt(408.0 * 408 + 8.0 * 8 + 408.0 * 408) / 8);
}

TEST(PipelineTest, ClippingScalesByTheGlobalNorm) {
  Toy toy({.num_ranks = 2, .num_microbatches = 2, .steps = {.steps = 1, .grad_clip = 0.5}});
  toy.job.Run();
  ASSERT_EQ(toy.seen[0].factors.size(), 1u);
  EXPECT_DOUBLE_EQ(toy.seen[0].factors[0], 0.5 / (std::sqrt(2.0) + 1e-6) / 8);
}

TEST(PipelineTest, EvaluatesWithoutTouchingTheStep) {
  Toy toy({.num_ranks = 3,
           .num_microbatches = 2,
           .steps = {.steps = 2, .evaluate_every = 1, .evaluate_rounds = 2}});
  toy.job.Run();
  ASSERT_TRUE(toy.job.errors.empty()) << toy.job.errors.front();
  ASSERT_EQ(toy.job.evaluations.size(), 2u);
  // Samples 0..3: their mean is 1.5.
  EXPECT_DOUBLE_EQ(toy.job.evaluations[0].val_loss(), 1.5 + 6);
  EXPECT_EQ(toy.seen[0].updates, 2);
}

// Nor what sampling sends.
TEST(PipelineTest, WhatEvaluatingSendsIsNoTrainingSteps) {
  Toy toy({.num_ranks = 3,
           .num_microbatches = 2,
           .tied = true,
           .steps = {.steps = 2,
                     .evaluate_every = 1,
                     .evaluate_rounds = 2,
                     .prompt = "\1\1\1\1",
                     .sample_tokens = 3}});
  toy.job.Run();
  ASSERT_TRUE(toy.job.errors.empty()) << toy.job.errors.front();
  for (int rank = 0; rank < 3; ++rank) {
    const proto::CommunicationReport report = toy.job.Communication(rank);
    EXPECT_EQ(report.steps(), 2);
    EXPECT_EQ(report.rows_size(), 2) << report.ShortDebugString();
    for (const auto& row : report.rows()) {
      EXPECT_EQ(row.measured_count(), 2 * row.predicted_count()) << row.ShortDebugString();
      EXPECT_EQ(row.measured_bytes(), 2 * row.predicted_bytes()) << row.ShortDebugString();
    }
  }
}

// A forward-only round has no gradient that holds the first rank back: its outputs do, where the
// second has one slot and does not run.
TEST(PipelineTest, OutputsBeyondTheBuffersWait) {
  for (const int buffers : {1, 2, 3}) {
    Toy toy({.num_ranks = 2,
             .num_microbatches = 8,
             .steps = {.steps = 1, .evaluate_every = 1, .evaluate_rounds = 1},
             .slots = 1,
             .output_buffers = buffers});
    toy.job.Run();
    ASSERT_TRUE(toy.job.errors.empty()) << toy.job.errors.front();
    ASSERT_EQ(toy.job.evaluations.size(), 1u);
    const auto usage = toy.ledgers[0].Snapshot();
    EXPECT_EQ(usage.peak_bytes[Toy::kOutputs], buffers * kElements * 4);
    EXPECT_EQ(usage.current_bytes[Toy::kOutputs], 0);
  }
}

TEST(PipelineTest, SamplesTokenByTokenThroughTheStages) {
  Toy toy({.num_ranks = 2,
           .num_microbatches = 1,
           .steps = {.steps = 1, .prompt = "\1\1\1\1", .sample_tokens = 3}});
  toy.job.Run();
  ASSERT_TRUE(toy.job.errors.empty()) << toy.job.errors.front();
  // Each token is the newest one plus 1 plus 2.
  EXPECT_EQ(toy.job.sampled, "\4\7\n");
}

TEST(PipelineTest, CancelEndsBetweenTwoSteps) {
  Toy toy({.num_ranks = 2, .num_microbatches = 2, .steps = {.steps = 1000}});
  toy.job.after_pass = [&] {
    if (toy.job.metrics.size() >= 5) toy.job.Cancel();
  };
  toy.job.Run();
  EXPECT_TRUE(toy.job.ended);
  EXPECT_TRUE(toy.job.cancelled);
  EXPECT_LT(toy.job.end_step, 1000);
  EXPECT_EQ(toy.seen[0].updates, toy.job.end_step);
  EXPECT_EQ(toy.seen[1].updates, toy.job.end_step);
}

TEST(PipelineTest, AnActivationOfAnotherShapeIsANamedError) {
  Toy toy({.num_ranks = 2, .num_microbatches = 1, .steps = {.steps = 1}});
  TensorDescriptor wrong{.dtype = 0, .rank = 1, .shape = {3, 0, 0, 0}, .num_bytes = 12};
  std::vector<std::byte> bytes(12);
  ASSERT_TRUE(
      toy.job.router(0)
          .Remote<WithBulk<Activation>>(Rank(1), kExecutorIndex)
          .SendBulk(Activation{1, 1, 0, 0, wrong}, bytes, [] {}, {.channel = kActivationChannel})
          .ok());
  toy.job.Run();
  ASSERT_FALSE(toy.job.errors.empty());
  EXPECT_THAT(toy.job.errors.front(), ::testing::HasSubstr("does not fit the plan"));
}

}  // namespace
}  // namespace troupe
