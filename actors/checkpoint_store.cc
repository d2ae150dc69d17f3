#include "actors/checkpoint_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "runtime/base/digest.h"
#include "runtime/format/extra_tensors.h"
#include "runtime/format/hf_config.h"
#include "runtime/format/json_reader.h"
#include "runtime/format/safetensors.h"
#include "runtime/format/widen.h"

namespace troupe {
namespace {

// What is saved of a parameter, each under its name and a suffix.
struct SavedPart {
  std::string_view suffix;
  TensorView StageParameter::*view;
  CheckpointTensors CheckpointManifest::*tensors;

  bool is_moment() const { return !suffix.empty(); }
  std::string NameOf(const ParameterSpec& parameter) const {
    return parameter.name + std::string(suffix);
  }
};
constexpr SavedPart kMaster = {"", &StageParameter::weight, &CheckpointManifest::tensors};
constexpr SavedPart kSavedParts[] = {
    kMaster,
    {".exp_avg", &StageParameter::m, &CheckpointManifest::optimizer_tensors},
    {".exp_avg_sq", &StageParameter::v, &CheckpointManifest::optimizer_tensors}};

std::span<const std::byte> BytesOf(const TensorView& view) {
  return {static_cast<const std::byte*>(view.data()), static_cast<size_t>(view.num_bytes())};
}

struct NamedRun {
  TensorSpec spec{};  // of the file's entry
  int64_t first_element = 0;
  TensorView view{};
};

Result<SafetensorsWriter> WriteFile(FileSystem& files, const std::string& folder,
                                    const std::string& name, const std::vector<NamedRun>& runs,
                                    proto::CheckpointDone& written) {
  std::vector<TensorSpec> specs;
  for (const NamedRun& run : runs) specs.push_back(run.spec);
  ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::Create(files, JoinPath(folder, name), specs));
  for (const NamedRun& run : runs) {
    RETURN_IF_ERROR(writer.Append(BytesOf(run.view)));
    auto& tensor = *written.add_tensors();
    tensor.set_name(run.spec.name);
    tensor.set_file(name);
    tensor.set_first_element(run.first_element);
    tensor.set_num_elements(run.view.num_elements());
    tensor.set_digest(DigestOf(BytesOf(run.view)));
  }
  auto& file = *written.add_files();
  file.set_name(name);
  file.set_num_bytes(writer.num_bytes());
  file.set_digest(writer.digest());
  return writer;
}

// A shard is a run of the parameter's own elements where it is whole or cut by rows.
int64_t FirstElement(const StageParameter& p) {
  CHECK(p.shard.cut.axis != 1, "a cut by columns of {} is no run", p.spec->name);
  return GlobalElement(*p.spec, p.shard, 0);
}

Status ReadRun(CheckpointReader& from, const CheckpointManifest& manifest, const SavedPart& part,
               const ParameterSpec& parameter, int64_t first_element, TensorView to) {
  CHECK(to.dtype() == DType::kFloat32, "only float32 masters are saved");
  return from.Read(manifest.*part.tensors, part.NameOf(parameter), parameter.shape(), first_element,
                   {static_cast<std::byte*>(to.data()), static_cast<size_t>(to.num_bytes())});
}

// Those with elements.
std::vector<const StageParameter*> Owned(const std::vector<const StageParameters*>& stages) {
  std::vector<const StageParameter*> owned;
  for (const StageParameters* stage : stages) {
    for (const StageParameter& p : stage->all()) {
      if (p.owned && p.shard.num_elements > 0) owned.push_back(&p);
    }
  }
  return owned;
}

std::string HfFileName(int index, int count) {
  return count == 1 ? "model.safetensors" : ShardFileName("model", index, count);
}

HfConfig HfConfigOf(const ModelConfig& c) {
  HfConfig config{.hidden_size = static_cast<int32_t>(c.hidden_size),
                  .intermediate_size = static_cast<int32_t>(c.intermediate_size),
                  .num_hidden_layers = static_cast<int32_t>(c.num_hidden_layers),
                  .num_attention_heads = static_cast<int32_t>(c.num_attention_heads),
                  .num_key_value_heads = static_cast<int32_t>(c.num_key_value_heads),
                  .head_dim = static_cast<int32_t>(c.head_dim),
                  .vocab_size = static_cast<int32_t>(c.vocab_size),
                  .max_position_embeddings = static_cast<int32_t>(c.max_position_embeddings),
                  .rms_norm_eps = c.rms_norm_eps,
                  .rope_theta = c.rope_theta,
                  .tie_word_embeddings = c.tie_word_embeddings,
                  .initializer_range = c.initializer_range,
                  .bos_token_id = c.bos_token_id,
                  .eos_token_id = c.eos_token_id,
                  .pad_token_id = c.pad_token_id};
  if (c.rope_scaling) {
    config.rope_scaling = RopeScalingLlama3{
        .factor = c.rope_scaling->factor,
        .low_freq_factor = c.rope_scaling->low_freq_factor,
        .high_freq_factor = c.rope_scaling->high_freq_factor,
        .original_max_position_embeddings = c.rope_scaling->original_max_position_embeddings};
  }
  return config;
}

}  // namespace

