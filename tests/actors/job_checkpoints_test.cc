#include "actors/job_checkpoints.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>

#include "actors/checkpoint_store.h"
#include "actors/job_actor.h"
#include "actors/schedule_actor.h"
#include "actors/train_program.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/rank_stages.h"
#include "tests/support/save_shard.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using testing::FaultyFileSystem;
using testing::FileFaults;
using ::testing::HasSubstr;
using testing::RankStages;
using testing::SmallSpec;
using testing::TemporaryFolder;

// Renames everything but the partial export.
class RefusesExport : public FaultyFileSystem {
 public:
  Status Rename(const std::string& from, const std::string& to) override {
    if (from.ends_with(".hf.partial")) return MakeError(ErrorCode::kIo, "{}: refused", from);
    return FaultyFileSystem::Rename(from, to);
  }
};

// A disk on which no folder is made before the gate opens.
class StillDisk : public FaultyFileSystem {
 public:
  explicit StillDisk(std::shared_future<void> gate) : gate_(std::move(gate)) {}
  Status CreateDirectories(const std::string& path) override {
    gate_.wait();
    return FaultyFileSystem::CreateDirectories(path);
  }
  Status Rename(const std::string& from, const std::string& to) override {
    gate_.wait();
    return FaultyFileSystem::Rename(from, to);
  }

 private:
  const std::shared_future<void> gate_;
};

// The one rank of a job: votes, updates and writes the shards of all as it is told.
class OneRank : public Actor<OneRank, proto::StepStart, proto::Commit, proto::CheckpointStart> {
 public:
  using Shards = std::function<std::vector<proto::CheckpointDone>(const proto::CheckpointStart&)>;

  OneRank(const ScheduleActor::SelfRef& schedule, Shards shards)
      : schedule_(schedule), shards_(std::move(shards)) {}
  Status On(const proto::StepStart& start) {
    proto::Vote vote;
    vote.set_round(start.round());
    vote.set_finite(true);
    auto* loss = vote.add_losses();
    loss->set_loss_sum(1);
    loss->set_num_tokens(1);
    auto* node = vote.add_norm_nodes();
    node->set_num_leaves(1);
    node->set_sum(1);
    return schedule_.Send(vote);
  }
  Status On(const proto::Commit& commit) {
    proto::StepDone done;
    done.set_step(commit.step());
    return schedule_.Send(done);
  }
  Status On(const proto::CheckpointStart& start) {
    proto::CheckpointDone all;
    all.set_step(start.step());
    for (const auto& shard : shards_(start)) {
      all.mutable_tensors()->MergeFrom(shard.tensors());
      all.mutable_files()->MergeFrom(shard.files());
    }
    return schedule_.Send(all);
  }

 private:
  const ScheduleActor::SelfRef& schedule_;
  const Shards shards_;
};

class JobCheckpointsTest : public ::testing::Test {
 protected:
  JobCheckpointsTest() {
    start_ = ranks_.Start(folder_ / "run");
    start_.mutable_spec()->mutable_checkpoint()->set_keep(2);
    CHECK(SystemFiles().CreateDirectories(folder_ / "run").ok());
  }

  // Of a run all of whose labels count.
  TrainingProgress At(int64_t step) const {
    return {.step = step, .updates = step, .tokens = step * ranks_.plan().batch.tokens_per_step()};
  }
  // What all ranks write of a step whose weights are those of seed `step`.
  std::vector<proto::CheckpointDone> WriteShards(const CheckpointFolders& folders, int64_t step) {
    ranks_.FillBySeed(static_cast<int>(step));
    std::vector<proto::CheckpointDone> shards;
    for (int rank = 0; rank < ranks_.num_ranks(); ++rank) {
      auto& shard = shards.emplace_back();
      shard.set_rank(rank);
      if (!folders.checkpoint.empty()) {
        const Status written =
            testing::SaveShard(SystemFiles(), folders.checkpoint, rank, ranks_.num_ranks(),
                               ranks_.parameters(rank), shard);
        CHECK(written.ok(), "{}", written.error().message);
      }
      if (folders.exported.empty()) continue;
      CHECK(WriteHfShard(SystemFiles(), folders.exported, PipelineRank(rank), ranks_.num_ranks(),
                         DType::kFloat32, ranks_.parameters(rank))
                .ok());
    }
    return shards;
  }
  Result<proto::CheckpointCommitted> Save(int64_t step, FileSystem& files = SystemFiles()) {
    JobCheckpoints checkpoints(files, start_, ranks_.plan());
    auto committed = SaveWith(checkpoints, step);
    if (!committed.ok()) checkpoints.Abandon();
    return committed;
  }
  Result<proto::CheckpointCommitted> SaveWith(JobCheckpoints& checkpoints, int64_t step) {
    ASSIGN_OR_RETURN(const CheckpointFolders folders, checkpoints.Open(step));
    return checkpoints.Commit(At(step), WriteShards(folders, step));
  }
  Result<std::string> StartFrom(int64_t step, FileSystem& files = SystemFiles()) {
    return JobCheckpoints(files, start_, ranks_.plan()).StartFrom(step);
  }

