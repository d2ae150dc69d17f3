// A folder of its own for a test; gone with the object.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>

#include "runtime/base/check.h"
#include "runtime/base/file_system.h"

namespace troupe::testing {

class TemporaryFolder {
 public:
  TemporaryFolder() : path_(std::filesystem::path(::testing::TempDir()) / "troupe-XXXXXX") {
    CHECK(::mkdtemp(path_.data()) != nullptr, "{}", path_);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return JoinPath(path_, name); }

  // Writes `bytes` to a file of this folder and returns its path.
  std::string Write(std::string_view name, std::string_view bytes) const {
    const std::string path = *this / name;
    auto file = SystemFiles().OpenForWrite(path, WriteMode::kTruncate);
    CHECK(file.ok() && (*file)->Append(BytesOf(bytes)).ok(), "{}", path);
    return path;
  }

 private:
  std::string path_;
};

}  // namespace troupe::testing