std::string ShardFileName(const std::string& stem, int index, int count) {
  return fmt::format("{}-{:05}-of-{:05}.safetensors", stem, index + 1, count);
}

Status UnsyncedFiles::Sync() {
  for (SafetensorsWriter& file : files_) RETURN_IF_ERROR(file.Finish());
  return {};
}

Result<UnsyncedFiles> WriteCheckpointShard(FileSystem& files, const std::string& folder, int rank,
                                           int num_ranks,
                                           const std::vector<const StageParameters*>& stages,
                                           proto::CheckpointDone& written) {
  std::vector<NamedRun> masters;
  std::vector<NamedRun> moments;
  for (const StageParameter* p : Owned(stages)) {
    const std::vector<int64_t> flat = {p->shard.num_elements};
    const std::vector<int64_t> shape = p->shard.is_whole() ? p->spec->shape() : flat;
    for (const SavedPart& part : kSavedParts) {
      (part.is_moment() ? moments : masters)
          .push_back(
              {{part.NameOf(*p->spec), TensorDtype::kF32, shape}, FirstElement(*p), p->*part.view});
    }
  }
  UnsyncedFiles unsynced;
  for (const auto& [stem, runs] : {std::pair("tensors", &masters), std::pair("optim", &moments)}) {
    ASSIGN_OR_RETURN(
        SafetensorsWriter file,
        WriteFile(files, folder, ShardFileName(stem, rank, num_ranks), *runs, written));
    unsynced.Add(std::move(file));
  }
  return unsynced;
}

Status AddToManifest(const ParameterTable& table, const proto::CheckpointDone& shard,
                     CheckpointManifest& manifest) {
  for (const auto& tensor : shard.tensors()) {
    const SavedPart* part = &kMaster;
    for (const SavedPart& one : kSavedParts) {
      if (one.is_moment() && tensor.name().ends_with(one.suffix)) part = &one;
    }
    const std::string_view name = tensor.name();
    const int index = table.Find(name.substr(0, name.size() - part->suffix.size()));
    if (index < 0) {
      return MakeError(ErrorCode::kFailed, "rank {} saved {}, which the model does not have",
                       shard.rank(), name);
    }
    CheckpointTensor& saved = (manifest.*part->tensors)[tensor.name()];
    saved.shape = table[index].shape();
    saved.pieces.push_back({.file = tensor.file(),
                            .first_element = tensor.first_element(),
                            .num_elements = tensor.num_elements(),
                            .digest = tensor.digest()});
    std::ranges::stable_sort(saved.pieces, {}, &CheckpointPiece::first_element);
  }
  for (const auto& file : shard.files()) {
    manifest.files[file.name()] = {file.num_bytes(), file.digest()};
  }
  return {};
}

Status CheckWhole(const ParameterTable& table, const CheckpointManifest& manifest) {
  for (const ParameterSpec& parameter : table.parameters()) {
    for (const SavedPart& part : kSavedParts) {
      const CheckpointTensors& tensors = manifest.*part.tensors;
      const auto saved = tensors.find(part.NameOf(parameter));
      if (saved == tensors.end()) {
        return MakeError(ErrorCode::kFailed, "no rank saved {} with its moments", parameter.name);
      }
      const std::string problem = PiecesProblem(saved->second);
      if (problem.empty()) continue;
      return MakeError(ErrorCode::kFailed, "{} was not saved whole and once: {}", saved->first,
                       problem);
    }
  }
  return {};
}

Status ReadCheckpoint(FileSystem& files, const std::string& folder,
                      const CheckpointManifest& manifest, StageParameters& parameters) {
  CheckpointReader from(files, folder);
  RETURN_IF_ERROR(parameters.Fill([&](const StageParameter& p, TensorView whole) {
    return ReadMaster(from, manifest, *p.spec, 0, whole);
  }));
  for (const StageParameter& p : parameters.all()) {
    if (p.shard.num_elements == 0) continue;
    for (const SavedPart& part : kSavedParts) {
      if (!part.is_moment()) continue;
      RETURN_IF_ERROR(ReadRun(from, manifest, part, *p.spec, FirstElement(p), p.*part.view));
    }
  }
  return {};
}

Status ReadMaster(CheckpointReader& from, const CheckpointManifest& manifest,
                  const ParameterSpec& parameter, int64_t first_element, TensorView to) {
  return ReadRun(from, manifest, kMaster, parameter, first_element, to);
}

