// What a rank refuses to begin with, and what it remembers of what it began with.
#include "actors/rank_load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <thread>

#include "actors/checkpoint_store.h"
#include "runtime/format/safetensors.h"
#include "tests/support/rank_stages.h"
#include "tests/support/save_shard.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;
using testing::RankStages;
using testing::SmallSpec;
using testing::TemporaryFolder;

class RankLoadTest : public ::testing::Test {
 protected:
  RankLoadTest() {
    spec_.mutable_model()->set_vocab_size(256);
    spec_.mutable_data()->set_train(folder_.Write("text.txt", std::string(500, 'x')));
    start_.set_world_size(1);
    start_.set_run_directory(folder_ / "run");
  }
  Result<LoadedRank> Load(const std::optional<HostMemory>& memory = std::nullopt) {
    *start_.mutable_spec() = spec_;
    plan_ = *MakeJobPlan(spec_);
    return LoadRank(SystemFiles(), start_, *plan_, memory, ledger_);
  }
  // A checkpoint of step 7 whose optimizer has seen 9 updates, outside of the run's directory.
  std::string Save(const RunContent& content, int64_t skipped_steps = 0,
                   std::optional<int64_t> tokens = std::nullopt) {
    RankStages one(spec_);
    one.FillBySeed(3);
    const std::string dir = folder_ / "other/checkpoints";
    const std::string partial = *BeginCheckpoint(SystemFiles(), dir, 7);
    proto::CheckpointDone shard;
    CHECK(testing::SaveShard(SystemFiles(), partial, 0, 1, one.parameters(0), shard).ok());
    CheckpointManifest manifest{.step = 7,
                                .optimizer_steps = 9,
                                .skipped_steps = skipped_steps,
                                .tokens = tokens,
                                .data = content.data,
                                .init_from = content.init_from,
                                .data_changed = content.data_changed};
    CHECK(AddToManifest(one.plan().table, shard, manifest).ok());
    return *CommitCheckpoint(SystemFiles(), dir, manifest);
  }

  const TemporaryFolder folder_{};
  proto::JobSpec spec_ = SmallSpec();
  proto::StartRank start_{};
  MemoryLedger ledger_{};
  std::optional<JobPlan> plan_{};
};

TEST_F(RankLoadTest, AFreshRunKnowsItsData) {
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_EQ(loaded->progress, TrainingProgress{});
  EXPECT_EQ(loaded->content.data, *IdentityOfFile(SystemFiles(), folder_ / "text.txt"));
  EXPECT_TRUE(loaded->tokens.has_value());
}

// Of four stages the second: neither tokens nor labels.
TEST_F(RankLoadTest, WhereDocumentsEndEveryRankReads) {
  spec_.mutable_parallelism()->set_pp(4);
  start_.set_world_size(4);
  start_.set_rank(1);
  auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_FALSE(loaded->tokens.has_value());
  spec_.mutable_data()->set_document_separator('.');
  loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_TRUE(loaded->tokens.has_value());
  EXPECT_TRUE(loaded->content.data.has_value()) << "which hosts compare";
  spec_.mutable_data()->set_train(folder_ / "elsewhere.txt");
  EXPECT_THAT(Load().error().message, HasSubstr("elsewhere.txt"));
}

TEST_F(RankLoadTest, WhatDoesNotFitIsRefusedBeforeItIsBuilt) {
  const auto refused = Load(HostMemory{.total_bytes = 1000, .available_bytes = 1000});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInfeasible);
  EXPECT_THAT(refused.error().message, HasSubstr("are needed, 1000 B may be had (host)"));
  EXPECT_THAT(ledger_.Snapshot().peak_bytes, ::testing::Each(0));
  EXPECT_TRUE(Load(HostMemory{.total_bytes = int64_t{1} << 40}).ok());
}

TEST_F(RankLoadTest, TheSameRunGoesOnWithTheSameDataOnly) {
  const auto data = *IdentityOfFile(SystemFiles(), spec_.data().train());
  start_.set_resume_from(Save({.data = data}));
  auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  // Every label of its steps counted: 96 in each.
  EXPECT_EQ(loaded->progress, (TrainingProgress{.step = 7, .updates = 9, .tokens = 672}));
  EXPECT_FALSE(loaded->content.data_changed);
  spec_.mutable_data()->set_train(folder_.Write("other.txt", std::string(500, 'y')));
  const auto refused = Load();
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidSpec);
  EXPECT_THAT(refused.error().message, HasSubstr("other.txt: it has as many bytes as before"));
  spec_.mutable_data()->set_allow_change(true);
  loaded = Load();
  ASSERT_TRUE(loaded.ok());
  EXPECT_TRUE(loaded->content.data_changed);
}

