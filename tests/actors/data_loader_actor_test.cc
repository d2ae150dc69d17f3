// The data loader, asked alone and by the executor of jobs whose stages compute nothing.
#include "actors/data_loader_actor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/idle_stage.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int32_t kNone = kNoLabel;

// A job of one rank whose tokens come from `path`, in samples of four.
class LoaderJob {
 public:
  LoaderJob(const std::string& path, int microbatches, int steps) {
    job.emplace(
        testing::InProcessJobOptions{
            .num_microbatches = microbatches, .tokens = 4, .steps = {.steps = steps}},
        [this](const RankPlace& place, StageId stage) {
          return place.scheduler.Spawn<testing::IdleStage>({.name = fmt::format("stage {}", stage)},
                                                           place, stage, ledger_);
        },
        [path](const RankPlace& place) {
          auto file = TokenFile::Open(SystemFiles(), path);
          EXPECT_TRUE(file->Identify().ok());
          auto order = DataOrder::Make({.num_samples = *CountSamples(*file, 4)});
          return place.scheduler.Spawn<DataLoaderActor>(
              {.name = "data loader"},
              DataLoaderOptions{.batch = {.seq_len = 4}, .fields = {.tokens = true}},
              TokenSource{*std::move(file), *std::move(order)}, place.stream);
        });
  }

  std::optional<testing::InProcessJob> job{};

 private:
  MemoryLedger ledger_{};
};

// Keeps what a loader answers.
class Reader : public Actor<Reader, ActionDone, ActionWaits, GradientReduced, StageVote, UpdateDone,
                            MicrobatchesReady> {
 public:
  explicit Reader(MicrobatchesReady& ready) : ready_(ready) {}
  Status On(MicrobatchesReady ready) {
    ready_ = std::move(ready);
    return {};
  }
  template <typename M>
  Status On(M) {
    return {};
  }

 private:
  MicrobatchesReady& ready_;
};

// A loader of microbatches of two sequences of four tokens.
class DataLoaderAlone : public ::testing::Test {
 protected:
  static constexpr BatchArithmetic kBatch{.micro_batch_size = 2, .seq_len = 4};

  void Open(const MicrobatchFields& fields, std::optional<TokenSource> source = {},
            SpecialTokens special = {}) {
    OpenWith({.batch = kBatch, .fields = fields, .special = special}, std::move(source));
  }
  void OpenWith(const DataLoaderOptions& options, std::optional<TokenSource> source) {
    loader_ = scheduler_.Spawn<DataLoaderActor>(
        {.name = fmt::format("data loader {}", options.context_rank)}, options, std::move(source),
        stream_);
    Tell(MeetExecutor{reader_});
  }
  // Samples in plain order.
  TokenSource Source(const std::string& text) {
    auto file = TokenFile::Open(SystemFiles(), folder_.Write("text.txt", text));
    EXPECT_TRUE(file->Identify().ok());
    auto order = DataOrder::Make({.num_samples = *CountSamples(*file, 4), .shuffle = false});
    return {*std::move(file), *std::move(order)};
  }
  const MicrobatchesReady& Fetch(FetchMicrobatches fetch) {
    Tell(std::move(fetch));
    return ready_;
  }

 private:
  template <typename M>
  void Tell(M message) {
    CHECK(loader_.Send(std::move(message)).ok());
    scheduler_.RunUntilIdle();
  }

  const testing::TemporaryFolder folder_{};
  MicrobatchesReady ready_{};
  Scheduler scheduler_{};
  InlineStream stream_{scheduler_};
  Reader::SelfRef reader_ = scheduler_.Spawn<Reader>({.name = "reader"}, ready_);
  DataLoaderActor::SelfRef loader_{};
};

