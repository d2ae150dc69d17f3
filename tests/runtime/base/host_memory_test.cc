#include "runtime/base/host_memory.h"

#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using testing::TemporaryFolder;

constexpr int64_t kGibibyte = int64_t{1} << 30;

class HostMemoryTest : public ::testing::Test {
 protected:
  HostMemoryTest() {
    Write("/proc/meminfo",
          "MemTotal:       16777216 kB\nMemFree:         1000 kB\nMemAvailable:    8388608 kB\n");
  }
  void Write(const std::string& path, const std::string& text) {
    ASSERT_TRUE(SystemFiles().CreateDirectories(folder_.path() + FolderOf(path)).ok());
    folder_.Write(path.substr(1), text);
  }
  HostMemory Read() {
    const auto memory = ReadHostMemory(SystemFiles(), folder_.path());
    CHECK(memory.has_value());
    return *memory;
  }
  const TemporaryFolder folder_{};
};

TEST_F(HostMemoryTest, WithoutLimitsItIsTheHosts) {
  const HostMemory memory = Read();
  EXPECT_EQ(memory.total_bytes, 16 * kGibibyte);
  EXPECT_EQ(memory.available_bytes, 8 * kGibibyte);
  EXPECT_EQ(memory.bound, "host");
}

TEST_F(HostMemoryTest, EveryLevelOfACgroupOfVersionTwoLimits) {
  Write("/proc/self/cgroup", "0::/slice/job\n");
  Write("/sys/fs/cgroup/slice/job/memory.max", "max\n");
  Write("/sys/fs/cgroup/slice/memory.max", "4294967296\n");
  Write("/sys/fs/cgroup/slice/memory.current", "3221225472\n");
  Write("/sys/fs/cgroup/slice/memory.stat", "anon 1\ninactive_file 1073741824\n");
  const HostMemory memory = Read();
  EXPECT_EQ(memory.total_bytes, 4 * kGibibyte);
  EXPECT_EQ(memory.available_bytes, 2 * kGibibyte) << "file pages that nobody needs may go";
  EXPECT_EQ(memory.bound, folder_.path() + "/sys/fs/cgroup/slice/memory.max");
}

TEST_F(HostMemoryTest, VersionOneIsFoundByItsController) {
  Write("/proc/self/cgroup", "9:name=systemd:/\n5:cpu,memory:/docker/1\n0::/docker/1\n");
  // In a container the mount begins at the process's own level.
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n");
  Write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "2147483648\n");
  const HostMemory memory = Read();
  EXPECT_EQ(memory.total_bytes, kGibibyte);
  EXPECT_EQ(memory.available_bytes, 0);
}

TEST_F(HostMemoryTest, WhatIsNoLimitDoesNotCount) {
  Write("/proc/self/cgroup", "5:memory:/\nnonsense\n7:memory\n0::relative\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(Read().total_bytes, 16 * kGibibyte);
  EXPECT_EQ(Read().bound, "host");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "many\n");
  EXPECT_EQ(Read().total_bytes, 16 * kGibibyte);
}

TEST_F(HostMemoryTest, AnUnknownHostIsUnknown) {
  const TemporaryFolder empty;
  EXPECT_FALSE(ReadHostMemory(SystemFiles(), empty.path()).has_value());
  Write("/proc/meminfo", "MemTotal: 99999999999999999999 kB\n");
  EXPECT_FALSE(ReadHostMemory(SystemFiles(), folder_.path()).has_value());
  const auto here = ReadHostMemory(SystemFiles());
  ASSERT_TRUE(here.has_value());
  EXPECT_GT(here->available_bytes, 0);
  EXPECT_LE(here->available_bytes, here->total_bytes);
}

TEST_F(HostMemoryTest, CountsWhomTheKernelKilledForMemory) {
  EXPECT_FALSE(ReadOomKills(SystemFiles(), folder_.path()).has_value());
  Write("/proc/self/cgroup", "0::/slice/job\n");
  Write("/sys/fs/cgroup/slice/memory.events", "low 1\noom 4\noom_kill 3\noom_group_kill 0\n");
  EXPECT_EQ(ReadOomKills(SystemFiles(), folder_.path()), 3) << "the nearest that tells";
  Write("/sys/fs/cgroup/slice/job/memory.events", "oom_kill 2\n");
  EXPECT_EQ(ReadOomKills(SystemFiles(), folder_.path()), 2);
  Write("/proc/self/cgroup", "5:cpu,memory:/docker/1\n0::/\n");
  Write("/sys/fs/cgroup/memory/memory.oom_control",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n");
  EXPECT_EQ(ReadOomKills(SystemFiles(), folder_.path()), 5) << "version 1, mounted from below";
}

}  // namespace
}  // namespace troupe