TEST_F(RankLoadTest, ANewRunCountsFromZeroWithAnOptimizerThatKnowsItsAge) {
  start_.set_resume_from(Save({.data = ContentIdentity{1, 1}, .data_changed = true}));
  spec_.mutable_checkpoint()->set_resume_as("new_run");
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_EQ(loaded->progress, TrainingProgress{.updates = 9});
  EXPECT_FALSE(loaded->content.data_changed);
  // Stopped itself, it is the same run.
  start_.set_run_directory(folder_ / "other");
  spec_.mutable_data()->set_allow_change(true);
  EXPECT_EQ(Load()->progress.step, 7);
}

TEST_F(RankLoadTest, SkippedStepsAndTheLabelsThatCountedGoOn) {
  start_.set_resume_from(Save({}, /*skipped_steps=*/2, /*tokens=*/77));
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_EQ(loaded->progress,
            (TrainingProgress{.step = 7, .skipped_steps = 2, .updates = 9, .tokens = 77}));
}

TEST_F(RankLoadTest, OutOfMemorySaysWhatIsWantedAndThere) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer ends the process before the program can";
#endif
  EXPECT_EQ(
      OutOfMemory(1 << 20, 3 << 20, HostMemory{.total_bytes = 4 << 20, .available_bytes = 2 << 20}),
      "out of memory: 1.0 MiB more wanted, 2.0 MiB of 4.0 MiB are left here, this rank needs "
      "3.0 MiB in all: lower batch.micro_batch_size or batch.seq_len, take more hosts with a "
      "larger parallelism.pp, or end what else runs here");
  EXPECT_EQ(OutOfMemory(0, 0, std::nullopt),
            "out of memory: lower batch.micro_batch_size or batch.seq_len, take more hosts with a "
            "larger parallelism.pp, or end what else runs here");
  ASSERT_TRUE(Load().ok());
  EXPECT_DEATH(
      {
        SayWhereMemoryRunsOut();
        std::thread([] { std::string(static_cast<size_t>(1) << 62, 'x').clear(); }).join();
      },
      "out of memory: .* are left here, .*this rank needs .* in all: lower batch");
  EXPECT_DEATH(
      {
        SayWhereMemoryRunsOut();
        std::thread([this] {
          const Buffer buffer(ledger_, MemoryTag::kWorkspace, int64_t{1} << 60);
        }).join();
      },
      "out of memory: .* more wanted, .*this rank needs .* in all: lower batch");
}

TEST_F(RankLoadTest, AFolderWithMoreThanTheModelHasIsRefusedHereToo) {
  const RankStages one(spec_);
  const std::string weights = folder_ / "weights";
  std::vector<TensorSpec> specs;
  for (const ParameterSpec& p : one.plan().table.parameters()) {
    specs.push_back({p.name, TensorDtype::kF32, p.shape()});
  }
  specs.push_back({"model.layers.0.self_attn.q_proj.bias", TensorDtype::kF32, {2}});
  ASSERT_TRUE(SystemFiles().CreateDirectories(weights).ok());
  auto writer = *SafetensorsWriter::Create(SystemFiles(), weights + "/model.safetensors", specs);
  for (const TensorSpec& spec : specs) {
    const std::vector<std::byte> zeros(static_cast<size_t>(TensorBytes(spec)));
    ASSERT_TRUE(writer.Append(zeros).ok());
  }
  ASSERT_TRUE(writer.Finish().ok());
  spec_.mutable_model()->set_init_from(weights);
  const auto refused = Load();
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidSpec);
  EXPECT_THAT(refused.error().message, HasSubstr("no place for 1 of its tensors, as "
                                                 "'model.layers.0.self_attn.q_proj.bias'"));
  spec_.mutable_model()->set_ignore_extra_tensors(true);
  EXPECT_TRUE(Load().ok());
}

}  // namespace
}  // namespace troupe