TEST_F(DataLoaderAlone, SaysOfEachTokenWhatFollowsAndWhereItStands) {
  Open({.tokens = true, .labels = true, .positions = true}, Source("abcdefghijklmnopq"));
  const MicrobatchesReady& ready = Fetch({.round = 3, .first_sample = 0, .num_microbatches = 2});
  EXPECT_TRUE(ready.status.ok());
  EXPECT_EQ(ready.round, 3);
  ASSERT_EQ(ready.microbatches.size(), 2u);
  const Microbatch& first = *ready.microbatches[0];
  EXPECT_THAT(first.tokens, ElementsAre('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'));
  EXPECT_THAT(first.labels, ElementsAre('b', 'c', 'd', 'e', 'f', 'g', 'h', 'i'));
  EXPECT_THAT(*first.positions, ElementsAre(0, 1, 2, 3, 0, 1, 2, 3));
  const Microbatch& second = *ready.microbatches[1];
  EXPECT_THAT(second.labels, ElementsAre('j', 'k', 'l', 'm', 'n', 'o', 'p', 'q'));
  EXPECT_EQ(second.positions, first.positions) << "made once";
}

TEST_F(DataLoaderAlone, LabelsOfOneTokenMayNotCount) {
  Open({.tokens = true, .labels = true}, Source("a..bcd.efghij...."), {.ignore_label = '.'});
  const MicrobatchesReady& ready = Fetch({.first_sample = 0, .num_microbatches = 2});
  ASSERT_EQ(ready.microbatches.size(), 2u);
  const Microbatch& first = *ready.microbatches[0];
  EXPECT_THAT(first.labels, ElementsAre(kNone, kNone, 'b', 'c', 'd', kNone, 'e', 'f'));
  EXPECT_THAT(first.tokens, ElementsAre('a', '.', '.', 'b', 'c', 'd', '.', 'e')) << "inputs stay";
  EXPECT_THAT(ready.microbatches[1]->labels,
              ElementsAre('g', 'h', 'i', 'j', kNone, kNone, kNone, kNone));
}

TEST_F(DataLoaderAlone, DocumentsEndAtTheirSeparators) {
  Open({.labels = true, .document_starts = true}, Source("ab.cd.efg.hijklm."),
       {.document_separator = '.'});
  const MicrobatchesReady& ready = Fetch({.first_sample = 0, .num_microbatches = 2});
  ASSERT_EQ(ready.microbatches.size(), 2u);
  const Microbatch& first = *ready.microbatches[0];
  EXPECT_THAT(first.labels, ElementsAre('b', '.', kNone, 'd', '.', kNone, 'f', 'g'));
  EXPECT_THAT(first.document_starts, ElementsAre(0, 0, 0, 3, 0, 0, 2, 2)) << "of its sample";
  const Microbatch& second = *ready.microbatches[1];
  EXPECT_THAT(second.labels, ElementsAre('.', kNone, 'i', 'j', 'k', 'l', 'm', '.'));
  EXPECT_THAT(second.document_starts, ElementsAre(0, 0, 2, 2, 0, 0, 0, 0));
}

TEST_F(DataLoaderAlone, RanksThatShareASequenceReadItsSamples) {
  DataLoaderOptions options{
      .batch = kBatch,
      .fields = {.tokens = true, .labels = true, .positions = true, .document_starts = true},
      .special = {.document_separator = '.'}};
  options.batch.context = {.num_ranks = 2};  // zigzag
  const FetchMicrobatches fetch{.first_sample = 2, .num_microbatches = 1};
  OpenWith(options, Source("--------ab.cdefg."));
  const Microbatch outer = *Fetch(fetch).microbatches.at(0);
  EXPECT_THAT(outer.tokens, ElementsAre('a', 'c', 'd', 'g'));
  EXPECT_THAT(outer.labels, ElementsAre('b', 'd', 'e', '.'));
  EXPECT_THAT(*outer.positions, ElementsAre(0, 3, 0, 3));
  EXPECT_THAT(outer.document_starts, ElementsAre(0, 3, 0, 0));
  options.context_rank = 1;
  OpenWith(options, Source("--------ab.cdefg."));
  const Microbatch inner = *Fetch(fetch).microbatches.at(0);
  EXPECT_THAT(inner.tokens, ElementsAre('b', '.', 'e', 'f'));
  EXPECT_THAT(inner.labels, ElementsAre('.', kNone, 'f', 'g'));
  EXPECT_THAT(*inner.positions, ElementsAre(1, 2, 1, 2));
  EXPECT_THAT(inner.document_starts, ElementsAre(0, 0, 0, 0));
}

