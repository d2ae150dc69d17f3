#include "actors/checkpoint_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include <nlohmann/json.hpp>

#include "runtime/format/hf_config.h"
#include "runtime/format/safetensors.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/rank_stages.h"
#include "tests/support/save_shard.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using testing::FaultyFileSystem;
using ::testing::HasSubstr;
using testing::RankStages;
using testing::SmallLayout;
using testing::SmallSpec;
using testing::TemporaryFolder;

constexpr const char* kNorm = "model.norm.weight";

// Every rank's shard and a manifest of all of them in `folder`.
Status Save(FileSystem& files, const RankStages& ranks, const std::string& folder) {
  RETURN_IF_ERROR(files.CreateDirectories(folder));
  CheckpointManifest manifest{.step = 3};
  for (int rank = 0; rank < ranks.num_ranks(); ++rank) {
    proto::CheckpointDone shard;
    shard.set_rank(rank);
    RETURN_IF_ERROR(
        testing::SaveShard(files, folder, rank, ranks.num_ranks(), ranks.parameters(rank), shard));
    RETURN_IF_ERROR(AddToManifest(ranks.plan().table, shard, manifest));
  }
  RETURN_IF_ERROR(CheckWhole(ranks.plan().table, manifest));
  return WriteFileAtomically(files, JoinPath(folder, "manifest.json"), ManifestJson(manifest));
}

Status Load(RankStages& ranks, const std::string& folder) {
  ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadManifest(SystemFiles(), folder));
  for (int rank = 0; rank < ranks.num_ranks(); ++rank) {
    for (auto& [stage, model] : ranks.stages(rank)) {
      RETURN_IF_ERROR(ReadCheckpoint(SystemFiles(), folder, manifest, model->parameters()));
    }
  }
  return {};
}

// What a reader of the folder says, or "read".
std::string Said(const std::string& folder, const SmallLayout& layout = {}) {
  RankStages ranks(SmallSpec(layout));
  const Status read = Load(ranks, folder);
  return read.ok() ? "read" : read.error().message;
}

class CheckpointStoreTest : public ::testing::Test {
 protected:
  CheckpointStoreTest() { two_.FillBySeed(1); }
  // A checkpoint of two ranks, to be harmed.
  std::string Saved() const {
    const Status saved = Save(SystemFiles(), two_, folder_ / "c");
    CHECK(saved.ok(), "{}", saved.error().message);
    return folder_ / "c";
  }
  // As an earlier build would have written it: without digests, which would tell of any change.
  void EditManifest(const std::function<void(nlohmann::json&)>& change) const {
    auto json =
        nlohmann::json::parse(*SystemFiles().ReadFile(folder_ / "c/manifest.json", 1 << 20));
    json.erase("xxh3");
    json.erase("files");
    change(json);
    folder_.Write("c/manifest.json", json.dump());
  }

  const TemporaryFolder folder_{};
  RankStages two_{SmallSpec({.pp = 2})};
};

TEST(ShardFileNameTest, CountsFromOne) {
  EXPECT_EQ(ShardFileName("tensors", 1, 4), "tensors-00002-of-00004.safetensors");
}

TEST_F(CheckpointStoreTest, AnyLayoutReadsWhatAnyOtherWrote) {
  for (const bool tied : {false, true}) {
    const SmallLayout layouts[] = {{.pp = 1, .tied = tied},
                                   {.pp = 3, .tied = tied},
                                   {.pp = 2, .schedule = "dualpipe", .tied = tied},
                                   {.pp = 2, .schedule = "zb-v", .tied = tied},
                                   {.pp = 2, .dp = 2, .tied = tied, .cp = 3}};
    for (const SmallLayout& from : layouts) {
      RankStages writer(SmallSpec(from));
      writer.FillBySeed(1);
      const std::string folder =
          folder_ / fmt::format("{}-{}-{}-{}", from.schedule, from.pp, from.cp, from.tied);
      ASSERT_TRUE(Save(SystemFiles(), writer, folder).ok());
      for (const SmallLayout& to : layouts) {
        RankStages reader(SmallSpec(to));
        const Status read = Load(reader, folder);
        ASSERT_TRUE(read.ok()) << read.error().message;
        EXPECT_EQ(reader.Bytes(), writer.Bytes()) << from.schedule << " to " << to.schedule;
      }
    }
  }
}

