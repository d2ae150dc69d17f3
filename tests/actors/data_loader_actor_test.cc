// The data loader and an executor that asks it, in jobs whose stages compute nothing.
#include "actors/data_loader_actor.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>

#include "tests/support/idle_stage.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

// More of them than a mailbox holds messages.
TEST(DataLoaderTest, AStepMayHaveAnyNumberOfMicrobatches) {
  constexpr int kMicrobatches = 1500;
  const testing::TemporaryFolder folder;
  const std::string path = folder.Write("text.txt", "some text to train on");
  MemoryLedger ledger;
  std::optional<DataLoaderActor::SelfRef> loader;
  std::unique_ptr<Stream> stream;
  testing::InProcessJobOptions options{.num_ranks = 1, .num_microbatches = kMicrobatches};
  options.steps = {.steps = 2,
                   .num_microbatches = kMicrobatches,
                   .global_batch_size = kMicrobatches,
                   .num_parameters = 1,
                   .checkpoint_at_end = false,
                   .seq_len = 4};
  options.steps.learning_rate = [](int64_t) { return 0.5; };
  options.on_executor = [&loader](Rank, const ExecutorAnswers& executor) {
    ASSERT_TRUE(loader->Send(MeetExecutor{executor}).ok());
  };
  testing::InProcessJob job(
      options,
      [&](const testing::InProcessJob::RankContext& context) -> StageRef {
        return context.scheduler.Spawn<testing::IdleStage>({.name = "stage"}, context, ledger);
      },
      [&](const testing::InProcessJob::RankContext& context) -> LoaderRef {
        auto file = TokenFile::Open(SystemFiles(), path);
        auto order = DataOrder::Make({.num_samples = *CountSamples(*file, 4)});
        stream = std::make_unique<InlineStream>(context.scheduler);
        loader = context.scheduler.Spawn<DataLoaderActor>(
            {.name = "data loader"}, DataLoaderOptions{.micro_batch_size = 1, .seq_len = 4},
            *std::move(file), *std::move(order), *stream);
        return *loader;
      });
  job.Run();
  EXPECT_TRUE(job.errors.empty()) << job.errors.front();
  ASSERT_EQ(job.metrics.size(), 2u);
  // An idle stage's loss is the number of the microbatch.
  EXPECT_DOUBLE_EQ(job.metrics[1].loss(), (kMicrobatches - 1) / 2.0);
}

}  // namespace
}  // namespace troupe
