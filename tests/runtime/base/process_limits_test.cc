#include "runtime/base/process_limits.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstdio>
#include <string>
#include <thread>

namespace troupe {
namespace {

// What CheckProcessLimits says in a process of its own under these limits, as its last word.
[[noreturn]] void Check(decltype(RLIMIT_NOFILE) resource, const rlimit& limit,
                        const ProcessNeeds& needs) {
  ::setrlimit(resource, &limit);
  const Status checked = CheckProcessLimits("a rank", needs);
  std::fprintf(stderr, "%s", checked.ok() ? "it fits" : checked.error().message.c_str());
  std::exit(0);
}

TEST(ProcessLimitsTest, BothNumbersAreSaid) {
  EXPECT_EXIT(Check(RLIMIT_NOFILE, {20, 20}, {.descriptors = 48}), testing::ExitedWithCode(0),
              "a rank needs 48 descriptors, ulimit -n leaves it 20: raise it");
  EXPECT_EXIT(Check(RLIMIT_FSIZE, {20 << 10, 20 << 10}, {.file_bytes = 8 << 20}),
              testing::ExitedWithCode(0),
              "a rank needs 8.0 MiB in a file or shared memory, ulimit -f leaves it 20.0 KiB");
}

TEST(ProcessLimitsTest, ASoftLimitOnDescriptorsIsRaised) {
  EXPECT_EXIT(Check(RLIMIT_NOFILE, {20, 200}, {.descriptors = 100}), testing::ExitedWithCode(0),
              "it fits");
  EXPECT_EXIT(Check(RLIMIT_NOFILE, {20, 90}, {.descriptors = 100}), testing::ExitedWithCode(0),
              "needs 100 descriptors, ulimit -n leaves it 90");
}

TEST(ProcessLimitsTest, WhatIsNotAskedForIsNotJudged) {
  EXPECT_EXIT(Check(RLIMIT_FSIZE, {1 << 20, 1 << 20}, {.descriptors = 3}),
              testing::ExitedWithCode(0), "it fits");
  EXPECT_EXIT(Check(RLIMIT_FSIZE, {RLIM_INFINITY, RLIM_INFINITY}, {.file_bytes = 8 << 20}),
              testing::ExitedWithCode(0), "it fits");
}

TEST(ProcessLimitsTest, MemoryThatRunsOutOnAThreadIsASentence) {
  EXPECT_EXIT(
      {
        SayWhereMemoryRunsOut("the last words\n");
        std::thread([] { std::string(static_cast<size_t>(1) << 62, 'x').clear(); }).join();
      },
      testing::ExitedWithCode(1), "the last words");
}

}  // namespace
}  // namespace troupe