TEST_F(CheckpointStoreTest, AShardIsDurableWhenItsWriterReturns) {
  const auto write_rank_0 = [this](FileSystem& files) {
    proto::CheckpointDone shard;
    return testing::SaveShard(files, folder_.path(), 0, 2, two_.parameters(0), shard);
  };
  FaultyFileSystem files;
  ASSERT_TRUE(write_rank_0(files).ok());
  EXPECT_THAT(files.calls(), Contains("sync tensors-00001-of-00002.safetensors"));
  EXPECT_EQ(files.calls().back(), "sync optim-00001-of-00002.safetensors");
  for (int64_t call = 1; call <= files.num_syncs(); ++call) {
    FaultyFileSystem faulty({.fail_sync = call});
    EXPECT_FALSE(write_rank_0(faulty).ok());
  }
  for (int64_t call = 1; call <= files.num_writes(); ++call) {
    FaultyFileSystem faulty({.fail_write = call});
    EXPECT_FALSE(write_rank_0(faulty).ok());
  }
  FaultyFileSystem full({.full_after_bytes = files.num_bytes_written() - 1});
  EXPECT_EQ(write_rank_0(full).error().code, ErrorCode::kOutOfSpace);
}

TEST_F(CheckpointStoreTest, AMissingShardIsNamed) {
  for (const std::string file :
       {"tensors-00002-of-00002.safetensors", "optim-00001-of-00002.safetensors"}) {
    const std::string folder = Saved();
    ASSERT_TRUE(SystemFiles().RemoveAll(JoinPath(folder, file)).ok());
    EXPECT_THAT(Said(folder), HasSubstr(file));
    EXPECT_THAT(Said(folder, {.pp = 3}), HasSubstr(file));
  }
}

TEST_F(CheckpointStoreTest, AShardThatWasCutOffAnywhereIsRefused) {
  const std::string folder = Saved();
  const std::string path = JoinPath(folder, "tensors-00001-of-00002.safetensors");
  const std::string whole = *SystemFiles().ReadFile(path, 1 << 20);
  EXPECT_EQ(Said(folder), "read");
  for (size_t size = 0; size < whole.size(); size += 97) {
    std::filesystem::resize_file(path, size);
    EXPECT_THAT(Said(folder), HasSubstr(path)) << size;
    folder_.Write("c/tensors-00001-of-00002.safetensors", whole);
  }
}

TEST_F(CheckpointStoreTest, ATornManifestIsRefused) {
  const std::string folder = Saved();
  const std::string path = JoinPath(folder, "manifest.json");
  const std::string whole = *SystemFiles().ReadFile(path, 1 << 20);
  for (size_t size = 0; size + 2 < whole.size(); size += 61) {
    folder_.Write("c/manifest.json", whole.substr(0, size));
    EXPECT_THAT(Said(folder), HasSubstr(path)) << size;
  }
  ASSERT_TRUE(SystemFiles().RemoveAll(path).ok());
  EXPECT_THAT(Said(folder), HasSubstr(path));
}

TEST_F(CheckpointStoreTest, AManifestThatDoesNotFitTheModelOrItsFilesIsRefused) {
  const std::string folder = Saved();
  const auto erase = [&](const char* map, const std::string& name) {
    return [=](nlohmann::json& json) {
      json["total_bytes"] = json["total_bytes"].get<int64_t>() - 16 * 4;
      json[map].erase(name);
    };
  };
  EditManifest(erase("tensors", kNorm));
  EXPECT_THAT(Said(folder), HasSubstr("the manifest has no model.norm.weight of this shape"));
  Saved();
  EditManifest(erase("optimizer_tensors", std::string(kNorm) + ".exp_avg_sq"));
  EXPECT_THAT(Said(folder), HasSubstr("no model.norm.weight.exp_avg_sq of this shape"));
  Saved();
  // Of as many bytes, but of another shape.
  EditManifest([](nlohmann::json& json) { json["tensors"][kNorm]["shape"] = {4, 4}; });
  EXPECT_THAT(Said(folder), HasSubstr("no model.norm.weight of this shape"));
  Saved();
  // In another file than it says.
  EditManifest([](nlohmann::json& json) {
    json["tensors"][kNorm]["file"] = "tensors-00001-of-00002.safetensors";
  });
  EXPECT_THAT(Said(folder),
              HasSubstr("tensors-00001-of-00002.safetensors: lacks tensor model.norm"));
  Saved();
  EditManifest([](nlohmann::json& json) {
    json["tensors"][kNorm]["file"] = "../tensors-00001-of-00002.safetensors";
  });
  EXPECT_THAT(Said(folder), HasSubstr("file must be the name"));
  // A tied model's checkpoint has no head.
  RankStages tied(SmallSpec({.tied = true}));
  tied.FillBySeed(1);
  ASSERT_TRUE(Save(SystemFiles(), tied, folder_ / "tied").ok());
  EXPECT_THAT(Said(folder_ / "tied"), HasSubstr("the manifest has no lm_head.weight"));
}

