#include "runtime/format/checkpoint_owner.h"

#include <fmt/format.h>

namespace troupe {
namespace {

constexpr std::string_view kOwnerName = "owner";
constexpr int64_t kOwnerMaxBytes = 4096;

}  // namespace

Status TakeOwnership(FileSystem& files, const std::string& checkpoints_dir,
                     const std::string& owner) {
  if (owner.empty()) return {};
  RETURN_IF_ERROR(files.CreateDirectories(checkpoints_dir));
  return WriteFileAtomically(files, JoinPath(checkpoints_dir, kOwnerName), owner + "\n");
}

Status CheckOwner(FileSystem& files, const std::string& checkpoints_dir, const std::string& owner) {
  if (owner.empty()) return {};
  const auto read = files.ReadFile(JoinPath(checkpoints_dir, kOwnerName), kOwnerMaxBytes);
  if (!read.ok() && read.error().code == ErrorCode::kNotFound) {
    return TakeOwnership(files, checkpoints_dir, owner);
  }
  if (!read.ok()) return read.error();
  const std::string& now = *read;
  if (now == owner + "\n") return {};
  return MakeError(ErrorCode::kStale,
                   "{}: another start of the job writes here now ({}): this one ({}) ends and "
                   "leaves its checkpoints alone",
                   checkpoints_dir, now.substr(0, now.find('\n')), owner);
}

}  // namespace troupe
