#include "actors/checkpoint_store.h"

#include <fmt/format.h>

#include <map>
#include <memory>

#include <nlohmann/json.hpp>

#include "runtime/base/digest.h"
#include "runtime/format/checkpoint_reader.h"
#include "runtime/format/extra_tensors.h"
#include "runtime/format/hf_config.h"
#include "runtime/format/json_reader.h"
#include "runtime/format/safetensors.h"
#include "runtime/format/widen.h"

namespace troupe {
namespace {

constexpr std::string_view kFirstMoment = ".exp_avg";
constexpr std::string_view kSecondMoment = ".exp_avg_sq";

std::span<const std::byte> BytesOf(const TensorView& view) {
  return {static_cast<const std::byte*>(view.data()), static_cast<size_t>(view.num_bytes())};
}

struct NamedTensor {
  TensorSpec spec{};
  TensorView view{};
};

Status WriteFile(FileSystem& files, const std::string& folder, const std::string& name,
                 const std::vector<NamedTensor>& tensors, proto::CheckpointDone& written) {
  std::vector<TensorSpec> specs;
  for (const NamedTensor& tensor : tensors) specs.push_back(tensor.spec);
  ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::Create(files, JoinPath(folder, name), specs));
  for (const NamedTensor& tensor : tensors) {
    RETURN_IF_ERROR(writer.Append(BytesOf(tensor.view)));
    auto& entry = *written.add_tensors();
    entry.set_name(tensor.spec.name);
    entry.set_file(name);
    entry.set_num_bytes(tensor.view.num_bytes());
    entry.set_digest(DigestOf(BytesOf(tensor.view)));
  }
  RETURN_IF_ERROR(writer.Finish());
  auto& file = *written.add_files();
  file.set_name(name);
  file.set_num_bytes(writer.num_bytes());
  file.set_digest(writer.digest());
  return {};
}

// Copies a stored tensor into a master of the same number of elements, widening half precision.
Status FillFrom(const StoredTensor& stored, const std::string& place, TensorView to) {
  if (to.dtype() != DType::kFloat32) {
    return MakeError(ErrorCode::kFailed, "{}: only float32 masters can be filled", place);
  }
  RETURN_IF_ERROR(CheckWidens(stored.entry->spec, place));
  return WidenToFloat32(stored, to.as<float>());
}

Status ReadInto(CheckpointReader& from, const std::map<std::string, CheckpointTensor>& tensors,
                const std::string& name, const std::vector<int64_t>& shape, TensorView to) {
  CHECK(to.dtype() == DType::kFloat32, "only float32 masters are saved");
  return from.Read(tensors, name, shape,
                   {static_cast<std::byte*>(to.data()), static_cast<size_t>(to.num_bytes())});
}

std::vector<const StageParameter*> Owned(const std::vector<const StageParameters*>& stages) {
  std::vector<const StageParameter*> owned;
  for (const StageParameters* stage : stages) {
    for (const StageParameter& p : stage->all()) {
      if (!p.owned) continue;
      CHECK(p.shard.is_whole(), "a part of {} is saved as if it were all", p.spec->name);
      owned.push_back(&p);
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

Status WriteCheckpointShard(FileSystem& files, const std::string& folder, int rank, int num_ranks,
                            const std::vector<const StageParameters*>& stages,
                            proto::CheckpointDone& written) {
  std::vector<NamedTensor> masters;
  std::vector<NamedTensor> moments;
  for (const StageParameter* p : Owned(stages)) {
    const auto spec = [&](std::string_view suffix) {
      return TensorSpec{p->spec->name + std::string(suffix), TensorDtype::kF32, p->spec->shape()};
    };
    masters.push_back({spec(""), p->weight});
    moments.push_back({spec(kFirstMoment), p->m});
    moments.push_back({spec(kSecondMoment), p->v});
  }
  RETURN_IF_ERROR(
      WriteFile(files, folder, ShardFileName("tensors", rank, num_ranks), masters, written));
  return WriteFile(files, folder, ShardFileName("optim", rank, num_ranks), moments, written);
}

Status AddToManifest(const ParameterTable& table, const proto::CheckpointDone& shard,
                     CheckpointManifest& manifest) {
  for (const auto& tensor : shard.tensors()) {
    std::string name = tensor.name();
    bool optimizer = false;
    for (const std::string_view suffix : {kFirstMoment, kSecondMoment}) {
      if (!name.ends_with(suffix)) continue;
      name.resize(name.size() - suffix.size());
      optimizer = true;
      break;
    }
    const int index = table.Find(name);
    if (index < 0) {
      return MakeError(ErrorCode::kFailed, "rank {} saved {}, which the model does not have",
                       shard.rank(), tensor.name());
    }
    auto& tensors = optimizer ? manifest.optimizer_tensors : manifest.tensors;
    tensors[tensor.name()] = {tensor.file(), TensorDtype::kF32, table[index].shape(),
                              tensor.digest()};
  }
  for (const auto& file : shard.files()) {
    manifest.files[file.name()] = {file.num_bytes(), file.digest()};
  }
  return {};
}

Status CheckWhole(const ParameterTable& table, const CheckpointManifest& manifest) {
  for (const ParameterSpec& parameter : table.parameters()) {
    const auto& moments = manifest.optimizer_tensors;
    if (manifest.tensors.contains(parameter.name) &&
        moments.contains(parameter.name + std::string(kFirstMoment)) &&
        moments.contains(parameter.name + std::string(kSecondMoment))) {
      continue;
    }
    return MakeError(ErrorCode::kFailed, "no rank saved {} with its moments", parameter.name);
  }
  return {};
}

Status ReadCheckpoint(FileSystem& files, const std::string& folder,
                      const CheckpointManifest& manifest, StageParameters& parameters) {
  CheckpointReader from(files, folder);
  const auto& moments = manifest.optimizer_tensors;
  for (const StageParameter& p : parameters.all()) {
    const std::string& name = p.spec->name;
    const std::vector<int64_t> shape = p.spec->shape();
    RETURN_IF_ERROR(ReadInto(from, manifest.tensors, name, shape, p.weight));
    RETURN_IF_ERROR(ReadInto(from, moments, name + std::string(kFirstMoment), shape, p.m));
    RETURN_IF_ERROR(ReadInto(from, moments, name + std::string(kSecondMoment), shape, p.v));
  }
  return {};
}

Status WriteHfShard(FileSystem& files, const std::string& folder, PipelineRank place,
                    int num_places, DType dtype,
                    const std::vector<const StageParameters*>& stages) {
  const bool narrow = dtype == DType::kBFloat16;
  std::vector<const StageParameter*> exported;
  std::vector<TensorSpec> specs;
  for (const StageParameters* stage : stages) {
    for (const StageParameter& p : stage->all()) {
      if (!p.exported) continue;
      exported.push_back(&p);
      specs.push_back(
          {p.spec->name, narrow ? TensorDtype::kBf16 : TensorDtype::kF32, p.spec->shape()});
    }
  }
  const std::string name = HfFileName(place.value, num_places);
  ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::Create(files, JoinPath(folder, name), specs));
  std::vector<bfloat16> narrowed;
  for (const StageParameter* p : exported) {
    // The copy that products read is the master, rounded.
    const TensorView& whole =
        p->compute.dtype() == DType::kBFloat16 && narrow ? p->compute : p->whole;
    if (!narrow || whole.dtype() == DType::kBFloat16) {
      RETURN_IF_ERROR(writer.Append(BytesOf(whole)));
      continue;
    }
    narrowed.clear();
    const float* weight = whole.Flat().as<float>();
    for (int64_t i = 0; i < whole.num_elements(); ++i) narrowed.emplace_back(weight[i]);
    RETURN_IF_ERROR(writer.Append(std::as_bytes(std::span(narrowed))));
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
    return FillFrom(stored, folder, whole);
  });
}

}  // namespace troupe
