// Safetensors, the file format of the weights: u64 little-endian header length, JSON header, then
// the tensors' bytes, row-major and little-endian. https://github.com/huggingface/safetensors
// Readers are used by ranks that load a model or a checkpoint, writers by the checkpoint actors;
// one object belongs to one thread.
//
// 1. A file that opens is whole: every offset lies inside, the tensors tile the data section
//    without hole or overlap, and every range has exactly shape x dtype bytes.
//    Otherwise opening fails with one sentence naming file and tensor, before any tensor byte
//    is used.
// 2. A writer knows all names and shapes before the first byte, so tensors stream through it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/digest.h"
#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

enum class TensorDtype : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kI16,
  kU16,
  kF16,
  kBf16,
  kI32,
  kU32,
  kF32,
  kF64,
  kI64,
  kU64,
};
std::string_view TensorDtypeName(TensorDtype dtype);  // "F32", "BF16", …
std::optional<TensorDtype> ParseTensorDtype(std::string_view name);
int64_t TensorDtypeBytes(TensorDtype dtype);

// What a writer has to know of a tensor. An empty shape is a scalar.
struct TensorSpec {
  std::string name;
  TensorDtype dtype = TensorDtype::kF32;
  std::vector<int64_t> shape;
};
int64_t TensorBytes(const TensorSpec& spec);

// A tensor of an open file.
struct TensorEntry {
  TensorSpec spec;
  int64_t begin = 0;  // bytes from the start of the data section
  int64_t end = 0;
};

using SafetensorsMetadata = std::map<std::string, std::string>;

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;  // ascending by offset
  SafetensorsMetadata metadata;
  int64_t data_begin = 0;  // bytes from the start of the file
};

// Reads no byte of a tensor. `path` is for the messages.
Result<SafetensorsHeader> ReadSafetensorsHeader(const ReadableFile& file, const std::string& path);

// One open file.
class SafetensorsFile {
 public:
  static Result<SafetensorsFile> Open(FileSystem& files, const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<TensorEntry>& tensors() const { return header_.tensors; }
  const SafetensorsMetadata& metadata() const { return header_.metadata; }
  const TensorEntry* Find(std::string_view name) const;  // null when absent
  // Fills `out` with the tensor's bytes from `begin` on; kIo where the file was cut since Open.
  Status Read(const TensorEntry& entry, int64_t begin, std::span<std::byte> out) const;

 private:
  std::string path_;
  std::unique_ptr<ReadableFile> file_;
  SafetensorsHeader header_;
  std::map<std::string, size_t, std::less<>> index_;
};

// A tensor and where it lies. Valid as long as the file or folder that gave it.
struct StoredTensor {
  const TensorEntry* entry = nullptr;
  const SafetensorsFile* file = nullptr;

  int64_t num_bytes() const { return entry->end - entry->begin; }
  Status Read(int64_t begin, std::span<std::byte> out) const {
    return file->Read(*entry, begin, out);
  }
};

// Reads both in pieces, to the first difference.
Result<bool> HaveSameBytes(const StoredTensor& a, const StoredTensor& b);

// A folder with model.safetensors, or with several files named by model.safetensors.index.json.
// With both, as in transformers, the single file counts.
class SafetensorsFolder {
 public:
  static Result<SafetensorsFolder> Open(FileSystem& files, const std::string& folder);

  const std::string& path() const { return folder_; }
  // All names, ascending; of the files too that an index forgets.
  std::vector<std::string> Names() const;
  std::optional<StoredTensor> Find(std::string_view name) const;
  // Find, or one sentence that names folder and tensor when it is absent, or its shape differs.
  Result<StoredTensor> Require(std::string_view name, std::span<const int64_t> shape) const;

 private:
  std::string folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t, std::less<>> file_of_;  // tensor name -> index into files_
};

// Writes one file. The tensors' bytes are appended in the order of `tensors`, in pieces of any
// size. The file is durable after Finish; making it visible (rename of it or its folder) is the
// caller's.
class SafetensorsWriter {
 public:
  static Result<SafetensorsWriter> Create(FileSystem& files, const std::string& path,
                                          const std::vector<TensorSpec>& tensors,
                                          const SafetensorsMetadata& metadata = {{"format", "pt"}});
  Status Append(std::span<const std::byte> bytes);
  // Fails when fewer bytes came than were declared; then syncs and closes.
  Status Finish();
  // Of the whole file so far, header and all.
  int64_t num_bytes() const { return num_bytes_; }
  uint64_t digest() const { return digest_.value(); }

 private:
  Status Write(std::span<const std::byte> bytes);

  std::string path_;
  int64_t num_bytes_ = 0;
  DigestStream digest_;
  std::unique_ptr<WritableFile> file_;
  int64_t missing_bytes_ = 0;
};

}  // namespace troupe
