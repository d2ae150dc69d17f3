#include "runtime/format/checkpoint_manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "runtime/format/checkpoint_owner.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using testing::FaultyFileSystem;
using testing::FileFaults;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

CheckpointManifest At(int64_t step) {
  return {.step = step,
          .next_sample = step * 32,
          .seed = ~uint64_t{0},
          .gradient_groups = 4,
          .job_json = "{\"name\":\"a\\n\"}",
          .tensors = {{"model.norm.weight",
                       WholeTensor("tensors.safetensors", TensorDtype::kF32, {8})}},
          .optimizer_tensors = {{"model.norm.weight.exp_avg",
                                 WholeTensor("optim.safetensors", TensorDtype::kF32, {8})}}};
}

Result<std::string> Save(FileSystem& files, const std::string& dir, int64_t step) {
  ASSIGN_OR_RETURN(const std::string partial, BeginCheckpoint(files, dir, step));
  ASSIGN_OR_RETURN(auto writer,
                   SafetensorsWriter::Create(files, JoinPath(partial, "tensors.safetensors"),
                                             {{.name = "model.norm.weight", .shape = {8}}}));
  RETURN_IF_ERROR(writer.Append(BytesOf(std::string(32, 'x'))));
  RETURN_IF_ERROR(writer.Finish());
  return CommitCheckpoint(files, dir, At(step));
}

int64_t NewestStep(const std::string& dir) {
  const auto found = FindNewestCheckpoint(SystemFiles(), dir);
  CHECK(found.ok(), "{}", found.error().message);
  return *found ? (*found)->manifest.step : -1;
}

TEST(ManifestTest, ReadsBackWhatWasWritten) {
  const auto again = ParseManifestJson(ManifestJson(At(50)), "/m");
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(*again, At(50));
  EXPECT_EQ(again->total_bytes(), 64);
}

TEST(ManifestTest, RefusesWhatDoesNotAgree) {
  const auto problem_of = [](const std::function<void(nlohmann::json&)>& change) {
    auto json = nlohmann::json::parse(ManifestJson(At(50)));
    change(json);
    const auto parsed = ParseManifestJson(json.dump(), "/m");
    return parsed.ok() ? std::string("none") : parsed.error().message;
  };
  using nlohmann::json;
  EXPECT_EQ(problem_of([](json&) {}), "none");
  for (const char* key : {"format_version", "step", "next_sample", "seed", "gradient_groups", "job",
                          "tensors", "optimizer_tensors", "total_bytes"}) {
    EXPECT_THAT(problem_of([&](json& j) { j.erase(key); }), HasSubstr(key));
    EXPECT_THAT(problem_of([&](json& j) { j[key] = json::array(); }), HasSubstr(key));
  }
  EXPECT_THAT(problem_of([](json& j) { j["format_version"] = 2; }), HasSubstr("version 2"));
  EXPECT_THAT(problem_of([](json& j) { j["total_bytes"] = 63; }), HasSubstr("total_bytes"));
  EXPECT_THAT(problem_of([](json& j) { j["step"] = -1; }), HasSubstr("step"));
  EXPECT_THAT(problem_of([](json& j) { j["seed"] = "12x"; }), HasSubstr("seed"));
  EXPECT_THAT(problem_of([](json& j) { j["gradient_groups"] = 0; }), HasSubstr("gradient_groups"));
  const auto with = [&](const char* key, const json& value) {
    return problem_of([&](json& j) { j["tensors"]["model.norm.weight"][key] = value; });
  };
  EXPECT_THAT(with("file", "../x.safetensors"), HasSubstr("file must be the name"));
  EXPECT_THAT(with("file", "x.json"), HasSubstr("file must be the name"));
  EXPECT_THAT(with("dtype", "F31"), HasSubstr("dtype"));
  EXPECT_THAT(with("shape", json::array({-8})), HasSubstr("shape"));
  const int64_t huge = int64_t{1} << 62;
  EXPECT_THAT(with("shape", json::array({huge, huge})), HasSubstr("shape must be of"));
  EXPECT_THAT(with("pieces", json::array()), HasSubstr("it has no pieces"));
}

