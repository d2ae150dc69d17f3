#include "actors/checkpoint_actor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/faulty_file_system.h"
#include "tests/support/rank_stages.h"
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

// What the schedule actor would hear.
class Listener : public Actor<Listener, proto::CheckpointDone> {
 public:
  explicit Listener(std::vector<proto::CheckpointDone>& heard) : heard_(heard) {}
  Status On(proto::CheckpointDone done) {
    heard_.push_back(std::move(done));
    return {};
  }

 private:
  std::vector<proto::CheckpointDone>& heard_;
};

class CheckpointActorTest : public ::testing::Test {
 protected:
  CheckpointActorTest() {
    ranks_.FillBySeed(1);
    scheduler_.SetOnDown([this](const Down& down) { downs_.push_back(down.error.message); });
  }
  // Rank 1 of 2 is asked once; `hf` empty: for no export. What it answered.
  proto::CheckpointDone Ask(FileSystem& files, const std::string& folder,
                            const std::string& hf = "", DType dtype = DType::kFloat32) {
    const auto listener = scheduler_.Spawn<Listener>({.name = "schedule"}, std::ref(heard_));
    std::vector<SavedStage> stages;
    for (const StageParameters* parameters : ranks_.parameters(1)) stages.push_back({parameters});
    const auto actor = scheduler_.Spawn<CheckpointActor>(
        {.name = "checkpoint"},
        CheckpointOptions{.rank = Rank(1),
                          .num_ranks = 2,
                          .place = PipelineRank(1),
                          .num_places = 2,
                          .dtype = dtype},
        std::ref(files), stages, std::ref(ledger_), std::ref(stream_), std::ref(stream_),
        std::ref(readers_), Ref<proto::CheckpointDone>(listener));
    proto::CheckpointStart start;
    start.set_step(40);
    start.set_directory(folder);
    start.set_hf_directory(hf);
    CHECK(actor.Send(start).ok());
    heard_.clear();
    scheduler_.RunUntilIdle();
    CHECK(heard_.size() == 1, "{} answers", heard_.size());
    CHECK(readers_.Ended() == nullptr, "it has read");
    CHECK(actor.alive(), "the actor has ended");
    scheduler_.End(actor);
    scheduler_.End(listener);
    return heard_.front();
  }

  const TemporaryFolder folder_{};
  RankStages ranks_{SmallSpec({.pp = 2})};
  MemoryLedger ledger_{};
  Scheduler scheduler_{};
  InlineStream stream_{scheduler_};
  StateReaders readers_{};
  std::vector<proto::CheckpointDone> heard_{};
  std::vector<std::string> downs_{};
};

TEST_F(CheckpointActorTest, WritesItsRanksShareAndSaysWhatIsInIt) {
  const auto done = Ask(SystemFiles(), folder_.path());
  EXPECT_EQ(done.error(), "");
  EXPECT_EQ(done.step(), 40);
  EXPECT_EQ(done.rank(), 1);
  int owned = 0;
  for (const StageParameters* stage : ranks_.parameters(1)) {
    for (const StageParameter& p : stage->all()) owned += p.owned ? 1 : 0;
  }
  EXPECT_EQ(done.tensors_size(), 3 * owned) << "a master and two moments each";
  EXPECT_EQ(done.tensors(0).file(), "tensors-00002-of-00002.safetensors");
  EXPECT_THAT(
      *SystemFiles().List(folder_.path()),
      ElementsAre("optim-00002-of-00002.safetensors", "tensors-00002-of-00002.safetensors"));
}

TEST_F(CheckpointActorTest, ExportsWhereItIsAskedTo) {
  ASSERT_TRUE(SystemFiles().CreateDirectories(folder_ / "hf").ok());
  EXPECT_EQ(Ask(SystemFiles(), folder_.path(), folder_ / "hf").error(), "");
  EXPECT_THAT(*SystemFiles().List(folder_ / "hf"), ElementsAre("model-00002-of-00002.safetensors"));
  const int64_t wide = *SystemFiles().FileBytes(folder_ / "hf/model-00002-of-00002.safetensors");
  EXPECT_EQ(Ask(SystemFiles(), folder_.path(), folder_ / "hf", DType::kBFloat16).error(), "");
  EXPECT_LT(*SystemFiles().FileBytes(folder_ / "hf/model-00002-of-00002.safetensors"), wide)
      << "a bfloat16 job exports bfloat16";
}

// I1: whatever call fails, the answer says so, and the actor lives to be asked again.
TEST_F(CheckpointActorTest, NoFaultPassesForADurableShard) {
  ASSERT_TRUE(SystemFiles().CreateDirectories(folder_ / "hf").ok());
  FaultyFileSystem sound;
  ASSERT_EQ(Ask(sound, folder_.path(), folder_ / "hf").error(), "");
  ASSERT_EQ(sound.num_syncs(), 3) << "masters, moments, export";
  std::vector<FileFaults> faults;
  for (int64_t n = 1; n <= sound.num_syncs(); ++n) faults.push_back({.fail_sync = n});
  for (int64_t n = 1; n <= sound.num_writes(); ++n) faults.push_back({.fail_write = n});
  for (const FileFaults& fault : faults) {
    FaultyFileSystem files(fault);
    const auto done = Ask(files, folder_.path(), folder_ / "hf");
    EXPECT_THAT(done.error(), HasSubstr("injected fault"));
    EXPECT_EQ(static_cast<ErrorCode>(done.error_code()), ErrorCode::kIo);
    EXPECT_EQ(done.rank(), 1);
    EXPECT_EQ(done.step(), 40);
  }
  FaultyFileSystem full({.full_after_bytes = sound.num_bytes_written() - 1});
  const auto done = Ask(full, folder_.path(), folder_ / "hf");
  EXPECT_EQ(static_cast<ErrorCode>(done.error_code()), ErrorCode::kOutOfSpace);
  EXPECT_TRUE(downs_.empty()) << downs_.front();
}

TEST_F(CheckpointActorTest, AFolderThatIsNotThereIsNamed) {
  const auto done = Ask(SystemFiles(), folder_ / "gone");
  EXPECT_THAT(done.error(), HasSubstr(folder_ / "gone/tensors-00002-of-00002.safetensors"));
  EXPECT_EQ(static_cast<ErrorCode>(done.error_code()), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace troupe
