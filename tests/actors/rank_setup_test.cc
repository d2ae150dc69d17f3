#include "actors/rank_setup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <tuple>

#include "tests/support/rank_stages.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using testing::RankStages;
using testing::SmallLayout;
using testing::SmallSpec;

TEST(TrainOptionsTest, ARunEndsWhereTheJobSays) {
  RankStages ranks(SmallSpec());
  proto::StartRank start = ranks.Start();
  start.mutable_spec()->mutable_checkpoint()->set_every(7);
  EXPECT_EQ(TrainOptionsOf(start, ranks.plan()).steps, 20);
  start.mutable_spec()->mutable_train()->set_stop_after(3);
  const TrainOptions options = TrainOptionsOf(start, ranks.plan());
  EXPECT_EQ(options.steps, 3);
  EXPECT_EQ(options.num_microbatches, 8);
  EXPECT_EQ(options.global_batch_size, 16);
  EXPECT_EQ(options.evaluate.num_microbatches, 8);
  EXPECT_EQ(options.num_parameters, ranks.plan().table.size());
  EXPECT_EQ(options.checkpoint_every, 7);
  EXPECT_TRUE(options.checkpoint_at_end);
  EXPECT_EQ(options.learning_rate(1), ranks.plan().learning_rate.At(1));
  EXPECT_TRUE(options.sample.prompt.empty());
  start.set_reference_run(true);
  EXPECT_FALSE(TrainOptionsOf(start, ranks.plan()).checkpoint_at_end);
}

TEST(TrainOptionsTest, RanksThatShareSequencesVoteForOneMicrobatch) {
  RankStages ranks(SmallSpec({.dp = 2, .cp = 3}));
  const TrainOptions options = TrainOptionsOf(ranks.Start(), ranks.plan());
  EXPECT_EQ(options.num_microbatches, 4);
  EXPECT_EQ(options.data_parallel, 2);
  EXPECT_EQ(options.context_parallel, 3);
  EXPECT_EQ(options.evaluate.context_parallel, 3);
}

TEST(TrainOptionsTest, APromptIsItsBytes) {
  RankStages ranks(SmallSpec());
  proto::StartRank start = ranks.Start();
  auto& sample = *start.mutable_spec()->mutable_eval()->mutable_sample();
  sample.set_prompt("a\xff");
  sample.set_tokens(5);
  const TrainOptions options = TrainOptionsOf(start, ranks.plan());
  EXPECT_THAT(options.sample.prompt, ElementsAre('a', 255));
  EXPECT_EQ(options.sample.tokens, 5);
  EXPECT_EQ(options.sample.seq_len, 6);
}

// A job of one deed: evaluation rounds, or tokens from a prompt, then nothing.
TEST(ProgramTest, TheKindNamesTheProgram) {
  RankStages ranks(SmallSpec());
  proto::StartRank start = ranks.Start();
  proto::Eval& eval = *start.mutable_spec()->mutable_eval();
  eval.set_batches(3);
  eval.mutable_sample()->set_prompt("a");
  eval.mutable_sample()->set_tokens(2);
  const auto mode_of = [&](const std::string& kind) {
    start.mutable_spec()->set_kind(kind);
    auto program = ProgramOf(start, ranks.plan(), 0);
    CHECK(program.ok());
    (*program)->Begin({}, 0);
    return std::get<Round>(*(*program)->Next(0)).start.mode();
  };
  EXPECT_EQ(mode_of("pretrain"), proto::STEP_MODE_TRAIN);
  EXPECT_EQ(mode_of("evaluate"), proto::STEP_MODE_EVAL);
  EXPECT_EQ(mode_of("sample"), proto::STEP_MODE_SAMPLE);
}

