// What a file holds, told by its size and a digest: the same bytes under another path, or on
// another machine, are the same content. Cheap for files of any size. Used by ranks for what they
// train on, by checkpoints to remember it, and by the job door to compare. Thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

struct ContentIdentity {
  int64_t num_bytes = 0;
  uint64_t digest = 0;
  bool operator==(const ContentIdentity&) const = default;
};

// Files up to this long are read whole; of longer ones the first and the last MiB and 1,024 blocks
// of 64 KiB at even distances.
inline constexpr int64_t kWholeContentBytesMax = int64_t{256} << 20;

// xxh3 of the size (8 bytes, little-endian) and the bytes that are read, in ascending order, of the
// first `num_bytes` of `file`.
Result<ContentIdentity> IdentityOf(const ReadableFile& file, int64_t num_bytes);
Result<ContentIdentity> IdentityOfFile(FileSystem& files, const std::string& path);
// Of all .safetensors files of a folder together: sum of sizes, digest of their digests by
// ascending name. Names and other files do not count.
Result<ContentIdentity> IdentityOfWeights(FileSystem& files, const std::string& folder);

// What differs: "had 4096 bytes, has 5000", or "has as many bytes as before (4096), but others
// (…)"; empty where nothing does.
std::string Difference(const ContentIdentity& was, const ContentIdentity& is);

}  // namespace troupe