// Whatever else changes in a manifest shows, in whatever words it is written.
TEST(ManifestTest, KnowsItsOwnContent) {
  CheckpointManifest manifest = At(50);
  manifest.tensors["model.norm.weight"].pieces = {{"a.safetensors", 0, 5, 0x1234},
                                                  {"b.safetensors", 5, 3, 0x5678}};
  manifest.files = {{"tensors.safetensors", {100, 0x5678}}};
  manifest.optimizer_steps = 80;
  manifest.skipped_steps = 3;
  manifest.tokens = 0;
  manifest.data = ContentIdentity{1000, 7};
  manifest.init_from = ContentIdentity{2000, 8};
  manifest.data_changed = true;
  const auto again = ParseManifestJson(ManifestJson(manifest), "/m");
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(*again, manifest);
  EXPECT_EQ(again->updates(), 80);
  EXPECT_TRUE(again->took_over_updates());
  EXPECT_EQ(At(50).updates(), 50);
  EXPECT_FALSE(At(50).took_over_updates());
  const auto written = nlohmann::json::parse(ManifestJson(manifest));
  EXPECT_TRUE(ParseManifestJson(written.dump(3), "/m").ok()) << "spaces and order do not count";
  const auto refused = [&](const std::function<void(nlohmann::json&)>& change) {
    auto json = written;
    change(json);
    const auto parsed = ParseManifestJson(json.dump(), "/m");
    return parsed.ok() ? std::string("none") : parsed.error().message;
  };
  using nlohmann::json;
  EXPECT_THAT(refused([](json& j) { j["step"] = 51; }), HasSubstr("/m: it is damaged"));
  EXPECT_THAT(refused([](json& j) { j["job"] = "{}"; }), HasSubstr("damaged"));
  EXPECT_THAT(
      refused([](json& j) { j["tensors"]["model.norm.weight"]["pieces"][1].erase("xxh3"); }),
      HasSubstr("damaged"));
  EXPECT_THAT(refused([](json& j) { j["data"]["bytes"] = 999; }), HasSubstr("damaged"));
  EXPECT_THAT(refused([](json& j) { j.erase("xxh3"); }), HasSubstr("damaged"));
  EXPECT_THAT(refused([](json& j) { j["xxh3"] = "12"; }), HasSubstr("xxh3"));
  EXPECT_THAT(refused([](json& j) { j["files"]["../x.safetensors"] = j["data"]; }),
              HasSubstr("files"));
  EXPECT_THAT(refused([](json& j) { j["optimizer_steps"] = -1; }), HasSubstr("optimizer_steps"));
  EXPECT_THAT(refused([](json& j) { j["skipped_steps"] = 51; }), HasSubstr("skipped_steps"));
  EXPECT_THAT(refused([](json& j) { j["tokens"] = -1; }), HasSubstr("tokens"));
}

TEST(OwnerTest, WhoeverTookTheFolderLastOwnsIt) {
  const TemporaryFolder folder;
  const std::string dir = folder / "c";
  EXPECT_TRUE(CheckOwner(SystemFiles(), dir, "").ok()) << "no owner is never refused";
  ASSERT_TRUE(TakeOwnership(SystemFiles(), dir, "").ok());
  EXPECT_FALSE(SystemFiles().Exists(dir));
  ASSERT_TRUE(TakeOwnership(SystemFiles(), dir, "job 1, epoch 1").ok());
  EXPECT_TRUE(CheckOwner(SystemFiles(), dir, "job 1, epoch 1").ok());
  ASSERT_TRUE(TakeOwnership(SystemFiles(), dir, "job 1, epoch 2").ok());
  const Status refused = CheckOwner(SystemFiles(), dir, "job 1, epoch 1");
  EXPECT_EQ(refused.error().code, ErrorCode::kStale);
  EXPECT_THAT(refused.error().message, HasSubstr("(job 1, epoch 2)"));
  ASSERT_TRUE(SystemFiles().RemoveAll(dir).ok());
  EXPECT_TRUE(CheckOwner(SystemFiles(), dir, "job 1, epoch 2").ok()) << "nobody's: taken again";
  EXPECT_FALSE(CheckOwner(SystemFiles(), dir, "job 1, epoch 1").ok());
}

