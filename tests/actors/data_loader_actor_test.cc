// The data loader and an executor that asks it, in jobs whose stages compute nothing.
#include "actors/data_loader_actor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "tests/support/idle_stage.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

// A job of one rank whose tokens come from `path`, in samples of four.
class LoaderJob {
 public:
  LoaderJob(const std::string& path, int microbatches, int steps) {
    job.emplace(
        testing::InProcessJobOptions{
            .num_microbatches = microbatches, .tokens = 4, .steps = {.steps = steps}},
        [this](const RankPlace& place, StageId stage) {
          return place.scheduler.Spawn<testing::IdleStage>({.name = "stage"}, place, stage,
                                                           ledger_);
        },
        [path](const RankPlace& place) {
          auto file = TokenFile::Open(SystemFiles(), path);
          EXPECT_TRUE(file->Identify().ok());
          auto order = DataOrder::Make({.num_samples = *CountSamples(*file, 4)});
          return place.scheduler.Spawn<DataLoaderActor>(
              {.name = "data loader"}, DataLoaderOptions{.micro_batch_size = 1, .seq_len = 4},
              *std::move(file), *std::move(order), place.stream);
        });
  }

  std::optional<testing::InProcessJob> job{};

 private:
  MemoryLedger ledger_{};
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
