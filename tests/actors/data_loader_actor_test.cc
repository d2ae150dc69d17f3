// The data loader and an executor that asks it, in jobs whose stages compute nothing.
#include "actors/data_loader_actor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>

#include "tests/support/idle_stage.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

// A job of one rank whose tokens come from `path`, in samples of four.
class LoaderJob {
 public:
  // `at_step`: before the tokens of a step are asked for.
  LoaderJob(
      const std::string& path, int microbatches, int64_t steps,
      std::function<void(int64_t step)> at_step = [](int64_t) {}) {
    testing::InProcessJobOptions options{.num_ranks = 1, .num_microbatches = microbatches};
    options.steps = {.steps = steps,
                     .num_microbatches = microbatches,
                     .global_batch_size = microbatches,
                     .num_parameters = 1,
                     .checkpoint_at_end = false,
                     .seq_len = 4};
    options.steps.learning_rate = [at_step = std::move(at_step)](int64_t step) {
      at_step(step);
      return 0.5;
    };
    options.on_executor = [this](Rank, const ExecutorAnswers& executor) {
      ASSERT_TRUE(loader_->Send(MeetExecutor{executor}).ok());
    };
    job.emplace(
        options,
        [this](const testing::InProcessJob::RankContext& context) -> StageRef {
          return context.scheduler.Spawn<testing::IdleStage>({.name = "stage"}, context, ledger_);
        },
        [this, path](const testing::InProcessJob::RankContext& context) -> LoaderRef {
          auto file = TokenFile::Open(SystemFiles(), path);
          EXPECT_TRUE(file->Identify().ok());
          auto order = DataOrder::Make({.num_samples = *CountSamples(*file, 4)});
          stream_ = std::make_unique<InlineStream>(context.scheduler);
          loader_ = context.scheduler.Spawn<DataLoaderActor>(
              {.name = "data loader"}, DataLoaderOptions{.micro_batch_size = 1, .seq_len = 4},
              *std::move(file), *std::move(order), *stream_);
          return *loader_;
        });
  }

 private:
  MemoryLedger ledger_{};
  std::optional<DataLoaderActor::SelfRef> loader_{};
  std::unique_ptr<Stream> stream_{};

 public:
  std::optional<testing::InProcessJob> job{};
};

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
  LoaderJob loading(path, 2, 10, [&](int64_t step) {
    if (step == 3) folder.Write("text.txt", "some");
  });
  testing::InProcessJob& job = *loading.job;
  job.Run();
  EXPECT_EQ(job.metrics.size(), 2u);
  EXPECT_FALSE(job.ended);
  ASSERT_FALSE(job.errors.empty());
  EXPECT_THAT(job.errors.front(), ::testing::HasSubstr(path + ": was cut from 21 to 4 bytes"));
}

}  // namespace
}  // namespace troupe