TEST(CheckpointFolderTest, NamesAreExact) {
  EXPECT_EQ(CheckpointFolderName(50), "step-00000050");
  EXPECT_EQ(PartialCheckpointFolderName(50), ".step-00000050.partial");
  EXPECT_NE(PartialCheckpointFolderName(50, "a"), PartialCheckpointFolderName(50, "b"));
  EXPECT_EQ(ParseCheckpointFolderName("step-00000050"), 50);
  EXPECT_EQ(ParseCheckpointFolderName("step-123456789"), 123456789);
  for (const char* name : {"step-50", ".step-00000050.partial", "step-0000005x", "step--0000050",
                           "step-000000050", "latest", "step-", "step-99999999999999999999"}) {
    EXPECT_FALSE(ParseCheckpointFolderName(name)) << name;
  }
}

TEST(FindNewestCheckpointTest, CountsOnlyWhatWasCommitted) {
  const TemporaryFolder folder;
  EXPECT_EQ(NewestStep(folder / "absent"), -1);
  EXPECT_EQ(NewestStep(folder.path()), -1);
  ASSERT_TRUE(Save(SystemFiles(), folder.path(), 9).ok());
  ASSERT_TRUE(Save(SystemFiles(), folder.path(), 10).ok());
  EXPECT_EQ(NewestStep(folder.path()), 10);
  EXPECT_EQ(*SystemFiles().ReadFile(folder / "latest", 100), "step-00000010\n");
  // A whole manifest in a partial folder, one that does not parse, one of another step.
  ASSERT_TRUE(BeginCheckpoint(SystemFiles(), folder.path(), 11).ok());
  folder.Write(".step-00000011.partial/manifest.json", ManifestJson(At(11)));
  ASSERT_TRUE(SystemFiles().CreateDirectories(folder / "step-00000012").ok());
  folder.Write("step-00000012/manifest.json", ManifestJson(At(12)).substr(0, 100));
  ASSERT_TRUE(SystemFiles().CreateDirectories(folder / "step-00000013").ok());
  folder.Write("step-00000013/manifest.json", ManifestJson(At(14)));
  EXPECT_EQ(NewestStep(folder.path()), 10);
  std::vector<std::string> damaged;
  ASSERT_TRUE(FindNewestCheckpoint(SystemFiles(), folder.path(), &damaged).ok());
  EXPECT_THAT(damaged, ElementsAre(HasSubstr("step-00000013: its manifest is of step 14"),
                                   HasSubstr("step-00000012/manifest.json")));
}

TEST(CommitCheckpointTest, SyncsEverythingBeforeTheRename) {
  const TemporaryFolder folder;
  FaultyFileSystem files;
  const std::string dir = folder / "c";
  ASSERT_TRUE(Save(files, dir, 5).ok());
  EXPECT_THAT(
      files.calls(),
      ElementsAre(
          "write tensors.safetensors", "write tensors.safetensors", "sync tensors.safetensors",
          "write manifest.json.partial", "sync manifest.json.partial",
          "rename manifest.json.partial manifest.json", "sync-folder .step-00000005.partial",
          "rename .step-00000005.partial step-00000005", "sync-folder c", "write latest.partial",
          "sync latest.partial", "rename latest.partial latest", "sync-folder c"));
  EXPECT_THAT(*SystemFiles().List(dir + "/step-00000005"),
              ElementsAre("manifest.json", "tensors.safetensors"));
}

