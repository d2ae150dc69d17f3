#include "runtime/base/file_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

TEST(FileLockTest, OneHolderAtATimeAndTheNextOneIsToldWho) {
  const testing::TemporaryFolder folder;
  const std::string path = folder / "lock";
  auto first = LockFile(path, "job 1");
  ASSERT_TRUE(first.ok());
  const auto second = LockFile(path, "job 2");
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(second.error().message, path + ": held by job 1");
  first->reset();
  EXPECT_TRUE(LockFile(path, "job 2").ok());
}

TEST(FileLockTest, AHolderThatDiesLetsGo) {
  const testing::TemporaryFolder folder;
  const std::string path = folder / "lock";
  const pid_t child = ::fork();
  if (child == 0) {
    const auto lock = LockFile(path, "a child");
    ::_exit(lock.ok() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_TRUE(LockFile(path, "its parent").ok());
}

TEST(FileLockTest, KnowsThatItsFolderWasMovedOrRemoved) {
  const testing::TemporaryFolder folder;
  std::filesystem::create_directory(folder / "a");
  const auto lock = *LockFile(folder / "a/lock", "job 1");
  EXPECT_TRUE(lock->StillNamed());
  std::filesystem::rename(folder / "a", folder / "b");
  EXPECT_FALSE(lock->StillNamed());
  std::filesystem::create_directory(folder / "a");
  const auto other = LockFile(folder / "a/lock", "job 2");
  EXPECT_TRUE(other.ok()) << "another folder, another lock";
  EXPECT_FALSE(lock->StillNamed());
  EXPECT_FALSE(LockFile(folder / "b/lock", "job 3").ok()) << "the first is held where it went";
}

TEST(FileLockTest, WaitsForNoFifoAndSaysWhatIsWrong) {
  const testing::TemporaryFolder folder;
  const std::string fifo = folder / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const auto lock = LockFile(fifo, "x");
  ASSERT_FALSE(lock.ok());
  EXPECT_THAT(lock.error().message, HasSubstr("not a regular file"));
  EXPECT_THAT(LockFile(folder / "no/such/lock", "x").error().message, HasSubstr("cannot lock"));
}

}  // namespace
}  // namespace troupe
