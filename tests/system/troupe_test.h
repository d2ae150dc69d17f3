// A folder with a small job and its text, and the real `troupe` in it.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include <nlohmann/json.hpp>

#include "runtime/base/file_system.h"
#include "tests/support/shell.h"
#include "tests/support/small_job.h"

namespace troupe::testing {

class TroupeTest : public ::testing::Test {
 protected:
  TroupeTest() { WriteSmallJob(folder_); }
  ShellResult Troupe(const std::string& arguments) {
    return Shell("cd " + folder_.path() + " && " TROUPE_BINARY_DIR "/bin/troupe " + arguments);
  }
  // Null where it cannot be read.
  nlohmann::json ReadJson(const std::string& name) {
    const auto text = SystemFiles().ReadFile(folder_ / name, 1 << 20);
    return text.ok() ? nlohmann::json::parse(*text) : nlohmann::json();
  }

  TemporaryFolder folder_;
};

}  // namespace troupe::testing