  std::vector<std::string> Names(const std::string& folder) const {
    return *SystemFiles().List(folder_ / folder);
  }
  // The step of the newest checkpoint, whose tensors must be those of that step; -1: none.
  int64_t Newest() const {
    const auto found = FindNewestCheckpoint(SystemFiles(), folder_ / "run/checkpoints");
    CHECK(found.ok(), "{}", found.error().message);
    if (!*found) return -1;
    RankStages wanted(SmallSpec());
    wanted.FillBySeed(static_cast<int>((*found)->manifest.step));
    proto::StartRank start = wanted.Start();
    start.set_resume_from((*found)->folder);
    RankStages resumed(SmallSpec());
    const auto step = resumed.Fill(start);
    CHECK(step.ok(), "{}", step.error().message);
    CHECK(resumed.Bytes() == wanted.Bytes(), "{} holds other tensors", (*found)->folder);
    return *step;
  }
  // The export is whole and of one of the steps; 0: there is none.
  int64_t Exported() const {
    if (!SystemFiles().Exists(folder_ / "run/hf")) return 0;
    proto::StartRank start = ranks_.Start();
    start.mutable_spec()->mutable_model()->set_init_from(folder_ / "run/hf");
    RankStages read(SmallSpec());
    const auto filled = read.Fill(start);
    CHECK(filled.ok(), "{}", filled.error().message);
    for (const int step : {5, 6}) {
      RankStages wanted(SmallSpec());
      wanted.FillBySeed(step);
      if (read.WeightBytes() == wanted.WeightBytes()) return step;
    }
    return -1;
  }

  const TemporaryFolder folder_{};
  RankStages ranks_{SmallSpec({.pp = 2})};
  proto::StartRank start_{};
};

TEST_F(JobCheckpointsTest, ACommitSaysWhereItIsAndHowTheRunGoesOn) {
  JobCheckpoints checkpoints(SystemFiles(), start_, ranks_.plan());
  EXPECT_EQ(checkpoints.newest(), "");
  const auto committed = SaveWith(checkpoints, 7);
  ASSERT_TRUE(committed.ok()) << committed.error().message;
  EXPECT_EQ(committed->step(), 7);
  EXPECT_EQ(committed->directory(), folder_ / "run/checkpoints/step-00000007");
  EXPECT_EQ(committed->hf_directory(), "");
  EXPECT_EQ(checkpoints.newest(), committed->directory());
  const auto manifest = ReadManifest(SystemFiles(), committed->directory());
  ASSERT_TRUE(manifest.ok()) << manifest.error().message;
  EXPECT_EQ(manifest->step, 7);
  EXPECT_EQ(manifest->next_sample, 7 * 16);
  EXPECT_EQ(manifest->seed, 5u);
  EXPECT_EQ(manifest->gradient_groups, 2);
  proto::JobSpec job;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(manifest->job_json, &job).ok());
  EXPECT_EQ(job.SerializeAsString(), start_.spec().SerializeAsString());
  EXPECT_EQ(Newest(), 7);
}

