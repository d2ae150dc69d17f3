#include "actors/train_program.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/idle_stage.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;

TrainOptions Options() {
  return {.steps = 4,
          .num_microbatches = 1,
          .global_batch_size = 2,
          .num_parameters = 1,
          .evaluate_every = 2,
          .evaluate = {.rounds = 2, .num_microbatches = 1, .global_batch_size = 2},
          .checkpoint_every = 3,
          .sample = {.prompt = {5}, .tokens = 2, .seq_len = 8},
          .learning_rate = [](int64_t) { return 0.5; }};
}

proto::Vote VoteOf(const proto::StepStart& start) {
  proto::Vote vote;
  vote.set_finite(true);
  vote.set_sampled_token(start.mode() == proto::STEP_MODE_SAMPLE ? 17 : -1);
  auto* node = vote.add_norm_nodes();
  node->set_num_leaves(1);
  node->set_sum(4);
  auto* loss = vote.add_losses();
  loss->set_loss_sum(8);
  loss->set_num_tokens(4);
  return vote;
}

// What a program has its ranks do, in words; `before` looks at each deed.
std::vector<std::string> DeedsOf(
    Program& program, int64_t from = 0,
    const std::function<void(size_t number)>& before = [](size_t) {}) {
  std::vector<std::string> deeds;
  program.Begin({.step = from}, 0);
  for (before(0); auto deed = program.Next(0); before(deeds.size())) {
    if (const auto* save = std::get_if<Save>(&*deed)) {
      deeds.push_back(fmt::format("save {}", save->progress.step));
      program.Saved(0);
      continue;
    }
    const proto::StepStart& start = std::get<Round>(*deed).start;
    const char* mode = start.mode() == proto::STEP_MODE_TRAIN  ? "step"
                       : start.mode() == proto::STEP_MODE_EVAL ? "evaluate"
                                                               : "sample after";
    deeds.push_back(fmt::format("{} {}", mode, start.step()));
    auto verdict = program.Decide({VoteOf(start)});
    EXPECT_TRUE(verdict.ok()) << verdict.error().message;
    if (verdict->commit) (void)program.Committed(1000);
  }
  return deeds;
}

TEST(TrainProgramTest, StepsWithWhatIsDueBetweenThem) {
  TrainProgram program(Options());
  EXPECT_THAT(
      DeedsOf(program),
      ElementsAre("step 1", "step 2", "evaluate 2", "evaluate 2", "step 3", "save 3", "step 4",
                  "evaluate 4", "evaluate 4", "save 4", "sample after 4", "sample after 4"));
  EXPECT_EQ(program.last_step(), 4);
}

TEST(TrainProgramTest, ARunThatGoesOnDoesNotRepeatWhatFollowedItsStep) {
  TrainProgram resumed(Options());
  EXPECT_THAT(DeedsOf(resumed, 2),
              ElementsAre("step 3", "save 3", "step 4", "evaluate 4", "evaluate 4", "save 4",
                          "sample after 4", "sample after 4"));
  TrainProgram done(Options());
  EXPECT_THAT(DeedsOf(done, 4), ElementsAre("evaluate 4", "evaluate 4", "save 4", "sample after 4",
                                            "sample after 4"));
}

TEST(TrainProgramTest, ACancelledOneOnlySaves) {
  for (const bool checkpoint : {true, false}) {
    TrainProgram program(Options());
    const auto deeds = DeedsOf(program, 0, [&](size_t number) {
      if (number == 2) program.Cancel(checkpoint);
    });
    if (checkpoint) {
      EXPECT_THAT(deeds, ElementsAre("step 1", "step 2", "save 2"));
    } else {
      EXPECT_THAT(deeds, ElementsAre("step 1", "step 2"));
    }
  }
}

// The open round ends; the rest of the evaluation is left, between steps and as a job of its own.
TEST(TrainProgramTest, ACancelledEvaluationEndsWithItsRound) {
  TrainProgram program(Options());
  const auto deeds = DeedsOf(program, 0, [&](size_t number) {
    if (number == 3) program.Cancel(/*checkpoint=*/true);
  });
  EXPECT_THAT(deeds, ElementsAre("step 1", "step 2", "evaluate 2", "save 2"));
  EvaluateProgram alone({.rounds = 3, .num_microbatches = 1, .global_batch_size = 2});
  const auto rounds = DeedsOf(alone, 0, [&](size_t number) {
    if (number == 1) alone.Cancel(/*checkpoint=*/true);
  });
  EXPECT_THAT(rounds, ElementsAre("evaluate 0"));
}