TEST_F(DataLoaderAlone, RanksThatShareASequenceShareATextToSampleAfter) {
  DataLoaderOptions options{.batch = kBatch, .fields = {.tokens = true}};
  options.batch.context = {.num_ranks = 2, .layout = SequenceLayout::kStriped};
  const FetchMicrobatches fetch{
      .mode = proto::STEP_MODE_SAMPLE, .num_microbatches = 1, .text = {5, 6, 7}};
  OpenWith(options, Source("abcdefghijklmnopq"));
  EXPECT_THAT(Fetch(fetch).microbatches.at(0)->tokens, ElementsAre(5, 7, 0, 0));
  options.context_rank = 1;
  OpenWith(options, Source("abcdefghijklmnopq"));
  EXPECT_THAT(Fetch(fetch).microbatches.at(0)->tokens, ElementsAre(6, 0, 0, 0));
}

TEST_F(DataLoaderAlone, ARankBetweenFirstAndLastReadsNoFile) {
  Open({.positions = true});
  const MicrobatchesReady& ready = Fetch({.first_sample = 7, .num_microbatches = 2});
  EXPECT_TRUE(ready.status.ok());
  ASSERT_EQ(ready.microbatches.size(), 2u);
  EXPECT_THAT(ready.microbatches[0]->tokens, IsEmpty());
  EXPECT_THAT(ready.microbatches[0]->labels, IsEmpty());
  EXPECT_THAT(*ready.microbatches[1]->positions, ElementsAre(0, 1, 2, 3, 0, 1, 2, 3));
}

TEST_F(DataLoaderAlone, ATextToSampleAfterIsTheFirstSequence) {
  Open({.tokens = true, .positions = true}, Source("abcdefghijklmnopq"));
  const FetchMicrobatches fetch{
      .mode = proto::STEP_MODE_SAMPLE, .num_microbatches = 1, .text = {5, 6, 7}};
  const MicrobatchesReady& ready = Fetch(fetch);
  ASSERT_EQ(ready.microbatches.size(), 1u);
  EXPECT_THAT(ready.microbatches[0]->tokens, ElementsAre(5, 6, 7, 0, 0, 0, 0, 0));
  EXPECT_THAT(*ready.microbatches[0]->positions, ElementsAre(0, 1, 2, 3, 0, 1, 2, 3));
}

TEST_F(DataLoaderAlone, ATextThatDoesNotFitIsNamed) {
  Open({.tokens = true}, Source("abcdefghijklmnopq"));
  for (const size_t length : {0, 5}) {
    const Status status = Fetch({.mode = proto::STEP_MODE_SAMPLE,
                                 .num_microbatches = 1,
                                 .text = std::vector<int32_t>(length)})
                              .status;
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().message, fmt::format("{} tokens in a context of 4", length));
  }
}

// More of them than a mailbox holds messages.
TEST(DataLoaderTest, AStepMayHaveAnyNumberOfMicrobatches) {
  constexpr int kMicrobatches = 1500;
  const testing::TemporaryFolder folder;
  LoaderJob loading(folder.Write("text.txt", "some text to train on"), kMicrobatches, 2);
  testing::InProcessJob& job = *loading.job;
  job.Run();
  EXPECT_TRUE(job.errors.empty()) << job.errors.front();
  ASSERT_EQ(job.metrics.size(), 2u);
  // An idle stage's loss is the number of the microbatch.
  EXPECT_DOUBLE_EQ(job.metrics[1].loss(), (kMicrobatches - 1) / 2.0);
}

TEST(DataLoaderTest, ATextThatIsCutEndsTheJobWithItsName) {
  const testing::TemporaryFolder folder;
  const std::string path = folder.Write("text.txt", "some text to train on");
  LoaderJob loading(path, 2, 10);
  testing::InProcessJob& job = *loading.job;
  // Before the next step's tokens are asked for.
  job.on_step = [&](int64_t step) {
    if (step == 2) folder.Write("text.txt", "some");
  };
  job.Run();
  EXPECT_EQ(job.metrics.size(), 2u);
  EXPECT_FALSE(job.ended);
  ASSERT_FALSE(job.errors.empty());
  EXPECT_THAT(job.errors.front(), ::testing::HasSubstr(path + ": was cut from 21 to 4 bytes"));
}

}  // namespace
}  // namespace troupe