TEST(ProgramTest, AKindThatNamesNoProgramIsRefused) {
  RankStages ranks(SmallSpec());
  proto::StartRank start = ranks.Start();
  EXPECT_TRUE(ProgramOf(start, ranks.plan(), 0).ok());
  start.mutable_spec()->set_kind("pretrain");
  EXPECT_TRUE(ProgramOf(start, ranks.plan(), 0).ok());
  start.mutable_spec()->set_kind("levitate");
  EXPECT_EQ(ProgramOf(start, ranks.plan(), 0).error().message,
            "kind = levitate: use pretrain, evaluate or sample");
}

TEST(WaitDeadlineTest, AWaitIsToldOfWellBeforeItEndsTheJob) {
  proto::JobSpec spec = SmallSpec();
  EXPECT_EQ(WaitDeadlineMs(spec, 60'000), 60'000);
  spec.mutable_resources()->set_hang_seconds(300);
  EXPECT_EQ(WaitDeadlineMs(spec, 60'000), 60'000);
  spec.mutable_resources()->set_hang_seconds(4);
  EXPECT_EQ(WaitDeadlineMs(spec, 60'000), 2000);
}

TEST(StageOptionsTest, KnowWhichStageHasTheLoss) {
  RankStages ranks(SmallSpec({.pp = 2}));
  proto::JobSpec spec = SmallSpec({.pp = 2});
  for (const double beta : {0.9, 0.95}) spec.mutable_optimizer()->add_betas(beta);
  const StageOptions first = StageOptionsOf(spec, ranks.plan(), Rank(0), StageId(0));
  const StageOptions last = StageOptionsOf(spec, ranks.plan(), Rank(1), StageId(1));
  EXPECT_FALSE(first.last);
  EXPECT_TRUE(last.last);
  EXPECT_EQ(last.rank, Rank(1));
  EXPECT_EQ(last.adamw.beta2, 0.95);
}

TEST(StageOptionsTest, KnowWhichPartOfASequenceTheyHave) {
  const SmallLayout layout{.pp = 2, .cp = 3};
  RankStages ranks(SmallSpec(layout));
  proto::JobSpec spec = SmallSpec(layout);
  for (const double beta : {0.9, 0.95}) spec.mutable_optimizer()->add_betas(beta);
  std::vector<int> places;
  for (int rank = 3; rank < 6; ++rank) {
    places.push_back(StageOptionsOf(spec, ranks.plan(), Rank(rank), StageId(1)).context_rank);
  }
  EXPECT_THAT(places, ElementsAre(0, 1, 2));
}

TEST(HostNumbers, AreOfTheFirstRankThere) {
  const std::vector<std::pair<int, std::string>> ranks = {
      {2, "b"}, {0, "a"}, {1, "b"}, {3, "a"}, {4, "c"}};
  proto::Peers peers;
  for (const auto& [rank, host] : ranks) {
    auto* peer = peers.add_peers();
    peer->set_rank(rank);
    peer->set_host(host);
  }
  EXPECT_EQ(HostNumbersOf(peers, 5), (std::vector<int>{0, 1, 1, 0, 4}));
}

TEST(ExecutorOptionsTest, TheFirstRankThatSharesASequenceDecides) {
  proto::JobSpec spec = SmallSpec({.pp = 2});
  spec.mutable_parallelism()->set_cp(3);
  spec.mutable_batch()->set_gradient_groups(1);
  RankStages ranks(spec);
  const auto follows = [&](int rank) {
    return ExecutorOptionsOf(spec, ranks.plan(), Rank(rank)).follows;
  };
  EXPECT_EQ(follows(0), std::nullopt);
  EXPECT_EQ(follows(2), Rank(0));
  EXPECT_EQ(follows(3), std::nullopt);
  EXPECT_EQ(follows(4), Rank(3));
}

TEST(ExecutorOptionsTest, AllRanksKnowTheReductionsOfThePlan) {
  const proto::JobSpec spec = SmallSpec({.pp = 2, .tied = true});
  RankStages ranks(spec);
  const ExecutorOptions first = ExecutorOptionsOf(spec, ranks.plan(), Rank(0));
  const ExecutorOptions last = ExecutorOptionsOf(spec, ranks.plan(), Rank(1));
  EXPECT_EQ(first.rank, Rank(0));
  EXPECT_EQ(last.rank, Rank(1));
  EXPECT_EQ(first.train.num_ranks, 2);
  EXPECT_EQ(first.boundary.num_bytes, 2 * 6 * 16 * sizeof(float));
  EXPECT_EQ(first.reductions,
            (std::vector<GradientReduction>{{SharedWeights::kTied, {StageId(0), StageId(1)}}}));
  EXPECT_EQ(last.reductions, first.reductions);
}

TEST(DataLoaderOptionsTest, ARankLoadsWhatAnyOfItsStagesReads) {
  RankStages four(SmallSpec({.pp = 4}));
  const auto fields = [](const RankStages& ranks, int rank) {
    return DataLoaderOptionsOf(SmallSpec(), ranks.plan(), Rank(rank)).fields;
  };
  EXPECT_EQ(fields(four, 0), (MicrobatchFields{.tokens = true, .positions = true}));
  EXPECT_EQ(fields(four, 1), (MicrobatchFields{.positions = true}));
  EXPECT_EQ(fields(four, 3), (MicrobatchFields{.labels = true, .positions = true}));
  RankStages folded(SmallSpec({.pp = 2, .schedule = "zb-v"}));
  EXPECT_EQ(fields(folded, 0),
            (MicrobatchFields{.tokens = true, .labels = true, .positions = true}));
  EXPECT_EQ(fields(folded, 1), (MicrobatchFields{.positions = true}));
}

TEST(DataLoaderOptionsTest, EveryLabelCountsUnlessOneIsNamed) {
  const RankStages ranks(SmallSpec());
  proto::JobSpec spec = SmallSpec();
  EXPECT_EQ(DataLoaderOptionsOf(spec, ranks.plan(), Rank(0)).special.ignore_label, std::nullopt);
  spec.mutable_data()->set_ignore_label(0);
  EXPECT_EQ(DataLoaderOptionsOf(spec, ranks.plan(), Rank(0)).special.ignore_label, 0);
}

TEST(DataLoaderOptionsTest, DocumentsEndWhereATokenIsNamed) {
  const RankStages ranks(SmallSpec());
  proto::JobSpec spec = SmallSpec();
  EXPECT_EQ(DataLoaderOptionsOf(spec, ranks.plan(), Rank(0)).special.document_separator,
            std::nullopt);
  spec.mutable_data()->set_document_separator(0);
  EXPECT_EQ(DataLoaderOptionsOf(spec, ranks.plan(), Rank(0)).special.document_separator, 0);
}

// Ranks 0 to 3: two microbatches of a number, each of two ranks.
TEST(DataLoaderOptionsTest, ARankKnowsItsPlaceAlongItsSequences) {
  JobPlan plan = RankStages(SmallSpec()).plan();
  proto::Parallelism wider;
  wider.set_dp(2);
  wider.set_cp(2);
  plan.mesh = *Mesh::FromSpec(wider);
  std::vector<std::pair<int, int>> places;
  for (int rank = 0; rank < 4; ++rank) {
    const DataLoaderOptions options = DataLoaderOptionsOf(SmallSpec(), plan, Rank(rank));
    places.emplace_back(options.data_parallel_rank, options.context_rank);
  }
  EXPECT_THAT(places,
              ElementsAre(std::pair(0, 0), std::pair(0, 1), std::pair(1, 0), std::pair(1, 1)));
}

TEST(DataOrderTest, AFileThatIsTooShortIsRefused) {
  RankStages ranks(SmallSpec());
  testing::TemporaryFolder folder;
  const auto order_of = [&](const std::string& text) {
    folder.Write("text.txt", text);
    const auto tokens = TokenFile::Open(SystemFiles(), folder / "text.txt");
    CHECK(tokens.ok(), "{}", tokens.error().message);
    return DataOrderOf(SmallSpec(), ranks.plan(), *tokens);
  };
  EXPECT_TRUE(order_of(std::string(100, 'x')).ok());
  EXPECT_FALSE(order_of("short").ok());
}

// Remembers what was posted and what may be sent, by the two ranks and the channel.
class SlotBook : public Transport {
 public:
  using Key = std::tuple<int, int, uint16_t>;  // from, to, channel

  explicit SlotBook(Rank self) : self_(self) {}
  Status PostSlots(Rank from, uint16_t channel, int num_slots, int64_t slot_bytes) override {
    if (slot_bytes <= 0) return MakeError(ErrorCode::kFailed, "a slot of {} bytes", slot_bytes);
    posted[{from.value, self_.value, channel}] += num_slots;
    return {};
  }
  void SetCredits(Rank to, uint16_t channel, int num_slots) override {
    credits[{self_.value, to.value, channel}] += num_slots;
  }

  void SetHandlers(Handlers) override {}
  std::string LocalAddress() const override { return {}; }
  Status Connect(Rank, std::string_view) override { return {}; }
  int Credits(Rank, uint16_t) const override { return 0; }
  Status Send(Rank, const Envelope&, std::span<const std::byte>) override { return {}; }
  Status SendBulk(Rank, const Envelope&, std::span<const std::byte>, std::span<const std::byte>,
                  std::function<void()>) override {
    return {};
  }
  int Progress() override { return 0; }
  int EventFd() const override { return -1; }
  bool Arm() override { return true; }
  Lane LaneTo(Rank) const override { return {}; }
  int64_t BytesSentTo(Rank) const override { return 0; }
  void Close(int) override {}

  std::map<Key, int> posted{};
  std::map<Key, int> credits{};

 private:
  const Rank self_;
};

// A sender that had more credits than its peer has slots would lose messages.
TEST(PostSlotsTest, WhatARankMaySendItsPeerHasPosted) {
  for (const SmallLayout& layout : {SmallLayout{.pp = 1}, SmallLayout{.pp = 4},
                                    SmallLayout{.pp = 2, .schedule = "dualpipe", .tied = true},
                                    SmallLayout{.pp = 2, .schedule = "1f1b", .tied = true}}) {
    RankStages ranks(SmallSpec(layout));
    std::map<SlotBook::Key, int> posted;
    std::map<SlotBook::Key, int> credits;
    for (int rank = 0; rank < ranks.num_ranks(); ++rank) {
      SlotBook book{Rank(rank)};
      const Status status = PostSlots(book, SmallSpec(layout), ranks.plan(), Rank(rank));
      ASSERT_TRUE(status.ok()) << status.error().message;
      posted.merge(book.posted);
      credits.merge(book.credits);
    }
    EXPECT_EQ(posted, credits) << layout.schedule;
    EXPECT_EQ(posted.empty(), layout.pp == 1) << layout.schedule;
  }
}

// Two pipelines of two, ranks 0 and 2, and 1 and 3.
TEST(PostSlotsTest, AChannelJoinsTwoRanksOfOnePipeline) {
  const SmallLayout layout{.pp = 2, .schedule = "1f1b"};
  RankStages ranks(SmallSpec(layout));
  JobPlan plan = ranks.plan();
  proto::Parallelism wider;
  wider.set_dp(2);
  wider.set_pp(2);
  plan.mesh = *Mesh::FromSpec(wider);
  std::map<SlotBook::Key, int> posted;
  for (int rank = 0; rank < plan.mesh.num_ranks(); ++rank) {
    SlotBook book{Rank(rank)};
    ASSERT_TRUE(PostSlots(book, SmallSpec(layout), plan, Rank(rank)).ok());
    posted.merge(book.posted);
  }
  std::vector<std::pair<int, int>> joined;
  for (const auto& [key, slots] : posted) joined.emplace_back(std::get<0>(key), std::get<1>(key));
  EXPECT_THAT(joined, ::testing::ElementsAre(std::pair(0, 2), std::pair(1, 3), std::pair(2, 0),
                                             std::pair(3, 1)));
}

}  // namespace
}  // namespace troupe
