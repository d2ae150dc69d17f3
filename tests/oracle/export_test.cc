// A folder as checkpoint.save_hf exports it loads in Hugging Face's transformers without a warning,
// and computes what the weights that the run started from say. SKIPs where python3 has no
// transformers; `TROUPE_PYTHON` names other interpreters to try, separated by colons (one
// environment for each version).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "actors/checkpoint_store.h"
#include "actors/job_checkpoints.h"
#include "coordinator/job/hf_model.h"
#include "runtime/format/hf_config.h"
#include "runtime/format/safetensors.h"
#include "tests/support/rank_stages.h"
#include "tests/support/save_shard.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using testing::TemporaryFolder;

std::vector<std::string> Pythons() {
  const char* given = std::getenv("TROUPE_PYTHON");
  std::istringstream list(given != nullptr ? given : "python3");
  std::vector<std::string> found;
  for (std::string python; std::getline(list, python, ':');) {
    const std::string probe = "'" + python + "' -c 'import torch, transformers' 2>/dev/null";
    if (std::system(probe.c_str()) == 0) found.push_back(python);
  }
  return found;
}

std::string Oracle(const std::string& name) {
  return std::string(TROUPE_SOURCE_DIR) + "/tests/oracle/data/" + name;
}

// A job of `pp` ranks starts from the oracle's folder `name`, to which token ids were added, and
// saves: what its run directory `run` then has in hf/.
void Export(const TemporaryFolder& folder, const std::string& name, int pp,
            const std::string& run) {
  auto& files = SystemFiles();
  ASSERT_TRUE(files.CreateDirectories(folder / name).ok());
  auto config = nlohmann::json::parse(*files.ReadFile(Oracle(name) + "/config.json", 1 << 20));
  config["bos_token_id"] = 1;
  config["eos_token_id"] = {2, 3};
  folder.Write(name + "/config.json", config.dump());
  folder.Write(name + "/model.safetensors",
               *files.ReadFile(Oracle(name) + "/model.safetensors", 1 << 20));

  proto::JobSpec spec = testing::SmallSpec({.pp = pp});
  spec.clear_model();
  spec.mutable_model()->set_init_from(folder / name);
  spec.mutable_checkpoint()->set_keep(1);
  spec.mutable_checkpoint()->set_save_hf(true);
  Provenance provenance;
  ASSERT_TRUE(MergeHfConfig(files, *spec.mutable_model(), provenance).ok());
  testing::RankStages ranks(spec);
  const proto::StartRank start = ranks.Start(folder / run);
  const auto filled = ranks.Fill(start);
  ASSERT_TRUE(filled.ok()) << filled.error().message;

  JobCheckpoints checkpoints(files, start, ranks.plan());
  const auto open = checkpoints.Open(1);
  ASSERT_TRUE(open.ok()) << open.error().message;
  std::vector<proto::CheckpointDone> shards;
  for (int rank = 0; rank < pp; ++rank) {
    proto::CheckpointDone& shard = shards.emplace_back();
    shard.set_rank(rank);
    const auto stages = ranks.parameters(rank);
    const Status written = testing::SaveShard(files, open->checkpoint, rank, pp, stages, shard);
    ASSERT_TRUE(written.ok()) << written.error().message;
    ASSERT_TRUE(
        WriteHfShard(files, open->exported, PipelineRank(rank), pp, DType::kFloat32, stages).ok());
  }
  const auto committed = checkpoints.Commit({.step = 1, .updates = 1}, shards);
  ASSERT_TRUE(committed.ok()) << committed.error().message;
}

std::vector<std::byte> BytesOf(const StoredTensor& tensor) {
  std::vector<std::byte> bytes(static_cast<size_t>(tensor.num_bytes()));
  CHECK(tensor.Read(0, bytes).ok());
  return bytes;
}

class ExportTest : public ::testing::Test {
 protected:
  ExportTest() {
    Export(folder_, "untied", 1, "run-untied");
    Export(folder_, "tied", 2, "run-tied");
  }
  const TemporaryFolder folder_{};
};

TEST_F(ExportTest, HoldsWhatTheRunStartedFrom) {
  EXPECT_TRUE(SystemFiles().Exists(folder_ / "run-tied/hf/model.safetensors.index.json"));
  for (const std::string name : {"untied", "tied"}) {
    const std::string exported = folder_ / ("run-" + name + "/hf");
    const auto before = *SafetensorsFolder::Open(SystemFiles(), Oracle(name));
    const auto after = SafetensorsFolder::Open(SystemFiles(), exported);
    ASSERT_TRUE(after.ok()) << after.error().message;
    EXPECT_EQ(after->Names(), before.Names());
    for (const std::string& tensor : before.Names()) {
      EXPECT_EQ(BytesOf(*after->Find(tensor)), BytesOf(*before.Find(tensor))) << tensor;
    }
    const auto was = *ReadHfConfig(SystemFiles(), folder_ / (name + "/config.json"));
    const auto is = ReadHfConfig(SystemFiles(), exported + "/config.json");
    ASSERT_TRUE(is.ok()) << is.error().message;
    EXPECT_EQ(HfConfigJson(*is, "float32"), HfConfigJson(was, "float32"));
  }
}

TEST_F(ExportTest, LoadsInTransformersWithoutAWarning) {
  const auto pythons = Pythons();
  if (pythons.empty()) GTEST_SKIP() << "python3 has no torch and transformers here";
  for (const std::string& python : pythons) {
    for (const std::string name : {"untied", "tied"}) {
      const std::string command = "'" + python + "' '" + TROUPE_SOURCE_DIR +
                                  "/tests/oracle/load_in_transformers.py' '" + folder_.path() +
                                  "/run-" + name + "/hf' '" + Oracle(name) + "'";
      EXPECT_EQ(std::system(command.c_str()), 0) << command;
    }
  }
}

}  // namespace
}  // namespace troupe