// A run that is cancelled before its first step has a checkpoint of what it started from.
TEST_F(JobCheckpointsTest, StepZeroIsACheckpointLikeAnother) {
  ASSERT_TRUE(Save(0).ok());
  EXPECT_EQ(Newest(), 0);
  EXPECT_EQ(*StartFrom(0), "") << "a run from step 0 goes on from it";
  EXPECT_EQ(Newest(), 0);
  ASSERT_TRUE(Save(1).ok());
  EXPECT_THAT(Names("run/checkpoints"), ElementsAre("latest", "step-00000000", "step-00000001"));
}

TEST_F(JobCheckpointsTest, AShardThatIsMissingCommitsNothing) {
  ASSERT_TRUE(Save(5).ok());
  JobCheckpoints checkpoints(SystemFiles(), start_, ranks_.plan());
  auto shards = WriteShards(*checkpoints.Open(6), 6);
  shards.pop_back();
  const auto committed = checkpoints.Commit(At(6), shards);
  ASSERT_FALSE(committed.ok());
  EXPECT_THAT(committed.error().message, HasSubstr("no rank saved model.layers."));
  EXPECT_EQ(Newest(), 5);
  checkpoints.Abandon();
  EXPECT_THAT(Names("run/checkpoints"), ElementsAre("latest", "step-00000005"));
  EXPECT_EQ(checkpoints.newest(), "");
}

TEST_F(JobCheckpointsTest, WhatAnInterruptedTryLeftIsNotTakenOver) {
  JobCheckpoints first(SystemFiles(), start_, ranks_.plan());
  const std::string open = first.Open(5)->checkpoint;
  ASSERT_TRUE(
      WriteFileAtomically(SystemFiles(), open + "/tensors-00009-of-00009.safetensors", "x").ok());
  ASSERT_TRUE(Save(5).ok());
  const auto files = Names("run/checkpoints/step-00000005");
  EXPECT_EQ(files.size(), 5u) << "two of each rank, and the manifest";
}

TEST_F(JobCheckpointsTest, KeepCountsTheRunsOwnAndLeavesWhatWasSetAside) {
  for (const int64_t step : {1, 2, 3}) ASSERT_TRUE(Save(step).ok());
  EXPECT_THAT(Names("run/checkpoints"), ElementsAre("latest", "step-00000002", "step-00000003"));
  for (const std::string aside : {"abandoned-1", "abandoned-2", "abandoned-3"}) {
    EXPECT_EQ(*StartFrom(0),
              "this run starts from step 0: the later checkpoints of its folder are "
              "now in " +
                  folder_.path() + "/run/checkpoints/" + aside +
                  ", which stays until you remove it");
    EXPECT_EQ(Newest(), -1);
    for (const int64_t step : {4, 5, 6}) ASSERT_TRUE(Save(step).ok());
    EXPECT_EQ(Newest(), 6);
  }
  EXPECT_THAT(Names("run/checkpoints"), ElementsAre("abandoned-1", "abandoned-2", "abandoned-3",
                                                    "latest", "step-00000005", "step-00000006"));
  EXPECT_THAT(Names("run/checkpoints/abandoned-1"), ElementsAre("step-00000002", "step-00000003"));
  EXPECT_THAT(Names("run/checkpoints/abandoned-3"), ElementsAre("step-00000005", "step-00000006"));
}

TEST_F(JobCheckpointsTest, SettingAsideThatFailsMidwayLosesNothing) {
  for (const int64_t step : {1, 2, 3, 4}) {
    start_.mutable_spec()->mutable_checkpoint()->set_keep(4);
    ASSERT_TRUE(Save(step).ok());
  }
  FaultyFileSystem files({.fail_rename = 2});
  const auto failed = StartFrom(1, files);
  ASSERT_FALSE(failed.ok());
  EXPECT_THAT(failed.error().message, HasSubstr("step-00000003: cannot rename to"));
  EXPECT_THAT(Names("run/checkpoints/abandoned-1"), ElementsAre("step-00000004"));
  EXPECT_EQ(Newest(), 3);
  ASSERT_TRUE(StartFrom(1).ok());
  EXPECT_EQ(Newest(), 1);
  EXPECT_THAT(Names("run/checkpoints/abandoned-2"), ElementsAre("step-00000002", "step-00000003"));
  EXPECT_EQ(*SystemFiles().ReadFile(folder_ / "run/checkpoints/latest", 100), "step-00000001\n");
}