TEST(TrainProgramTest, VotesOfARoundThatAreNoVotesEndIt) {
  TrainProgram program(Options());
  program.Begin({}, 0);
  (void)program.Next(0);
  EXPECT_FALSE(program.Decide({}).ok()) << "a microbatch is missing";
  TrainProgram infinite(Options());
  infinite.Begin({}, 0);
  const auto deed = infinite.Next(0);
  proto::Vote vote = VoteOf(std::get<Round>(*deed).start);
  vote.mutable_losses(0)->set_loss_sum(std::numeric_limits<double>::infinity());
  vote.set_finite(false);
  EXPECT_THAT(infinite.Decide({vote}).error().message,
              ::testing::HasSubstr("step 1: loss or gradient is not finite"));
}

// Each of the ranks that share a sequence votes for its part.
TEST(TrainProgramTest, TheLossIsOfAllPartsOfASequence) {
  TrainOptions options = Options();
  options.context_parallel = options.evaluate.context_parallel = 2;
  TrainProgram program(options);
  program.Begin({.step = 1}, 0);
  const auto decide = [&program](std::vector<int> ranks) {
    const auto deed = program.Next(0);
    std::vector<proto::Vote> votes;
    for (const int rank : ranks) {
      votes.push_back(VoteOf(std::get<Round>(*deed).start));
      votes.back().set_rank(rank);
      votes.back().mutable_losses(0)->set_num_tokens(4 + rank);
      if (rank > 0) votes.back().clear_norm_nodes();
    }
    return program.Decide(std::move(votes));
  };
  EXPECT_THAT(decide({0}).error().message, ::testing::HasSubstr("1 of the 2 ranks"));
  ASSERT_TRUE(decide({1, 0}).ok());
  EXPECT_EQ(std::get<StepCommitted>(program.Committed(1000)).metrics.loss(), 16.0 / 9);
  EXPECT_FALSE(decide({0, 1})->news.has_value());
  EXPECT_EQ(std::get<proto::EvalMetrics>(*decide({0, 1})->news).val_loss(), 16.0 / 9);
}

// The next round's, with `num_tokens` labels that count.
Verdict DecideNext(Program& program, int64_t num_tokens) {
  const auto deed = program.Next(0);
  proto::Vote vote = VoteOf(std::get<Round>(*deed).start);
  vote.mutable_losses(0)->set_num_tokens(num_tokens);
  if (num_tokens == 0) vote.mutable_losses(0)->set_loss_sum(0);
  auto verdict = program.Decide({vote});
  EXPECT_TRUE(verdict.ok()) << verdict.error().message;
  return *std::move(verdict);
}

TEST(TrainProgramTest, AStepInWhichNoLabelCountsIsSkipped) {
  TrainProgram program(Options());
  program.Begin({.step = 1, .updates = 31, .tokens = 100}, 0);
  const Verdict skipped = DecideNext(program, 0);
  EXPECT_EQ(skipped.commit->step(), 2);
  EXPECT_FALSE(skipped.commit->apply());
  const auto none = std::get<StepCommitted>(program.Committed(1000)).metrics;
  EXPECT_EQ(none.step(), 2);
  EXPECT_FALSE(none.has_loss());
  EXPECT_FALSE(none.has_grad_norm());
  EXPECT_EQ(none.tokens(), 100);
  EXPECT_EQ(none.step_tokens(), 0);
  // An evaluation whose first round has no label, and one without any.
  EXPECT_FALSE(DecideNext(program, 0).news.has_value());
  EXPECT_EQ(std::get<proto::EvalMetrics>(*DecideNext(program, 4).news).val_loss(), 2);
  const auto deed = program.Next(0);
  EXPECT_EQ(std::get<Round>(*deed).start.first_sample(), 4) << "the samples are passed";
  const auto applied = program.Decide({VoteOf(std::get<Round>(*deed).start)});
  EXPECT_TRUE(applied->commit->apply());
  EXPECT_EQ(applied->commit->update(), 32);
  const auto some = std::get<StepCommitted>(program.Committed(1000)).metrics;
  EXPECT_EQ(some.loss(), 2);
  EXPECT_EQ(some.tokens(), 104);
  EXPECT_EQ(some.step_tokens(), 4);
  EXPECT_EQ(std::get<Save>(*program.Next(0)).progress,
            (TrainingProgress{.step = 3, .skipped_steps = 1, .updates = 32, .tokens = 104}));
  (void)DecideNext(program, 4);
  (void)program.Committed(1000);
  EXPECT_FALSE(DecideNext(program, 0).news.has_value());
  const auto news = DecideNext(program, 0).news;
  EXPECT_FALSE(std::get<proto::EvalMetrics>(*news).has_val_loss());
  EXPECT_EQ(std::get<proto::EvalMetrics>(*news).tokens(), 0);
}

