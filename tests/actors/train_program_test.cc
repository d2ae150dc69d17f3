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
  program.Begin(from, 0);
  for (before(0); auto deed = program.Next(0); before(deeds.size())) {
    if (const auto* save = std::get_if<Save>(&*deed)) {
      deeds.push_back(fmt::format("save {}", save->step));
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

TEST(TrainProgramTest, VotesOfARoundThatAreNoVotesEndIt) {
  TrainProgram program(Options());
  program.Begin(0, 0);
  (void)program.Next(0);
  EXPECT_FALSE(program.Decide({}).ok()) << "a microbatch is missing";
  TrainProgram infinite(Options());
  infinite.Begin(0, 0);
  const auto deed = infinite.Next(0);
  proto::Vote vote = VoteOf(std::get<Round>(*deed).start);
  vote.mutable_losses(0)->set_loss_sum(std::numeric_limits<double>::infinity());
  vote.set_finite(false);
  EXPECT_THAT(infinite.Decide({vote}).error().message,
              ::testing::HasSubstr("step 1: loss or gradient is not finite"));
}

// ---- a program of somebody else's ---------------------------------------------------------------

// Only counts: the tokens that so many forward rounds see.
class CountProgram : public Program {
 public:
  CountProgram(int rounds, int num_microbatches, int64_t& tokens)
      : rounds_(rounds), num_microbatches_(num_microbatches), tokens_(tokens) {}

  void Begin(int64_t, int64_t) override {}
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

}  // namespace
}  // namespace troupe