// Whatever call fails, and wherever the disk fills up, the checkpoint before stays the newest or
// the new one is whole.
TEST(CommitCheckpointTest, NoFaultLosesTheCheckpointBefore) {
  std::vector<FileFaults> faults;
  for (int64_t n = 1; n <= 6; ++n) {
    faults.push_back({.fail_write = n});
    faults.push_back({.fail_sync = n});
    faults.push_back({.fail_rename = n});
  }
  for (int64_t bytes = 0; bytes < 900; bytes += 13) faults.push_back({.full_after_bytes = bytes});
  int num_failed = 0;
  for (const FileFaults& fault : faults) {
    const TemporaryFolder folder;
    ASSERT_TRUE(Save(SystemFiles(), folder.path(), 5).ok());
    FaultyFileSystem files(fault);
    const auto saved = Save(files, folder.path(), 6);
    num_failed += saved.ok() ? 0 : 1;
    const int64_t newest = NewestStep(folder.path());
    EXPECT_TRUE(newest == 5 || newest == 6);
    if (saved.ok()) {
      EXPECT_EQ(newest, 6);
    } else if (fault.full_after_bytes != FileFaults::kNever) {
      EXPECT_EQ(saved.error().code, ErrorCode::kOutOfSpace) << saved.error().message;
    }
    // The next try, with the disk in order again, succeeds.
    ASSERT_TRUE(Save(SystemFiles(), folder.path(), 6).ok());
    EXPECT_EQ(NewestStep(folder.path()), 6);
  }
  EXPECT_GT(num_failed, 20);
}

TEST(PruneCheckpointsTest, KeepsTheNewest) {
  const TemporaryFolder folder;
  for (const int64_t step : {1, 2, 3}) {
    ASSERT_TRUE(Save(SystemFiles(), folder.path(), step).ok());
  }
  ASSERT_TRUE(BeginCheckpoint(SystemFiles(), folder.path(), 4).ok());
  ASSERT_TRUE(PruneCheckpoints(SystemFiles(), folder.path(), 0).ok());
  EXPECT_THAT(*SystemFiles().List(folder.path()),
              ElementsAre("latest", "step-00000001", "step-00000002", "step-00000003"));
  ASSERT_TRUE(PruneCheckpoints(SystemFiles(), folder.path(), 2).ok());
  EXPECT_THAT(*SystemFiles().List(folder.path()),
              ElementsAre("latest", "step-00000002", "step-00000003"));
  EXPECT_TRUE(PruneCheckpoints(SystemFiles(), folder / "absent", 2).ok());
}

TEST(SetAsideCheckpointsTest, WhatARunLeavesBehindIsNeitherFoundNorPruned) {
  const TemporaryFolder folder;
  EXPECT_EQ(*SetAsideCheckpointsAfter(SystemFiles(), folder / "absent", 0), "");
  for (const int64_t step : {1, 2, 3}) {
    ASSERT_TRUE(Save(SystemFiles(), folder.path(), step).ok());
  }
  EXPECT_EQ(*SetAsideCheckpointsAfter(SystemFiles(), folder.path(), 3), "");
  EXPECT_EQ(*SetAsideCheckpointsAfter(SystemFiles(), folder.path(), 1), folder / "abandoned-1");
  EXPECT_THAT(*SystemFiles().List(folder.path()),
              ElementsAre("abandoned-1", "latest", "step-00000001"));
  EXPECT_EQ(*SystemFiles().ReadFile(folder / "latest", 100), "step-00000001\n");
  EXPECT_THAT(*SystemFiles().List(folder / "abandoned-1"),
              ElementsAre("step-00000002", "step-00000003"));
  ASSERT_TRUE(Save(SystemFiles(), folder.path(), 2).ok());
  ASSERT_TRUE(PruneCheckpoints(SystemFiles(), folder.path(), 1).ok());
  EXPECT_EQ((*FindNewestCheckpoint(SystemFiles(), folder.path()))->manifest.step, 2);
  EXPECT_EQ((*FindNewestCheckpoint(SystemFiles(), folder / "abandoned-1"))->manifest.step, 3);
  // Of a fresh run nothing stays, and the second time has a folder of its own.
  EXPECT_EQ(*SetAsideCheckpointsAfter(SystemFiles(), folder.path(), 0), folder / "abandoned-2");
  EXPECT_THAT(*SystemFiles().List(folder.path()), ElementsAre("abandoned-1", "abandoned-2"));
}

}  // namespace
}  // namespace troupe