// ---- a program of somebody else's ---------------------------------------------------------------

// Only counts: the tokens that so many forward rounds see.
class CountProgram : public Program {
 public:
  CountProgram(int rounds, int num_microbatches, int64_t& tokens)
      : rounds_(rounds), num_microbatches_(num_microbatches), tokens_(tokens) {}

  void Begin(const TrainingProgress&, int64_t) override {}
  std::optional<Deed> Next(int64_t) override {
    if (rounds_-- <= 0) return std::nullopt;
    Round round;
    round.start.set_mode(proto::STEP_MODE_EVAL);
    round.start.set_num_microbatches(num_microbatches_);
    return round;
  }
  Result<Verdict> Decide(std::vector<proto::Vote> votes) override {
    for (const proto::Vote& vote : votes) {
      for (const auto& loss : vote.losses()) tokens_ += loss.num_tokens();
    }
    return Verdict{};
  }
  ProgramNews Committed(int64_t) override { return {}; }
  void Saved(int64_t) override {}
  void Choose(size_t) override {}
  void Cancel(bool) override { rounds_ = 0; }
  int64_t last_step() const override { return 0; }

 private:
  int rounds_;
  const int num_microbatches_;
  int64_t& tokens_;
};

TEST(ProgramTest, OneThatOnlyCountsRunsOnTheSameRanks) {
  int64_t tokens = 0;
  MemoryLedger ledger;
  testing::InProcessJobOptions options{.num_ranks = 3, .num_microbatches = 4};
  options.tokens = testing::kIdleTokens;
  options.new_program = [&] { return std::make_unique<CountProgram>(5, 4, tokens); };
  testing::InProcessJob job(
      std::move(options),
      [&](const RankPlace& place, StageId stage) {
        return place.scheduler.Spawn<testing::IdleStage>({.name = fmt::format("stage {}", stage)},
                                                         place, stage, ledger);
      },
      [](const RankPlace& place) {
        return place.scheduler.Spawn<testing::IdleLoader>({.name = "loader"});
      });
  job.Run();
  EXPECT_TRUE(job.errors.empty()) << job.errors.front();
  EXPECT_TRUE(job.ended);
  EXPECT_EQ(tokens, 5 * 4) << "an idle stage says that a microbatch has one";
}

// Its stages know nothing of sequences; the votes of their last ranks do.
TEST(ProgramTest, AllRanksOfAMicrobatchVoteForIt) {
  MemoryLedger ledger;
  testing::InProcessJobOptions options{.num_ranks = 2, .num_microbatches = 3};
  options.batch = BatchArithmetic{.global_batch_size = 6,
                                  .seq_len = 3 * testing::kIdleTokens,
                                  .num_microbatches = 3,
                                  .data_parallel = 2,
                                  .gradient_groups = 2,
                                  .context = {.num_ranks = 3, .layout = SequenceLayout::kStriped}};
  options.steps = {.steps = 2, .evaluate_every = 2, .evaluate_rounds = 1};
  testing::InProcessJob job(
      std::move(options),
      [&](const RankPlace& place, StageId stage) {
        return place.scheduler.Spawn<testing::IdleStage>({.name = fmt::format("stage {}", stage)},
                                                         place, stage, ledger);
      },
      [](const RankPlace& place) {
        return place.scheduler.Spawn<testing::IdleLoader>({.name = "loader"});
      });
  job.Run();
  EXPECT_TRUE(job.errors.empty()) << job.errors.front();
  ASSERT_EQ(job.metrics.size(), 2u);
  EXPECT_EQ(job.metrics[1].step_tokens(), 6 * 3) << "a part has one";
  ASSERT_EQ(job.evaluations.size(), 1u);
  EXPECT_EQ(job.evaluations[0].tokens(), 6 * 3);
}

}  // namespace
}  // namespace troupe
