// Folders of safetensors files: one file, or several and an index.
#include <algorithm>
#include <utility>

#include "runtime/format/file_kind.h"
#include "runtime/format/json_reader.h"
#include "runtime/format/safetensors.h"

namespace troupe {
namespace {

using nlohmann::json;

constexpr std::string_view kSingleName = "model.safetensors";
constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr int64_t kIndexMaxBytes = 100'000'000;
constexpr JsonBounds kIndexBounds{.max_depth = 4, .max_values = 2'000'000};

// The index comes from outside: its files lie in the folder itself.
bool IsPlainName(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

Error BadIndex(const std::string& path, std::string_view problem) {
  return MakeError(ErrorCode::kCorrupt, "{}: not a usable index: {}", path, problem);
}

// Weights in a form that is not read are a likely reason why there are none in one that is.
Error WithWhatIsThere(FileSystem& files, const std::string& folder, Error error) {
  if (error.code != ErrorCode::kNotFound) return error;
  for (const char* other : {"pytorch_model.bin", "pytorch_model.bin.index.json",
                            "consolidated.00.pth", "tf_model.h5", "flax_model.msgpack"}) {
    if (!files.Exists(JoinPath(folder, other))) continue;
    error.message += fmt::format("; there is a {}: convert it to safetensors", other);
    return error;
  }
  const auto names = files.List(folder);
  if (!names.ok()) return error;
  // "model-00001-of-00002.safetensors"
  const auto is_shard = [](const std::string& name) {
    return name.ends_with(".safetensors") && name.find("-of-") != std::string::npos;
  };
  if (const auto shard = std::ranges::find_if(*names, is_shard); shard != names->end()) {
    const auto shards = std::ranges::count_if(*names, is_shard);
    error.message = fmt::format(
        "{}: there {}, as {}, and no {} that says what lies in which: copy or download that too",
        folder, shards == 1 ? "is a shard" : fmt::format("are {} shards", shards), *shard,
        kIndexName);
  } else if (const auto other = std::ranges::find_if(
                 *names, [](const std::string& name) { return name.ends_with(".safetensors"); });
             other != names->end()) {
    error.message += fmt::format("; there is a {}: rename it", *other);
  }
  return error;
}

std::string ShapeText(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace

Result<SafetensorsFolder> SafetensorsFolder::Open(FileSystem& files, const std::string& path) {
  SafetensorsFolder folder;
  folder.folder_ = path;
  const std::string index_path = JoinPath(path, kIndexName);
  if (!files.Exists(index_path) || files.Exists(JoinPath(path, kSingleName))) {
    auto opened = SafetensorsFile::Open(files, JoinPath(path, kSingleName));
    if (!opened.ok()) return WithWhatIsThere(files, path, std::move(opened).error());
    SafetensorsFile file = *std::move(opened);
    for (const TensorEntry& entry : file.tensors()) folder.file_of_[entry.spec.name] = 0;
    folder.files_.push_back(std::move(file));
    return folder;
  }
  ASSIGN_OR_RETURN(const std::string text, files.ReadFile(index_path, kIndexMaxBytes));
  auto parsed = ParseJson(text, index_path, kIndexBounds);
  if (!parsed.ok()) {
    return NamedAsWhatItIs(index_path, BytesOf(text), "an index of shards",
                           std::move(parsed).error());
  }
  const json index = *std::move(parsed);
  const auto weight_map = index.find("weight_map");
  if (!index.is_object() || weight_map == index.end() || !weight_map->is_object()) {
    return BadIndex(index_path, "weight_map is missing or no object");
  }
  std::map<std::string, size_t> opened;  // file name -> index into files_
  for (const auto& [tensor, value] : weight_map->items()) {
    if (!value.is_string() || !IsPlainName(value.get_ref<const std::string&>())) {
      return BadIndex(
          index_path,
          fmt::format("tensor {}: its file is not the name of one in this folder", Quoted(tensor)));
    }
    const auto& name = value.get_ref<const std::string&>();
    const auto [place, is_new] = opened.try_emplace(name, folder.files_.size());
    if (is_new) {
      ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(files, JoinPath(path, name)));
      folder.files_.push_back(std::move(file));
    }
    if (folder.files_[place->second].Find(tensor) == nullptr) {
      return BadIndex(index_path,
                      fmt::format("tensor {} is not in {}", Quoted(tensor), Quoted(name)));
    }
    folder.file_of_[tensor] = place->second;
  }
  // What the index forgets is in the folder all the same.
  for (size_t i = 0; i < folder.files_.size(); ++i) {
    for (const TensorEntry& entry : folder.files_[i].tensors()) {
      folder.file_of_.try_emplace(entry.spec.name, i);
    }
  }
  return folder;
}

std::vector<std::string> SafetensorsFolder::Names() const {
  std::vector<std::string> names;
  names.reserve(file_of_.size());
  for (const auto& [name, file] : file_of_) names.push_back(name);
  return names;
}

std::optional<StoredTensor> SafetensorsFolder::Find(std::string_view name) const {
  const auto found = file_of_.find(name);
  if (found == file_of_.end()) return std::nullopt;
  const SafetensorsFile& file = files_[found->second];
  const TensorEntry* entry = file.Find(name);
  return StoredTensor{entry, &file};
}

Result<StoredTensor> SafetensorsFolder::Require(std::string_view name,
                                                std::span<const int64_t> shape) const {
  const auto view = Find(name);
  if (!view) {
    return MakeError(ErrorCode::kNotFound,
                     "{}: tensor {} is missing; is this the folder of another model?", folder_,
                     name);
  }
  if (!std::ranges::equal(view->entry->spec.shape, shape)) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "{}: tensor {} has shape {}, the model wants {}; compare config.json", folder_,
                     name, ShapeText(view->entry->spec.shape), ShapeText(shape));
  }
  return *view;
}

}  // namespace troupe