// Whatever call fails: the newest checkpoint is whole, an export that is there is whole, and an
// abandoned try leaves no bytes.
TEST_F(JobCheckpointsTest, NoFaultOfACommitLeavesHalfOfAnything) {
  start_.mutable_spec()->mutable_checkpoint()->set_save_hf(true);
  FaultyFileSystem sound;
  ASSERT_TRUE(Save(5, sound).ok());
  std::vector<FileFaults> faults;
  for (int64_t n = 1; n <= sound.num_renames() + 1; ++n) faults.push_back({.fail_rename = n});
  for (int64_t n = 1; n <= sound.num_syncs(); ++n) faults.push_back({.fail_sync = n});
  for (int64_t n = 1; n <= sound.num_writes(); ++n) faults.push_back({.fail_write = n});
  for (const FileFaults& fault : faults) {
    ASSERT_TRUE(SystemFiles().RemoveAll(folder_ / "run").ok());
    ASSERT_TRUE(SystemFiles().CreateDirectories(folder_ / "run").ok());
    ASSERT_TRUE(Save(5).ok());
    FaultyFileSystem files(fault);
    EXPECT_FALSE(Save(6, files).ok());
    const int64_t newest = Newest();
    EXPECT_TRUE(newest == 5 || newest == 6) << newest;
    const bool export_is_safe =
        Exported() == 5 || Exported() == 6 || SystemFiles().Exists(folder_ / "run/.hf.former");
    EXPECT_TRUE(export_is_safe) << Exported();
    for (const std::string folder : {"run", "run/checkpoints"}) {
      for (const std::string& name : Names(folder)) {
        EXPECT_FALSE(name.starts_with('.') && name.ends_with(".partial")) << name;
      }
    }
    ASSERT_TRUE(Save(6).ok()) << "with the disk in order again";
    EXPECT_EQ(Newest(), 6);
    EXPECT_EQ(Exported(), 6);
    for (const std::string& name : Names("run")) EXPECT_FALSE(name.starts_with('.')) << name;
  }
}

TEST_F(JobCheckpointsTest, AnExportThatACrashLeftBesideItsNameComesBack) {
  start_.mutable_spec()->mutable_checkpoint()->set_save_hf(true);
  ASSERT_TRUE(Save(5).ok());
  ASSERT_TRUE(SystemFiles().Rename(folder_ / "run/hf", folder_ / "run/.hf.former").ok());
  ASSERT_TRUE(StartFrom(5).ok());
  EXPECT_EQ(Exported(), 5);
  EXPECT_FALSE(SystemFiles().Exists(folder_ / "run/.hf.former"));
}

TEST_F(JobCheckpointsTest, TheExportBeforeStaysUntilTheNewOneHasItsName) {
  start_.mutable_spec()->mutable_checkpoint()->set_save_hf(true);
  const auto five = Save(5);
  ASSERT_TRUE(five.ok()) << five.error().message;
  EXPECT_EQ(five->hf_directory(), folder_ / "run/hf");
  EXPECT_EQ(Exported(), 5);
  RefusesExport files;
  EXPECT_THAT(Save(6, files).error().message, HasSubstr(".hf.partial: refused"));
  EXPECT_EQ(Exported(), 5);
  EXPECT_EQ(Newest(), 6) << "the checkpoint itself was committed before";
  EXPECT_THAT(Names("run"), ElementsAre("checkpoints", "hf"));
  ASSERT_TRUE(Save(6).ok());
  EXPECT_EQ(Exported(), 6);
  EXPECT_THAT(Names("run"), ElementsAre("checkpoints", "hf"));
}