TEST_F(CheckpointStoreTest, AManifestIsOfTheWholeModelOrNotWritten) {
  const ParameterTable& table = two_.plan().table;
  proto::CheckpointDone shard;
  shard.set_rank(4);
  shard.add_tensors()->set_name("model.layers.9.input_layernorm.weight");
  CheckpointManifest manifest;
  const Status unknown = AddToManifest(table, shard, manifest);
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().message,
            "rank 4 saved model.layers.9.input_layernorm.weight, which the model does not have");
  for (const auto& parameter : table.parameters()) {
    const CheckpointTensor whole = WholeTensor("f", TensorDtype::kF32, parameter.shape());
    manifest.tensors[parameter.name] = whole;
    manifest.optimizer_tensors[parameter.name + ".exp_avg"] = whole;
    manifest.optimizer_tensors[parameter.name + ".exp_avg_sq"] = whole;
  }
  EXPECT_TRUE(CheckWhole(table, manifest).ok());
  for (const char* moment : {"", ".exp_avg", ".exp_avg_sq"}) {
    CheckpointManifest partial = manifest;
    partial.tensors.erase(std::string("model.norm.weight") + moment);
    partial.optimizer_tensors.erase(std::string("model.norm.weight") + moment);
    EXPECT_EQ(CheckWhole(table, partial).error().message,
              "no rank saved model.norm.weight with its moments");
  }
}

// ---- Hugging Face folders ----

Status Export(RankStages& ranks, const std::string& folder, DType dtype) {
  RETURN_IF_ERROR(SystemFiles().CreateDirectories(folder));
  for (int rank = 0; rank < ranks.num_ranks(); ++rank) {
    RETURN_IF_ERROR(WriteHfShard(SystemFiles(), folder, PipelineRank(rank), ranks.num_ranks(),
                                 dtype, ranks.parameters(rank)));
  }
  return WriteHfFolder(SystemFiles(), folder, ranks.num_ranks(), dtype, ranks.plan().config,
                       ranks.plan().table, ranks.plan().ExportedBy());
}

Status Import(RankStages& ranks, const std::string& folder) {
  for (int rank = 0; rank < ranks.num_ranks(); ++rank) {
    for (auto& [stage, model] : ranks.stages(rank)) {
      RETURN_IF_ERROR(ReadHfFolder(SystemFiles(), folder, model->parameters()));
    }
  }
  return {};
}

TEST_F(CheckpointStoreTest, AnExportedFolderHasTheWeightsOfEveryRank) {
  for (const SmallLayout& layout : {SmallLayout{}, SmallLayout{.pp = 3, .tied = true}}) {
    RankStages writer(SmallSpec(layout));
    writer.FillBySeed(2);
    const std::string folder = folder_ / fmt::format("hf-{}", layout.pp);
    ASSERT_TRUE(Export(writer, folder, DType::kFloat32).ok());
    RankStages reader(SmallSpec({.pp = 2, .tied = layout.tied}));
    const Status read = Import(reader, folder);
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(reader.WeightBytes(), writer.WeightBytes());
    EXPECT_EQ(reader.All().front().second->m.as<float>()[1], 0) << "moments are not exported";
  }
  EXPECT_THAT(*SystemFiles().List(folder_ / "hf-1"),
              ElementsAre("config.json", "generation_config.json", "model.safetensors"));
  const auto index = nlohmann::json::parse(
      *SystemFiles().ReadFile(folder_ / "hf-3/model.safetensors.index.json", 1 << 20));
  const ParameterTable table = MakeJobPlan(SmallSpec({.tied = true}))->table;
  EXPECT_EQ(index["metadata"]["total_size"], table.num_elements() * 4);
  EXPECT_EQ(index["weight_map"].size(), static_cast<size_t>(table.size()));
  EXPECT_EQ(index["weight_map"]["model.norm.weight"], "model-00003-of-00003.safetensors");
}

