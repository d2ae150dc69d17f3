// FileLock: a file that one holder has for itself, over processes and, where the file system passes
// locks on, over hosts. The kernel lets go of it when its process ends, however it ends.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "runtime/base/result.h"

namespace troupe {

// Held until destroyed.
class FileLock {
 public:
  FileLock() = default;
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  virtual ~FileLock() = default;
  // False once the path names another file, or none: its folder was removed or moved away.
  virtual bool StillNamed() const = 0;
};

// Makes the file `path` where it is missing, and takes it without waiting. `holder`, one line, is
// left in it for whoever is refused: kResourceExhausted, "PATH: held by HOLDER".
Result<std::unique_ptr<FileLock>> LockFile(const std::string& path, std::string_view holder);

}  // namespace troupe