// The actor thread goes on while the disk stands still, and hears of every end exactly once.
TEST_F(JobCheckpointsTest, ADiskThatStandsStillHoldsUpNobodyElse) {
  std::promise<void> gate;
  StillDisk disk(gate.get_future().share());
  Scheduler scheduler;
  ScheduleActor::SelfRef schedule;
  std::string ended;
  {
    ThreadStream stream(scheduler, "compute");
    std::vector<int64_t> committed;
    JobOptions options;
    options.say = [&](const proto::FromRank& news) {
      if (news.has_checkpoint()) committed.push_back(news.checkpoint().step());
    };
    options.on_end = [&](const JobEnd& end) {
      ended = end.end.ok() ? end.checkpoint : end.end.error().message;
      scheduler.Stop();
    };
    const auto job = scheduler.Spawn<JobActor>({.name = "job"}, options,
                                               JobCheckpoints(disk, start_, ranks_.plan()),
                                               std::nullopt, stream);
    const auto shards = [&](const proto::CheckpointStart& start) {
      return WriteShards({.checkpoint = start.directory()}, start.step());
    };
    schedule = scheduler.Spawn<ScheduleActor>(
        {.name = "schedule"}, ScheduleOptions{},
        std::make_unique<TrainProgram>(TrainOptions{.steps = 5,
                                                    .num_microbatches = 1,
                                                    .global_batch_size = 1,
                                                    .num_parameters = 1,
                                                    .learning_rate = [](int64_t) { return 0.5; }}),
        std::vector<RankRef>{scheduler.Spawn<OneRank>({.name = "rank 0"}, schedule, shards)},
        JobRef(job));
    ASSERT_TRUE(job.Send(BeginJob{.schedule = schedule, .progress = At(4)}).ok());
    int ticks = 0;
    const std::function<void()> tick = [&] {
      if (++ticks == 20) gate.set_value();
      scheduler.After(1, tick);
    };
    tick();
    scheduler.Run();
    EXPECT_THAT(ended, HasSubstr("step-00000005"));
    EXPECT_GE(ticks, 20) << "nothing ended before the disk moved, and the scheduler went on";
    EXPECT_THAT(committed, ElementsAre(5));
  }
  EXPECT_EQ(Newest(), 5);
}

// An earlier start of the job, stopped for a while, wakes up when another has taken its place.
TEST_F(JobCheckpointsTest, TwoStartsOfAJobNeverWriteOneFolder) {
  start_.mutable_spec()->mutable_checkpoint()->set_save_hf(true);
  proto::StartRank later = start_;
  start_.set_owner("job 4, epoch 1");
  later.set_owner("job 4, epoch 2");
  JobCheckpoints first(SystemFiles(), start_, ranks_.plan());
  ASSERT_TRUE(first.StartFrom(0).ok());
  ASSERT_TRUE(SaveWith(first, 4).ok());
  const auto folders = first.Open(5);
  ASSERT_TRUE(folders.ok());
  const auto shards = WriteShards(*folders, 5);

  JobCheckpoints second(SystemFiles(), later, ranks_.plan());
  ASSERT_TRUE(second.StartFrom(4).ok());
  EXPECT_EQ(*SystemFiles().ReadFile(folder_ / "run/checkpoints/owner", 100), "job 4, epoch 2\n");
  const auto others = second.Open(5);
  ASSERT_TRUE(others.ok());
  EXPECT_NE(others->checkpoint, folders->checkpoint) << "their shards never mix";
  EXPECT_NE(others->exported, folders->exported);

  const auto refused = first.Commit(At(5), shards);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kStale);
  EXPECT_THAT(refused.error().message,
              HasSubstr("another start of the job writes here now (job 4, epoch 2): this one "
                        "(job 4, epoch 1) ends"));
  EXPECT_EQ(Newest(), 4);
  EXPECT_FALSE(first.Open(6).ok()) << "nothing of the other's is removed";
  first.Abandon();
  ASSERT_TRUE(second.Commit(At(5), WriteShards(*others, 5)).ok());
  EXPECT_EQ(Newest(), 5);
  EXPECT_EQ(Exported(), 5);
  EXPECT_THAT(Names("run/checkpoints"),
              ElementsAre("latest", "owner", "step-00000004", "step-00000005"));
}

