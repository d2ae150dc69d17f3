// Reads the tensors of a checkpoint and compares them with the digests that the manifest holds, so
// that a flipped bit is named instead of trained on. Used by ranks that resume (their own tensors),
// by the job door and by `troupe ckpt` (all of them). One object belongs to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
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

  // Fills `out` with elements of the float32 tensor `name`, from `first_element` on, from whichever
  // pieces they lie in; `shape` is the whole tensor's, which has them. kCorrupt names file and
  // tensor where manifest and file do not have it with this shape, or where the bytes of a piece
  // are not those that were written: a piece is read through, and compared, also where only a part
  // of it is wanted. Without a digest (of an earlier build) no more than that part is read.
  Status Read(const CheckpointTensors& tensors, const std::string& name,
              const std::vector<int64_t>& shape, int64_t first_element, std::span<std::byte> out);

 private:
  Result<const SafetensorsFile*> Open(const std::string& name);
  // Where the piece of `tensor`, called `name`, lies.
  Result<StoredTensor> Find(const std::string& name, const CheckpointTensor& tensor,
                            const CheckpointPiece& piece);

  FileSystem& files_;
  const std::string folder_;
  std::map<std::string, SafetensorsFile> open_{};  // by name
};

struct CheckpointReport {
  CheckpointManifest manifest{};
  bool has_digests = false;           // false: of an earlier build, only its shape is checked
  std::vector<std::string> damage{};  // a sentence each, with file and tensor; empty: all is well
};

// Reads every byte. An error where the manifest cannot be read.
Result<CheckpointReport> CheckCheckpoint(FileSystem& files, const std::string& folder);

}  // namespace troupe
