#include "runtime/format/checkpoint_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <set>
#include <utility>

#include "runtime/base/digest.h"

namespace troupe {
namespace {

constexpr int64_t kPieceBytes = int64_t{1} << 20;

Error OtherBytes(const std::string& path, const std::string& tensor, uint64_t is, uint64_t was) {
  return MakeError(ErrorCode::kCorrupt,
                   "{}: tensor {} is damaged: its bytes have the digest {}, {} were written", path,
                   tensor, DigestText(is), DigestText(was));
}

// Both maps of a manifest as one.
std::map<std::string, CheckpointTensor> AllTensors(const CheckpointManifest& manifest) {
  auto all = manifest.tensors;
  all.insert(manifest.optimizer_tensors.begin(), manifest.optimizer_tensors.end());
  return all;
}

// One file of a checkpoint, read from its first byte to its last.
class FileCheck {
 public:
  FileCheck(const ReadableFile& file, const std::string& path, std::vector<std::string>& damage)
      : file_(file), path_(path), damage_(damage) {}

  Status Run(const std::map<std::string, CheckpointTensor>& expected, const CheckpointFile* whole) {
    ASSIGN_OR_RETURN(const SafetensorsHeader header, ReadSafetensorsHeader(file_, path_));
    // Without digests there is nothing to read the bytes for.
    if (whole != nullptr) RETURN_IF_ERROR(Hash(0, header.data_begin, nullptr));
    const size_t known = damage_.size();
    std::set<std::string> seen;
    for (const TensorEntry& entry : header.tensors) {  // they tile the rest
      DigestStream of_tensor;
      if (whole != nullptr) {
        RETURN_IF_ERROR(
            Hash(header.data_begin + entry.begin, header.data_begin + entry.end, &of_tensor));
      }
      const auto wanted = expected.find(entry.spec.name);
      if (wanted == expected.end()) continue;
      seen.insert(entry.spec.name);
      const CheckpointTensor& tensor = wanted->second;
      if (entry.spec.shape != tensor.shape || entry.spec.dtype != tensor.dtype) {
        damage_.push_back(fmt::format("{}: tensor {} has another shape or dtype than the manifest",
                                      path_, entry.spec.name));
      } else if (whole != nullptr && tensor.digest && *tensor.digest != of_tensor.value()) {
        damage_.push_back(
            OtherBytes(path_, entry.spec.name, of_tensor.value(), *tensor.digest).message);
      }
    }
    for (const auto& [name, tensor] : expected) {
      if (!seen.contains(name)) damage_.push_back(fmt::format("{}: lacks tensor {}", path_, name));
    }
    if (whole != nullptr && whole->digest != digest_.value() && damage_.size() == known) {
      damage_.push_back(
          fmt::format("{}: its header is damaged: the file has the digest {}, {} was written",
                      path_, DigestText(digest_.value()), DigestText(whole->digest)));
    }
    return {};
  }

 private:
  Status Hash(int64_t begin, int64_t end, DigestStream* also) {
    while (begin < end) {
      piece_.resize(static_cast<size_t>(std::min(end - begin, kPieceBytes)));
      RETURN_IF_ERROR(file_.ReadAt(begin, piece_));
      digest_.Update(piece_);
      if (also != nullptr) also->Update(piece_);
      begin += static_cast<int64_t>(piece_.size());
    }
    return {};
  }

  const ReadableFile& file_;
  const std::string& path_;
  std::vector<std::string>& damage_;
  DigestStream digest_{};
  std::vector<std::byte> piece_{};
};

}  // namespace

Result<const CheckpointReader::OpenFile*> CheckpointReader::Open(const std::string& name) {
  if (const auto open = open_.find(name); open != open_.end()) return &open->second;
  OpenFile one{.path = JoinPath(folder_, name)};
  ASSIGN_OR_RETURN(one.file, files_.OpenForRead(one.path));
  ASSIGN_OR_RETURN(one.header, ReadSafetensorsHeader(*one.file, one.path));
  return &open_.emplace(name, std::move(one)).first->second;
}

Status CheckpointReader::Read(const std::map<std::string, CheckpointTensor>& tensors,
                              const std::string& name, const std::vector<int64_t>& shape,
                              std::span<std::byte> out) {
  const auto tensor = tensors.find(name);
  if (tensor == tensors.end() || tensor->second.shape != shape) {
    return MakeError(ErrorCode::kCorrupt, "{}: the manifest has no {} of this shape", folder_,
                     name);
  }
  ASSIGN_OR_RETURN(const OpenFile* open, Open(tensor->second.file));
  const auto entry = std::ranges::find_if(
      open->header.tensors, [&](const TensorEntry& one) { return one.spec.name == name; });
  if (entry == open->header.tensors.end() || entry->spec.shape != shape) {
    return MakeError(ErrorCode::kCorrupt, "{}: lacks tensor {} of this shape", open->path, name);
  }
  if (entry->spec.dtype != TensorDtype::kF32 ||
      !std::cmp_equal(TensorBytes(entry->spec), out.size())) {
    return MakeError(ErrorCode::kCorrupt, "{}: tensor {} is no float32", open->path, name);
  }
  RETURN_IF_ERROR(open->file->ReadAt(open->header.data_begin + entry->begin, out));
  if (!tensor->second.digest) return {};
  const uint64_t digest = DigestOf(out);
  if (digest == *tensor->second.digest) return {};
  return OtherBytes(open->path, name, digest, *tensor->second.digest);
}

Result<CheckpointReport> CheckCheckpoint(FileSystem& files, const std::string& folder) {
  ASSIGN_OR_RETURN(FoundCheckpoint found, ReadCommittedCheckpoint(files, folder));
  CheckpointReport report{.manifest = std::move(found.manifest)};
  report.has_digests = !report.manifest.files.empty();
  std::map<std::string, std::map<std::string, CheckpointTensor>> by_file;
  for (const auto& [name, tensor] : AllTensors(report.manifest))
    by_file[tensor.file][name] = tensor;
  for (const auto& [name, tensors] : by_file) {
    const std::string path = JoinPath(folder, name);
    auto file = files.OpenForRead(path);
    if (!file.ok()) {
      report.damage.push_back(file.error().message);
      continue;
    }
    const auto whole = report.manifest.files.find(name);
    const Status checked =
        FileCheck(**file, path, report.damage)
            .Run(tensors, whole == report.manifest.files.end() ? nullptr : &whole->second);
    if (!checked.ok()) report.damage.push_back(checked.error().message);
  }
  return report;
}

}  // namespace troupe