TEST_F(JobCheckpointsTest, ARunThatGoesOnFromItsLastStepExportsWithoutANewCheckpoint) {
  ASSERT_TRUE(Save(5).ok());
  start_.set_resume_from(folder_ / "run/checkpoints/step-00000005");
  const auto before = SystemFiles().ReadFile(folder_ / "run/checkpoints/latest", 100);
  JobCheckpoints checkpoints(SystemFiles(), start_, ranks_.plan());
  const auto nothing = checkpoints.Open(5);
  ASSERT_TRUE(nothing.ok());
  EXPECT_EQ(nothing->checkpoint + nothing->exported, "") << "there is nothing to write";
  start_.mutable_spec()->mutable_checkpoint()->set_save_hf(true);
  const auto folders = checkpoints.Open(5);
  ASSERT_TRUE(folders.ok());
  EXPECT_EQ(folders->checkpoint, "");
  const auto committed = checkpoints.Commit(At(5), WriteShards(*folders, 5));
  ASSERT_TRUE(committed.ok()) << committed.error().message;
  EXPECT_EQ(committed->directory(), start_.resume_from());
  EXPECT_EQ(Exported(), 5);
  EXPECT_EQ(Newest(), 5);
  ASSERT_TRUE(SaveWith(checkpoints, 6).ok()) << "a step after it is one like any other";
  EXPECT_EQ(Newest(), 6);
}

TEST_F(JobCheckpointsTest, TheManifestRemembersWhatTheRunIsMadeOf) {
  const RunContent content{
      .data = ContentIdentity{1000, 7}, .init_from = ContentIdentity{50, 8}, .data_changed = true};
  JobCheckpoints checkpoints(SystemFiles(), start_, ranks_.plan(), content);
  const auto committed = SaveWith(checkpoints, 5);
  ASSERT_TRUE(committed.ok()) << committed.error().message;
  const auto manifest = ReadManifest(SystemFiles(), committed->directory());
  ASSERT_TRUE(manifest.ok()) << manifest.error().message;
  EXPECT_EQ(manifest->data, content.data);
  EXPECT_EQ(manifest->init_from, content.init_from);
  EXPECT_TRUE(manifest->data_changed);
  EXPECT_EQ(manifest->optimizer_steps, std::nullopt);
  EXPECT_EQ(manifest->tokens, std::nullopt);
  EXPECT_EQ(manifest->files.size(), 4u) << "two of each rank";
  for (const auto& [name, tensor] : manifest->tensors)
    EXPECT_TRUE(tensor.pieces.front().digest) << name;
}

TEST_F(JobCheckpointsTest, TheManifestRemembersHowFarTrainingIs) {
  JobCheckpoints checkpoints(SystemFiles(), start_, ranks_.plan());
  const auto folders = checkpoints.Open(5);
  ASSERT_TRUE(folders.ok());
  const TrainingProgress progress{.step = 5, .skipped_steps = 2, .updates = 33, .tokens = 77};
  const auto committed = checkpoints.Commit(progress, WriteShards(*folders, 5));
  ASSERT_TRUE(committed.ok()) << committed.error().message;
  const auto manifest = ReadManifest(SystemFiles(), committed->directory());
  ASSERT_TRUE(manifest.ok()) << manifest.error().message;
  EXPECT_EQ(manifest->step, 5);
  EXPECT_EQ(manifest->next_sample, 5 * ranks_.plan().batch.global_batch_size);
  EXPECT_EQ(manifest->skipped_steps, 2);
  EXPECT_EQ(manifest->updates(), 33);
  EXPECT_EQ(manifest->tokens, 77);
}

// What one worker will be compared from stays until then.
TEST_F(JobCheckpointsTest, TheStartOfARunThatIsComparedIsNotPruned) {
  for (const int64_t step : {1, 2}) ASSERT_TRUE(Save(step).ok());
  start_.set_reference_start(folder_ / "run/checkpoints/step-00000002");
  for (const int64_t step : {3, 4, 5}) ASSERT_TRUE(Save(step).ok());
  EXPECT_THAT(Names("run/checkpoints"),
              ElementsAre("latest", "step-00000002", "step-00000004", "step-00000005"));
}

TEST_F(JobCheckpointsTest, AbandoningWithoutAnOpenStepRemovesNothing) {
  JobCheckpoints checkpoints(SystemFiles(), start_, ranks_.plan());
  ASSERT_TRUE(SaveWith(checkpoints, 5).ok());
  checkpoints.Abandon();
  EXPECT_EQ(Newest(), 5);
}

}  // namespace
}  // namespace troupe
