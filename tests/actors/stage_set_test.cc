#include "actors/stage_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "actors/checkpoint_store.h"
#include "tests/support/rank_stages.h"
#include "tests/support/save_shard.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::RankStages;
using testing::SmallLayout;
using testing::SmallSpec;
using testing::TemporaryFolder;

// A Hugging Face folder of these stages, as one file.
void Export(const RankStages& one, const std::string& folder) {
  ASSERT_EQ(one.num_ranks(), 1);
  ASSERT_TRUE(SystemFiles().CreateDirectories(folder).ok());
  const auto written =
      WriteHfShard(SystemFiles(), folder, PipelineRank(0), 1, DType::kFloat32, one.parameters(0));
  ASSERT_TRUE(written.ok()) << written.error().message;
}

// The committed checkpoint of one worker's stages, by hand: no code of JobCheckpoints.
std::string Commit(const RankStages& one, const std::string& folder, int64_t step) {
  const std::string partial = *BeginCheckpoint(SystemFiles(), folder, step);
  proto::CheckpointDone shard;
  CHECK(testing::SaveShard(SystemFiles(), partial, 0, 1, one.parameters(0), shard).ok());
  CheckpointManifest manifest{.step = step};
  CHECK(AddToManifest(one.plan().table, shard, manifest).ok());
  return *CommitCheckpoint(SystemFiles(), folder, manifest);
}

TEST(StageSetTest, EveryParameterHasOneOwner) {
  for (const SmallLayout& layout :
       {SmallLayout{}, SmallLayout{.pp = 3}, SmallLayout{.pp = 2, .tied = true},
        SmallLayout{.pp = 2, .schedule = "dualpipe"}, SmallLayout{.pp = 2, .schedule = "zb-v"}}) {
    const RankStages ranks(SmallSpec(layout));
    std::map<std::string, int> owners;
    for (const auto& [rank, p] : ranks.All()) owners[p->spec->name] += p->owned ? 1 : 0;
    EXPECT_EQ(owners.size(), static_cast<size_t>(ranks.plan().table.size()));
    for (const auto& [name, count] : owners) EXPECT_EQ(count, 1) << layout.schedule << " " << name;
  }
}

TEST(StageSetTest, ARankHasTheStagesThatThePlanGivesIt) {
  RankStages ranks(SmallSpec({.pp = 2, .schedule = "zb-v"}));
  const auto stages_of = [&ranks](int rank) {
    std::vector<int> stages;
    for (const auto& [stage, model] : ranks.stages(rank)) stages.push_back(stage.value);
    return stages;
  };
  EXPECT_THAT(stages_of(0), ElementsAre(0, 3));
  EXPECT_THAT(stages_of(1), ElementsAre(1, 2));
}

TEST(StageSetTest, FirstWeightsHangOnTheSeedAloneNotOnTheLayout) {
  RankStages one(SmallSpec());
  EXPECT_EQ(*one.Fill(one.Start()), 0);
  const auto wanted = one.Bytes();
  for (const SmallLayout& layout :
       {SmallLayout{.pp = 4}, SmallLayout{.pp = 2, .schedule = "dualpipe"}}) {
    RankStages many(SmallSpec(layout));
    EXPECT_EQ(*many.Fill(many.Start()), 0);
    EXPECT_EQ(many.Bytes(), wanted);
  }
  auto other = SmallSpec();
  other.mutable_train()->set_seed(6);
  RankStages another(other);
  ASSERT_TRUE(another.Fill(another.Start()).ok());
  EXPECT_NE(another.Bytes(), wanted);
}

TEST(StageSetTest, AFolderGivesWeightsAndACheckpointTheOptimizerTooAndTheStep) {
  const TemporaryFolder folder;
  RankStages trained(SmallSpec());
  trained.FillBySeed(9);
  Export(trained, folder / "hf");
  const std::string checkpoint = Commit(trained, folder / "checkpoints", 7);

  RankStages from_folder(SmallSpec({.pp = 3}));
  proto::StartRank start = from_folder.Start();
  start.mutable_spec()->mutable_model()->set_init_from(folder / "hf");
  EXPECT_EQ(*from_folder.Fill(start), 0) << "a folder is no step of this run";
  EXPECT_EQ(from_folder.WeightBytes(), trained.WeightBytes());
  EXPECT_NE(from_folder.Bytes(), trained.Bytes()) << "the moments are zero";

  // The run that goes on has trained away from the folder that it once started from.
  start.mutable_spec()->mutable_model()->set_init_from(folder / "gone");
  start.set_resume_from(checkpoint);
  RankStages resumed(SmallSpec({.pp = 2}));
  EXPECT_EQ(*resumed.Fill(start), 7);
  EXPECT_EQ(resumed.Bytes(), trained.Bytes());
}

TEST(StageSetTest, WhatCannotBeReadIsOneSentenceWithItsPath) {
  const TemporaryFolder folder;
  RankStages one(SmallSpec());
  proto::StartRank start = one.Start();
  start.mutable_spec()->mutable_model()->set_init_from(folder / "nowhere");
  EXPECT_THAT(one.Fill(start).error().message, HasSubstr(folder / "nowhere"));
  start.set_resume_from(folder / "gone");
  const auto gone = one.Fill(start);
  EXPECT_EQ(gone.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(gone.error().message, HasSubstr(folder / "gone/manifest.json"));
}

TEST(StageSetTest, TensorsBetweenStagesHaveTheJobsDtype) {
  auto spec = SmallSpec({.pp = 2});
  const JobPlan plan = *MakeJobPlan(spec);
  EXPECT_EQ(DTypeOfJob(spec), DType::kFloat32);
  const TensorDescriptor wide = BoundaryTensor(spec, plan);
  EXPECT_EQ(wide.shape[0], 12) << "2 sequences of 6 tokens";
  EXPECT_EQ(wide.shape[1], 16);
  EXPECT_EQ(wide.num_bytes, 12u * 16 * 4);
  spec.mutable_train()->set_dtype("bfloat16");
  EXPECT_EQ(DTypeOfJob(spec), DType::kBFloat16);
  const TensorDescriptor narrow = BoundaryTensor(spec, plan);
  EXPECT_EQ(narrow.dtype, static_cast<uint8_t>(DType::kBFloat16));
  EXPECT_EQ(narrow.num_bytes, 12u * 16 * 2);
}

TEST(StageSetTest, MeasuredCostsAreTimes) {
  const auto costs = MeasureCosts(SmallSpec(), SystemClock());
  ASSERT_TRUE(costs.ok()) << costs.error().message;
  const proto::ModelCosts sent = ToProto(*costs);
  EXPECT_GT(sent.layers(0).forward_ns(), 0);
  EXPECT_GT(sent.layers(0).backward_ns(), 0);
  auto unknown = SmallSpec();
  unknown.mutable_train()->set_dtype("float16");
  EXPECT_THAT(MeasureCosts(unknown, SystemClock()).error().message, HasSubstr("float16"));
}

}  // namespace
}  // namespace troupe
