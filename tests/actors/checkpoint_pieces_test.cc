// Checkpoints of ranks that share parameters: any number of owners and stages resumes from any
// other, element for element.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cstring>
#include <deque>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "actors/checkpoint_store.h"
#include "runtime/format/safetensors.h"
#include "tests/support/memory_file_system.h"
#include "tests/support/save_shard.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;
using testing::MemoryFileSystem;

constexpr const char* kFolder = "c/step-00000003";

ModelConfig Config(int64_t hidden_size, bool tied) {
  return {.hidden_size = hidden_size,
          .intermediate_size = hidden_size + 40,
          .num_hidden_layers = 3,
          .num_attention_heads = 4,
          .num_key_value_heads = 2,
          .head_dim = 8,
          .vocab_size = 131,
          .tie_word_embeddings = tied};
}

// Each of `num_stages` stages' parameters are shared by `num_owners` ranks.
struct Cutting {
  int num_stages = 1;
  int num_owners = 1;
  bool whole_masters = true;  // else of the shards alone, and bfloat16 copies of everything
  int num_replicas = 1;       // of each owner
  int64_t persist_elements = 0;
};
void showValue(const Cutting& cutting, std::ostream& out) {
  out << cutting.num_stages << " stages x " << cutting.num_owners << " owners";
}