TEST_F(CheckpointStoreTest, BFloat16IsExportedRoundedAndWidenedWhenRead) {
  two_.FillBySeed(2);
  ASSERT_TRUE(Export(two_, folder_ / "hf", DType::kBFloat16).ok());
  RankStages reader(SmallSpec());
  ASSERT_TRUE(Import(reader, folder_ / "hf").ok());
  std::map<int, const StageParameter*> wanted;
  for (const auto& [rank, p] : two_.All()) wanted[p->index] = p;
  for (const auto& [rank, p] : reader.All()) {
    const float* master = wanted.at(p->index)->weight.Flat().as<float>();
    for (int64_t i = 0; i < p->weight.num_elements(); ++i) {
      ASSERT_EQ(p->weight.Flat().as<float>()[i], static_cast<float>(bfloat16(master[i])));
    }
  }
  const auto config =
      nlohmann::json::parse(*SystemFiles().ReadFile(folder_ / "hf/config.json", 1 << 20));
  EXPECT_EQ(config["dtype"], "bfloat16");
}

// What generates with the model asks its folder for these; the run that trained it never did.
TEST_F(CheckpointStoreTest, TokenIdsAndRopeScalingGoThroughToTheExportedFolder) {
  auto spec = SmallSpec({.pp = 2});
  proto::Model& model = *spec.mutable_model();
  model.set_bos_token_id(1);
  model.add_eos_token_id(2);
  model.add_eos_token_id(28);
  model.set_pad_token_id(0);
  model.mutable_rope_scaling()->set_rope_type("llama3");
  model.mutable_rope_scaling()->set_factor(4);
  model.mutable_rope_scaling()->set_original_max_position_embeddings(64);
  RankStages ranks(spec);
  ranks.FillBySeed(2);
  ASSERT_TRUE(Export(ranks, folder_ / "hf", DType::kFloat32).ok());
  const auto config = ReadHfConfig(SystemFiles(), folder_ / "hf/config.json");
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->bos_token_id, 1);
  EXPECT_THAT(config->eos_token_id, ElementsAre(2, 28));
  EXPECT_EQ(config->pad_token_id, 0);
  ASSERT_TRUE(config->rope_scaling);
  EXPECT_EQ(config->rope_scaling->factor, 4);
  EXPECT_EQ(config->rope_scaling->original_max_position_embeddings, 64);
  const auto generation = nlohmann::json::parse(
      *SystemFiles().ReadFile(folder_ / "hf/generation_config.json", 1 << 20));
  EXPECT_EQ(generation["bos_token_id"], 1);
  EXPECT_EQ(generation["eos_token_id"], nlohmann::json::array({2, 28}));
  EXPECT_EQ(generation["pad_token_id"], 0);
  // Where nobody gave any there is none.
  ASSERT_TRUE(Export(two_, folder_ / "none", DType::kFloat32).ok());
  const auto none = ReadHfConfig(SystemFiles(), folder_ / "none/config.json");
  EXPECT_FALSE(none->bos_token_id);
  EXPECT_TRUE(none->eos_token_id.empty());
  EXPECT_FALSE(none->rope_scaling);
}

TEST_F(CheckpointStoreTest, TheFolderOfAnotherModelIsRefused) {
  ASSERT_TRUE(Export(two_, folder_ / "hf", DType::kFloat32).ok());
  auto spec = SmallSpec();
  spec.mutable_model()->set_intermediate_size(32);
  RankStages wider(spec);
  EXPECT_THAT(Import(wider, folder_ / "hf").error().message,
              HasSubstr("mlp.gate_proj.weight has shape [24, 16], the model wants [32, 16]"));
  // A dtype that no master is filled from.
  RankStages one(SmallSpec());
  std::vector<TensorSpec> specs;
  int64_t num_bytes = 0;
  for (const auto& parameter : one.plan().table.parameters()) {
    specs.push_back({parameter.name, TensorDtype::kF8E4M3, parameter.shape()});
    num_bytes += TensorBytes(specs.back());
  }
  ASSERT_TRUE(SystemFiles().CreateDirectories(folder_ / "f8").ok());
  auto writer = *SafetensorsWriter::Create(SystemFiles(), folder_ / "f8/model.safetensors", specs);
  ASSERT_TRUE(writer.Append(BytesOf(std::string(static_cast<size_t>(num_bytes), 'x'))).ok());
  ASSERT_TRUE(writer.Finish().ok());
  EXPECT_THAT(Import(one, folder_ / "f8").error().message,
              HasSubstr("has dtype F8_E4M3: save it as F32, BF16 or F16"));
}

}  // namespace
}  // namespace troupe
