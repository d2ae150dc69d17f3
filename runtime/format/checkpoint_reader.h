// Reads the tensors of a checkpoint and compares them with the digests that the manifest holds, so
// that a flipped bit is named instead of trained on. Used by ranks that resume (their own tensors),
// by the job door and by `troupe ckpt` (all of them). One object belongs to one thread.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/file_system.h"
#include "runtime/base/result.h"
#include "runtime/format/checkpoint_manifest.h"

namespace troupe {

class CheckpointReader {
 public:
  CheckpointReader(FileSystem& files, std::string folder)
      : files_(files), folder_(std::move(folder)) {}

  // Fills `out` with the float32 tensor `name`, where the manifest and the file have it with this
  // shape; kCorrupt names file and tensor where they do not, or where the bytes are not those that
  // were written.
  Status Read(const std::map<std::string, CheckpointTensor>& tensors, const std::string& name,
              const std::vector<int64_t>& shape, std::span<std::byte> out);

 private:
  struct OpenFile {
    std::string path{};
    std::unique_ptr<ReadableFile> file{};
    SafetensorsHeader header{};
  };
  Result<const OpenFile*> Open(const std::string& name);

  FileSystem& files_;
  const std::string folder_;
  std::map<std::string, OpenFile> open_{};
};

struct CheckpointReport {
  CheckpointManifest manifest{};
  bool has_digests = false;           // false: of an earlier build, only its shape is checked
  std::vector<std::string> damage{};  // a sentence each, with file and tensor; empty: all is well
};

// Reads every byte. An error where the manifest cannot be read.
Result<CheckpointReport> CheckCheckpoint(FileSystem& files, const std::string& folder);

}  // namespace troupe