// Of the master (0), first (1) or second moment (2): no other element's.
float ValueOf(int parameter, int part, int64_t element) {
  return static_cast<float>((3 * parameter + part) * 20'000 + element);
}

class CutModel {
 public:
  CutModel(const ModelConfig& config, const Cutting& cutting) : table_(config) {
    const auto stages = PartitionStages(table_.model(), cutting.num_stages, 8);
    for (const StageLayout& layout : *stages) {
      for (int rank = 0; rank < cutting.num_owners * cutting.num_replicas; ++rank) {
        const ShardPlace place = {.owner = rank % cutting.num_owners,
                                  .num_owners = cutting.num_owners,
                                  .replica = rank / cutting.num_owners,
                                  .num_replicas = cutting.num_replicas,
                                  .persist_elements = cutting.persist_elements};
        ranks_.push_back(std::make_unique<StageParameters>(
            StageParameters::Options{.shards = place, .whole_masters = cutting.whole_masters},
            table_, layout, ledger_));
        for (const StageParameter& p : ranks_.back()->all()) {
          if (cutting.whole_masters) continue;
          auto& copy = copies_.emplace_back(static_cast<size_t>(p.spec->num_elements()));
          ranks_.back()->SetCompute(p.index, Shaped(copy.data(), DType::kBFloat16, *p.spec));
        }
      }
    }
  }

  const ParameterTable& table() const { return table_; }
  int num_ranks() const { return static_cast<int>(ranks_.size()); }
  const StageParameters& rank(int rank) const { return *ranks_[static_cast<size_t>(rank)]; }

  void Fill() {
    ForEach([](float& value, float wanted) { value = wanted; });
  }
  int64_t NumOthers(int num_parts = 3) const {
    int64_t others = 0;
    ForEach([&](float& value, float wanted) { others += value != wanted; }, num_parts);
    return others;
  }

  // Copies that are not their masters, rounded.
  int64_t NumOtherCopies() const {
    int64_t others = 0;
    for (const auto& rank : ranks_) {
      for (const StageParameter& p : rank->all()) {
        for (int64_t i = 0; i < p.compute.num_elements(); ++i) {
          const float copy = static_cast<float>(p.compute.Flat().as<bfloat16>()[i]);
          others += copy != static_cast<float>(bfloat16(ValueOf(p.index, 0, i)));
        }
      }
    }
    return others;
  }

  proto::CheckpointDone Write(FileSystem& files, int rank) const {
    proto::CheckpointDone shard;
    shard.set_rank(rank);
    CHECK(files.CreateDirectories(kFolder).ok());
    const Status written = testing::SaveShard(files, kFolder, rank, num_ranks(),
                                              {ranks_[static_cast<size_t>(rank)].get()}, shard);
    CHECK(written.ok(), "{}", written.error().message);
    return shard;
  }
  // The manifest of all ranks' shards, in the folder too.
  CheckpointManifest Save(FileSystem& files) const {
    CheckpointManifest manifest{.step = 3};
    for (int rank = 0; rank < num_ranks(); ++rank) {
      CHECK(AddToManifest(table_, Write(files, rank), manifest).ok());
    }
    const Status whole = CheckWhole(table_, manifest);
    CHECK(whole.ok(), "{}", whole.error().message);
    CHECK(WriteFileAtomically(files, JoinPath(kFolder, "manifest.json"), ManifestJson(manifest))
              .ok());
    return manifest;
  }
  Status Load(FileSystem& files, const CheckpointManifest& manifest) {
    for (const auto& rank : ranks_) {
      RETURN_IF_ERROR(ReadCheckpoint(files, kFolder, manifest, *rank));
    }
    return {};
  }
  Status LoadHf(FileSystem& files, const std::string& folder) {
    for (const auto& rank : ranks_) RETURN_IF_ERROR(ReadHfFolder(files, folder, *rank));
    return {};
  }

 private:
  template <typename Visit>
  void ForEach(Visit visit, int num_parts = 3) const {
    for (const auto& rank : ranks_) {
      for (const StageParameter& p : rank->all()) {
        const TensorView parts[] = {p.weight, p.m, p.v};
        for (int part = 0; part < num_parts; ++part) {
          float* values = parts[part].Flat().as<float>();
          for (int64_t i = 0; i < p.shard.num_elements; ++i) {
            visit(values[i], ValueOf(p.index, part, p.shard.first_element + i));
          }
        }
      }
    }
  }

  const ParameterTable table_;
  MemoryLedger ledger_{};
  std::deque<std::vector<bfloat16>> copies_{};
  std::vector<std::unique_ptr<StageParameters>> ranks_{};
};

// What a reader of this cutting says, or "read".
std::string Said(FileSystem& files, const CheckpointManifest& manifest, const Cutting& cutting) {
  CutModel reader(Config(64, false), cutting);
  const Status read = reader.Load(files, manifest);
  if (!read.ok()) return read.error().message;
  return reader.NumOthers() == 0 ? "read" : "other values";
}

TEST(CheckpointPiecesTest, AnyCuttingReadsWhatAnyOtherWrote) {
  EXPECT_TRUE(rc::check("every element comes back", [] {
    // More owners than leaves too: then some ranks save nothing.
    const auto cutting = [] {
      return Cutting{*rc::gen::inRange(1, 4),
                     *rc::gen::oneOf(rc::gen::inRange(1, 9), rc::gen::just(90)),
                     *rc::gen::arbitrary<bool>(), *rc::gen::inRange(1, 4),
                     *rc::gen::element<int64_t>(0, 50, 3000)};
    };
    const ModelConfig config =
        Config(*rc::gen::element<int64_t>(8, 33, 64), *rc::gen::arbitrary<bool>());
    const Cutting from = cutting();
    const Cutting to = cutting();
    MemoryFileSystem files;
    CutModel writer(config, from);
    writer.Fill();
    const CheckpointManifest written = writer.Save(files);
    const auto manifest = ReadManifest(files, kFolder);
    RC_ASSERT(manifest.ok() && *manifest == written);
    RC_ASSERT(CheckCheckpoint(files, kFolder)->damage.empty());
    CutModel reader(config, to);
    const Status read = reader.Load(files, *manifest);
    if (!read.ok()) RC_FAIL(read.error().message);
    RC_ASSERT(reader.NumOthers() == 0);
    RC_ASSERT(to.whole_masters || to.num_owners == 1 || reader.NumOtherCopies() == 0);
    // Any run of a master, of which the whole is one.
    CheckpointReader from_folder(files, kFolder);
    for (int index = 0; index < reader.table().size(); ++index) {
      const ParameterSpec& parameter = reader.table()[index];
      const auto first = *rc::gen::inRange<int64_t>(0, parameter.num_elements() + 1);
      for (const int64_t begin : {int64_t{0}, first}) {
        std::vector<float> run(static_cast<size_t>(parameter.num_elements() - begin));
        const auto view = TensorView::Of<float>(run.data(), {std::ssize(run)});
        RC_ASSERT(ReadMaster(from_folder, *manifest, parameter, begin, view).ok());
        for (size_t i = 0; i < run.size(); ++i) {
          RC_ASSERT(run[i] == ValueOf(index, 0, begin + static_cast<int64_t>(i)));
        }
      }
    }
  }));
}

TEST(CheckpointPiecesTest, ARankWithoutElementsWritesNone) {
  MemoryFileSystem files;
  CutModel many(Config(8, false), {.num_owners = 90});
  many.Fill();
  int empty = 0;
  for (int rank = 0; rank < many.num_ranks(); ++rank) {
    const proto::CheckpointDone shard = many.Write(files, rank);
    empty += shard.tensors_size() == 0 ? 1 : 0;
    EXPECT_EQ(shard.files_size(), 2);
  }
  EXPECT_GT(empty, 40);
}

TEST(CheckpointPiecesTest, AWholeParameterHasItsShapeAndARunIsFlat) {
  MemoryFileSystem files;
  CutModel writer(Config(64, false), {.num_owners = 3});
  writer.Fill();
  std::set<size_t> dimensions;
  for (int rank = 0; rank < writer.num_ranks(); ++rank) {
    writer.Write(files, rank);
    const auto file = *SafetensorsFile::Open(
        files, JoinPath(kFolder, ShardFileName("tensors", rank, writer.num_ranks())));
    size_t saved = 0;
    for (const StageParameter& p : writer.rank(rank).all()) {
      if (p.shard.num_elements == 0) continue;
      ++saved;
      const TensorEntry* entry = file.Find(p.spec->name);
      ASSERT_NE(entry, nullptr) << p.spec->name;
      const std::vector<int64_t> flat = {p.shard.num_elements};
      EXPECT_EQ(entry->spec.shape, p.shard.is_whole() ? p.spec->shape() : flat);
      if (!p.spec->one_dimensional) dimensions.insert(entry->spec.shape.size());
    }
    EXPECT_EQ(file.tensors().size(), saved);
  }
  EXPECT_EQ(dimensions, (std::set<size_t>{1, 2})) << "both kinds were there";
}

TEST(CheckpointPiecesTest, OneChangedByteIsNamedByTensorAndFile) {
  MemoryFileSystem files;
  CutModel writer(Config(64, false), {.num_stages = 2, .num_owners = 3});
  writer.Fill();
  const CheckpointManifest manifest = writer.Save(files);
  ASSERT_EQ(Said(files, manifest, {.num_owners = 2}), "read");
  for (const auto& [name, whole] : manifest.files) {
    const std::string path = JoinPath(kFolder, name);
    const std::string good = *files.ReadFile(path, whole.num_bytes);
    const auto file = *SafetensorsFile::Open(files, path);
    const int64_t data_begin = whole.num_bytes - file.tensors().back().end;
    for (const TensorEntry& entry : file.tensors()) {
      std::string bad = good;
      bad[static_cast<size_t>(data_begin + (entry.begin + entry.end) / 2)] ^= 1;
      ASSERT_TRUE(WriteFileAtomically(files, path, bad).ok());
      const std::string sentence = path + ": tensor " + entry.spec.name + " is damaged";
      for (const int num_owners : {1, 2, 5}) {
        EXPECT_THAT(Said(files, manifest, {.num_owners = num_owners}), HasSubstr(sentence));
      }
      EXPECT_THAT(CheckCheckpoint(files, kFolder)->damage,
                  ::testing::ElementsAre(HasSubstr(sentence)));
    }
    ASSERT_TRUE(WriteFileAtomically(files, path, good).ok());
  }
}

TEST(CheckpointPiecesTest, WhatWasSavedInPartOrTwiceIsNotWhole) {
  MemoryFileSystem files;
  CutModel writer(Config(64, false), {.num_owners = 3});
  writer.Fill();
  const auto said = [&](const std::vector<int>& ranks) {
    CheckpointManifest manifest;
    for (const int rank : ranks) {
      CHECK(AddToManifest(writer.table(), writer.Write(files, rank), manifest).ok());
    }
    const Status whole = CheckWhole(writer.table(), manifest);
    return whole.ok() ? "whole" : whole.error().message;
  };
  EXPECT_EQ(said({2, 0, 1}), "whole") << "in any order";
  EXPECT_THAT(said({0, 1}), HasSubstr("there is a gap at its end: its pieces have"));
  EXPECT_THAT(said({0, 2}), ::testing::AnyOf(HasSubstr("no rank saved model.layers."),
                                             HasSubstr("was not saved whole and once: there is")));
  EXPECT_THAT(said({0, 1, 2, 1}), HasSubstr("was not saved whole and once: there is an overlap"));
}

// Whole tensors without digests, as earlier builds wrote them.
TEST(CheckpointPiecesTest, AnOlderManifestIsReadByAnyCutting) {
  MemoryFileSystem files;
  CutModel writer(Config(64, false), {});
  writer.Fill();
  auto json = nlohmann::json::parse(ManifestJson(writer.Save(files)));
  json.erase("xxh3");
  json.erase("files");
  for (const char* tensors : {"tensors", "optimizer_tensors"}) {
    for (auto& [name, tensor] : json[tensors].items()) {
      tensor.erase("xxh3");
      EXPECT_EQ(tensor.size(), 3u) << "file, dtype and shape";
    }
  }
  const auto manifest = ParseManifestJson(json.dump(), "/m");
  ASSERT_TRUE(manifest.ok()) << manifest.error().message;
  for (const Cutting& to : {Cutting{1, 1}, Cutting{1, 3}, Cutting{2, 2}}) {
    EXPECT_EQ(Said(files, *manifest, to), "read");
  }
}

TEST(CheckpointPiecesTest, RunsAreFilledFromAHuggingFaceFolder) {
  MemoryFileSystem files;
  const ModelConfig config = Config(64, true);
  CutModel whole(config, {});
  whole.Fill();
  ASSERT_TRUE(files.CreateDirectories("hf").ok());
  ASSERT_TRUE(
      WriteHfShard(files, "hf", PipelineRank(0), 1, DType::kFloat32, {&whole.rank(0)}).ok());
  for (const Cutting& cutting : {Cutting{1, 1}, Cutting{1, 3}, Cutting{3, 4}}) {
    CutModel reader(config, cutting);
    const Status read = reader.LoadHf(files, "hf");
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(reader.NumOthers(/*num_parts=*/1), 0);
  }
}

}  // namespace
}  // namespace troupe
