#include "runtime/format/checkpoint_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <set>
#include <utility>

#include "runtime/base/digest.h"

namespace troupe {
namespace {

constexpr int64_t kChunkBytes = int64_t{1} << 20;
constexpr int64_t kElementBytes = 4;  // of float32

Error OtherBytes(const std::string& path, const std::string& tensor, uint64_t is, uint64_t was) {
  return MakeError(ErrorCode::kCorrupt,
                   "{}: tensor {} is damaged: its bytes have the digest {}, {} were written", path,
                   tensor, DigestText(is), DigestText(was));
}

// What a file is to hold of a tensor.
struct ExpectedEntry {
  TensorDtype dtype = TensorDtype::kF32;
  std::vector<int64_t> shape{};
  std::optional<uint64_t> digest{};
};
using ExpectedEntries = std::map<std::string, ExpectedEntry>;  // by name

// Of both maps of a manifest, by file; of every file that it names.
std::map<std::string, ExpectedEntries> EntriesByFile(const CheckpointManifest& manifest) {
  std::map<std::string, ExpectedEntries> by_file;
  for (const auto& [name, file] : manifest.files) by_file[name];
  for (const CheckpointTensors* tensors : {&manifest.tensors, &manifest.optimizer_tensors}) {
    for (const auto& [name, tensor] : *tensors) {
      for (const CheckpointPiece& piece : tensor.pieces) {
        by_file[piece.file][name] = {tensor.dtype, ShapeOf(tensor, piece), piece.digest};
      }
    }
  }
  return by_file;
}

// Bytes [begin, end) of a stored tensor, read for the digest alone.
Status HashOnly(const StoredTensor& stored, int64_t begin, int64_t end, DigestStream& digest) {
  std::vector<std::byte> chunk;
  while (begin < end) {
    chunk.resize(static_cast<size_t>(std::min(end - begin, kChunkBytes)));
    RETURN_IF_ERROR(stored.Read(begin, chunk));
    digest.Update(chunk);
    begin += static_cast<int64_t>(chunk.size());
  }
  return {};
}

// Fills `out` from byte `begin` of a piece on.
Status ReadPart(const StoredTensor& stored, std::optional<uint64_t> written, int64_t begin,
                std::span<std::byte> out) {
  if (!written) return stored.Read(begin, out);
  DigestStream digest;
  RETURN_IF_ERROR(HashOnly(stored, 0, begin, digest));
  RETURN_IF_ERROR(stored.Read(begin, out));
  digest.Update(out);
  const int64_t end = begin + static_cast<int64_t>(out.size());
  RETURN_IF_ERROR(HashOnly(stored, end, stored.num_bytes(), digest));
  if (digest.value() == *written) return {};
  return OtherBytes(stored.file->path(), stored.entry->spec.name, digest.value(), *written);
}

// One file of a checkpoint, read from its first byte to its last.
class FileCheck {
 public:
  FileCheck(const ReadableFile& file, const std::string& path, std::vector<std::string>& damage)
      : file_(file), path_(path), damage_(damage) {}

  Status Run(const ExpectedEntries& expected, const CheckpointFile* whole) {
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
      const ExpectedEntry& was = wanted->second;
      if (entry.spec.shape != was.shape || entry.spec.dtype != was.dtype) {
        damage_.push_back(fmt::format("{}: tensor {} has another shape or dtype than the manifest",
                                      path_, entry.spec.name));
      } else if (whole != nullptr && was.digest && *was.digest != of_tensor.value()) {
        damage_.push_back(
            OtherBytes(path_, entry.spec.name, of_tensor.value(), *was.digest).message);
      }
    }
    for (const auto& [name, was] : expected) {
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
      chunk_.resize(static_cast<size_t>(std::min(end - begin, kChunkBytes)));
      RETURN_IF_ERROR(file_.ReadAt(begin, chunk_));
      digest_.Update(chunk_);
      if (also != nullptr) also->Update(chunk_);
      begin += static_cast<int64_t>(chunk_.size());
    }
    return {};
  }

  const ReadableFile& file_;
  const std::string& path_;
  std::vector<std::string>& damage_;
  DigestStream digest_{};
  std::vector<std::byte> chunk_{};
};

}  // namespace

Result<const SafetensorsFile*> CheckpointReader::Open(const std::string& name) {
  if (const auto open = open_.find(name); open != open_.end()) return &open->second;
  ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(files_, JoinPath(folder_, name)));
  return &open_.emplace(name, std::move(file)).first->second;
}

Result<StoredTensor> CheckpointReader::Find(const std::string& name, const CheckpointTensor& tensor,
                                            const CheckpointPiece& piece) {
  ASSIGN_OR_RETURN(const SafetensorsFile* file, Open(piece.file));
  const TensorEntry* entry = file->Find(name);
  if (entry == nullptr || entry->spec.shape != ShapeOf(tensor, piece) ||
      entry->spec.dtype != tensor.dtype) {
    return MakeError(ErrorCode::kCorrupt, "{}: lacks tensor {} of this shape and dtype",
                     file->path(), name);
  }
  return StoredTensor{entry, file};
}

Status CheckpointReader::Read(const CheckpointTensors& tensors, const std::string& name,
                              const std::vector<int64_t>& shape, int64_t first_element,
                              std::span<std::byte> out) {
  const auto found = tensors.find(name);
  if (found == tensors.end() || found->second.shape != shape) {
    return MakeError(ErrorCode::kCorrupt, "{}: the manifest has no {} of this shape", folder_,
                     name);
  }
  const CheckpointTensor& tensor = found->second;
  if (tensor.dtype != TensorDtype::kF32) {
    return MakeError(ErrorCode::kCorrupt, "{}: {} is no float32", folder_, name);
  }
  const int64_t begin = first_element * kElementBytes;  // of the tensor's bytes
  const int64_t end = begin + static_cast<int64_t>(out.size());
  CHECK(begin >= 0 && end <= *NumElements(tensor) * kElementBytes, "{} has no bytes [{}, {})", name,
        begin, end);
  for (const CheckpointPiece& piece : tensor.pieces) {
    const int64_t piece_begin = piece.first_element * kElementBytes;
    const int64_t part_begin = std::max(begin, piece_begin);
    const int64_t part_end = std::min(end, piece_begin + piece.num_elements * kElementBytes);
    if (part_begin >= part_end) continue;
    ASSIGN_OR_RETURN(const StoredTensor stored, Find(name, tensor, piece));
    RETURN_IF_ERROR(ReadPart(stored, piece.digest, part_begin - piece_begin,
                             out.subspan(static_cast<size_t>(part_begin - begin),
                                         static_cast<size_t>(part_end - part_begin))));
  }
  return {};
}

Result<CheckpointReport> CheckCheckpoint(FileSystem& files, const std::string& folder) {
  ASSIGN_OR_RETURN(FoundCheckpoint found, ReadCommittedCheckpoint(files, folder));
  CheckpointReport report{.manifest = std::move(found.manifest)};
  report.has_digests = !report.manifest.files.empty();
  for (const auto& [name, entries] : EntriesByFile(report.manifest)) {
    const std::string path = JoinPath(folder, name);
    auto file = files.OpenForRead(path);
    if (!file.ok()) {
      report.damage.push_back(file.error().message);
      continue;
    }
    const auto whole = report.manifest.files.find(name);
    const Status checked =
        FileCheck(**file, path, report.damage)
            .Run(entries, whole == report.manifest.files.end() ? nullptr : &whole->second);
    if (!checked.ok()) report.damage.push_back(checked.error().message);
  }
  return report;
}

}  // namespace troupe