const TensorView& ExportedWeights(const StageParameter& p, DType dtype) {
  const bool narrow = dtype == DType::kBFloat16 && p.compute.dtype() == DType::kBFloat16;
  return narrow ? p.compute : p.whole;
}

Result<HfShardWriter> HfShardWriter::Create(FileSystem& files, const std::string& folder,
                                            PipelineRank place, int num_places, DType dtype,
                                            std::span<const StageParameters* const> stages) {
  const bool narrow = dtype == DType::kBFloat16;
  std::vector<TensorSpec> specs;
  for (const StageParameters* stage : stages) {
    for (const StageParameter& p : stage->all()) {
      if (!p.exported) continue;
      specs.push_back(
          {p.spec->name, narrow ? TensorDtype::kBf16 : TensorDtype::kF32, p.spec->shape()});
    }
  }
  const std::string name = HfFileName(place.value, num_places);
  ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::Create(files, JoinPath(folder, name), specs));
  return HfShardWriter(std::move(writer), narrow);
}

Status HfShardWriter::Append(const TensorView& whole) {
  if (!narrow_ || whole.dtype() == DType::kBFloat16) return writer_.Append(BytesOf(whole));
  narrowed_.clear();
  const float* weight = whole.Flat().as<float>();
  for (int64_t i = 0; i < whole.num_elements(); ++i) narrowed_.emplace_back(weight[i]);
  return writer_.Append(std::as_bytes(std::span(narrowed_)));
}

Status WriteHfShard(FileSystem& files, const std::string& folder, PipelineRank place,
                    int num_places, DType dtype,
                    const std::vector<const StageParameters*>& stages) {
  ASSIGN_OR_RETURN(HfShardWriter writer,
                   HfShardWriter::Create(files, folder, place, num_places, dtype, stages));
  for (const StageParameters* stage : stages) {
    for (const StageParameter& p : stage->all()) {
      if (p.exported) RETURN_IF_ERROR(writer.Append(ExportedWeights(p, dtype)));
    }
  }
  return writer.Finish();
}

Status WriteHfFolder(FileSystem& files, const std::string& folder, int num_places, DType dtype,
                     const ModelConfig& config, const ParameterTable& table,
                     std::span<const PipelineRank> exported_by) {
  const bool narrow = dtype == DType::kBFloat16;
  RETURN_IF_ERROR(
      WriteHfConfig(files, folder, HfConfigOf(config), narrow ? "bfloat16" : "float32"));
  if (num_places == 1) return {};
  nlohmann::ordered_json index;
  int64_t total_bytes = 0;
  auto& map = index["weight_map"];
  for (int at = 0; at < table.size(); ++at) {
    map[table[at].name] = HfFileName(exported_by[static_cast<size_t>(at)].value, num_places);
    total_bytes += table[at].num_elements() * (narrow ? 2 : 4);
  }
  index["metadata"]["total_size"] = total_bytes;
  return WriteFileAtomically(files, JoinPath(folder, "model.safetensors.index.json"),
                             index.dump(2) + "\n");
}

Status CheckNoExtraTensors(FileSystem& files, const std::string& folder,
                           const ParameterTable& table) {
  ASSIGN_OR_RETURN(const SafetensorsFolder from, SafetensorsFolder::Open(files, folder));
  const ExtraTensors extra = FindExtraTensors(
      from, [&table](std::string_view name) { return table.Find(name) >= 0; },
      table.tied() ? std::string_view(table[table.embedding_index()].name) : std::string_view());
  if (extra.names.empty()) return {};
  return MakeError(ErrorCode::kInvalidSpec,
                   "model.init_from = {}: on this host the model has no place for {} of its "
                   "tensors, as {}: give the folder that the job was checked with, or set "
                   "model.ignore_extra_tensors",
                   folder, extra.names.size(), Quoted(extra.names.front()));
}

Status ReadHfFolder(FileSystem& files, const std::string& folder, StageParameters& parameters) {
  ASSIGN_OR_RETURN(const SafetensorsFolder from, SafetensorsFolder::Open(files, folder));
  return parameters.Fill([&](const StageParameter& p, TensorView whole) -> Status {
    ASSIGN_OR_RETURN(const StoredTensor stored, from.Require(p.spec->name, p.spec->shape()));
    RETURN_IF_ERROR(CheckWidens(stored.entry->spec, folder));
    if (whole.dtype() != DType::kFloat32) {
      return MakeError(ErrorCode::kFailed, "{}: only float32 masters can be filled", folder);
    }
    return WidenToFloat32(stored, 0,
                          {whole.Flat().as<float>(), static_cast<size_t>(whole.num_elements())});
  });
}

}  // namespace troupe
