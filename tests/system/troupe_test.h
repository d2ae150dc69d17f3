// A folder with a small job and its text, and the real `troupe` in it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "runtime/base/file_system.h"
#include "tests/support/shell.h"
#include "tests/support/small_job.h"

namespace troupe::testing {

// Shell: starts a run in the background, waits until it steps, runs `then` with $run, $agent and
// $rank (the first of its ranks) set, and prints what the run printed and its exit code.
inline std::string Disturbed(const std::string& folder, const std::string& then,
                             const std::string& options = "") {
  return "cd " + folder +
         R"( && {
    )" TROUPE_BINARY_DIR R"(/bin/troupe run job.yaml --set train.steps=100000 --run-dir a )" +
         options + R"( >out 2>&1 &
    run=$!
    )" + AwaitLine("^step ", "out", "$run") +
         R"(    agent=$(pgrep -P $run -f 'troupe worker'); rank=$(pgrep -P $agent | head -1)
    )" + then +
         R"(
    wait $run; echo "code $?"; cat out; pgrep -P $agent; })";
}

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
  // The memory that the run in `run/` needed is what was predicted of it; activations at most that
  // where their peak hangs on when messages come.
  void CheckMemory(int num_ranks, const std::string& output, bool exact_activations = true) {
    const auto measured = ReadJson("run/memory.json");
    ASSERT_EQ(measured["ranks"].size(), static_cast<size_t>(num_ranks));
    for (const auto& row : measured["ranks"]) {
      for (const char* tag : {"params", "grads", "optimizer", "activations", "comm"}) {
        const auto peak = row["tags"][tag]["peak_bytes"].get<int64_t>();
        const auto predicted = row["tags"][tag]["predicted_bytes"].get<int64_t>();
        EXPECT_LE(peak, predicted) << tag << " of rank " << row["rank"] << "\n" << output;
        const std::string_view name(tag);
        if (name == "comm" || (name == "activations" && !exact_activations)) continue;
        EXPECT_EQ(peak, predicted) << tag << " of rank " << row["rank"] << "\n" << output;
      }
    }
  }
  // And so are the bytes that it sent.
  void CheckCommunication(const std::string& output) {
    const auto result = ReadJson("run/result.json");
    ASSERT_GT(result["communication"].size(), 0u) << output;
    for (const auto& row : result["communication"]) {
      for (const char* number : {"count", "bytes"}) {
        EXPECT_EQ(row["measured"][number], row["predicted"][number]) << row << "\n" << output;
      }
    }
  }

  TemporaryFolder folder_;
};

}  // namespace troupe::testing
