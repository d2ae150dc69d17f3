#include "runtime/base/file_system.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "tests/support/faulty_file_system.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using testing::FaultyFileSystem;
using testing::FileFaults;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

std::string TextOf(const std::string& path) {
  auto text = SystemFiles().ReadFile(path, 1 << 20);
  return text.ok() ? *text : "<" + text.error().message + ">";
}

TEST(SystemFilesTest, WritesAppendsAndReads) {
  const TemporaryFolder folder;
  const std::string path = folder / "a";
  for (const auto mode : {WriteMode::kTruncate, WriteMode::kAppend}) {
    auto file = *SystemFiles().OpenForWrite(path, mode);
    ASSERT_TRUE(file->Append(BytesOf("one ")).ok());
    ASSERT_TRUE(file->Append(BytesOf("two ")).ok());
    ASSERT_TRUE(file->Sync().ok());
    ASSERT_TRUE(file->Close().ok());
    ASSERT_TRUE(file->Close().ok());
  }
  EXPECT_EQ(TextOf(path), "one two one two ");
  EXPECT_EQ(*SystemFiles().FileBytes(path), 16);
  ASSERT_TRUE(SystemFiles().OpenForWrite(path, WriteMode::kTruncate).ok());
  EXPECT_EQ(TextOf(path), "");
}

TEST(SystemFilesTest, ReadFileKeepsItsBound) {
  const TemporaryFolder folder;
  const std::string path = folder.Write("a", "12345");
  EXPECT_EQ(*SystemFiles().ReadFile(path, 5), "12345");
  const auto longer = SystemFiles().ReadFile(path, 4);
  ASSERT_FALSE(longer.ok());
  EXPECT_EQ(longer.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(longer.error().message, HasSubstr(path));
  // A file that does not say how long it is ends by the same bound.
  EXPECT_FALSE(SystemFiles().ReadFile("/dev/zero", 1 << 20).ok());
}

TEST(SystemFilesTest, AnOpenFileKeepsItsBytes) {
  const TemporaryFolder folder;
  const std::string path = folder.Write("a", "opened");
  const auto file = *SystemFiles().OpenForRead(path);
  ASSERT_TRUE(SystemFiles().RemoveAll(path).ok());
  EXPECT_EQ(file->Version()->num_bytes, 6);
  std::string bytes(4, '\0');
  ASSERT_TRUE(file->ReadAt(1, std::as_writable_bytes(std::span(bytes))).ok());
  EXPECT_EQ(bytes, "pene");
  EXPECT_EQ(file->ReadAt(3, std::as_writable_bytes(std::span(bytes))).error().code, ErrorCode::kIo);
}

TEST(SystemFilesTest, RefusesToReadWhatIsNoFile) {
  const TemporaryFolder folder;
  EXPECT_EQ(SystemFiles().OpenForRead(folder.path()).error().code, ErrorCode::kIo);
  const std::string fifo = folder / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(SystemFiles().OpenForRead(fifo).error().message, HasSubstr("not a regular file"));
  EXPECT_THAT(SystemFiles().ReadFile(fifo, 10).error().message, HasSubstr("not a regular file"));
}

TEST(SystemFilesTest, NamesPathAndKindOfFailure) {
  const TemporaryFolder folder;
  const std::string missing = folder / "no/such";
  for (const Error& error :
       {SystemFiles().ReadFile(missing, 10).error(), SystemFiles().OpenForRead(missing).error(),
        SystemFiles().List(missing).error(), SystemFiles().FileBytes(missing).error(),
        SystemFiles().OpenForWrite(missing, WriteMode::kTruncate).error(),
        SystemFiles().Rename(missing, folder / "b").error(),
        SystemFiles().SyncDirectory(missing).error()}) {
    EXPECT_EQ(error.code, ErrorCode::kNotFound) << error.message;
    EXPECT_THAT(error.message, HasSubstr(missing));
    EXPECT_THAT(error.message, HasSubstr("No such file"));
  }
  EXPECT_EQ(SystemFiles().ReadFile(folder.path(), 10).error().code, ErrorCode::kIo);
}

TEST(SystemFilesTest, AFullDiskIsOutOfSpace) {
  auto file = *SystemFiles().OpenForWrite("/dev/full", WriteMode::kTruncate);
  const Status status = file->Append(BytesOf("x"));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kOutOfSpace);
  EXPECT_THAT(status.error().message, HasSubstr("/dev/full"));
}

TEST(SystemFilesTest, FoldersAreMadeListedAndRemoved) {
  const TemporaryFolder folder;
  FileSystem& files = SystemFiles();
  ASSERT_TRUE(files.CreateDirectories(folder / "x/y").ok());
  ASSERT_TRUE(files.CreateDirectories(folder / "x/y").ok());
  folder.Write("x/b", "");
  folder.Write("x/a", "");
  EXPECT_THAT(*files.List(folder / "x"), ElementsAre("a", "b", "y"));
  ASSERT_TRUE(files.SyncDirectory(folder / "x").ok());
  ASSERT_TRUE(files.Rename(folder / "x/a", folder / "x/b").ok());
  EXPECT_THAT(*files.List(folder / "x"), ElementsAre("b", "y"));
  ASSERT_TRUE(files.RemoveAll(folder / "x").ok());
  EXPECT_FALSE(files.Exists(folder / "x"));
  EXPECT_TRUE(files.RemoveAll(folder / "x").ok());
  EXPECT_FALSE(files.CreateDirectories(folder.Write("file", "") + "/under").ok());
  EXPECT_GT(*files.FreeBytes(folder.path()), 0);
}

TEST(SystemFilesTest, ALinkIsPointedAndPointedAgain) {
  const TemporaryFolder folder;
  folder.Write("one", "1");
  folder.Write("two", "2");
  for (const std::string target : {"one", "two"}) {
    ASSERT_TRUE(SystemFiles().PointLink(folder / "latest", target).ok());
    EXPECT_EQ(*SystemFiles().ReadLink(folder / "latest"), target);
  }
  EXPECT_EQ(*SystemFiles().ReadFile(folder / "latest", 10), "2");
  EXPECT_EQ(SystemFiles().List(folder.path())->size(), 3u) << "nothing is left beside it";
  const Status in_the_way = SystemFiles().PointLink(folder / "one", "two");
  ASSERT_FALSE(in_the_way.ok());
  EXPECT_THAT(in_the_way.error().message, HasSubstr(folder / "one: something else than a link"));
  EXPECT_EQ(*SystemFiles().ReadFile(folder / "one", 10), "1");
  EXPECT_FALSE(SystemFiles().ReadLink(folder / "one").ok());
  EXPECT_EQ(SystemFiles().ReadLink(folder / "none").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(SystemFiles().PointLink(folder / "no/link", "two").error().code, ErrorCode::kNotFound);
}

TEST(WriteFileAtomicallyTest, SyncsBeforeItRenames) {
  const TemporaryFolder folder;
  FaultyFileSystem files;
  ASSERT_TRUE(WriteFileAtomically(files, folder / "a", "new").ok());
  EXPECT_EQ(TextOf(folder / "a"), "new");
  const std::string name = folder.path().substr(folder.path().rfind('/') + 1);
  EXPECT_THAT(files.calls(), ElementsAre("write a.partial", "sync a.partial", "rename a.partial a",
                                         "sync-folder " + name));
}

TEST(WriteFileAtomicallyTest, LeavesTheOldBytesWhateverFails) {
  for (const FileFaults& faults : {FileFaults{.full_after_bytes = 2}, FileFaults{.fail_write = 1},
                                   FileFaults{.fail_sync = 1}, FileFaults{.fail_rename = 1}}) {
    const TemporaryFolder folder;
    folder.Write("a", "old");
    FaultyFileSystem files(faults);
    const Status status = WriteFileAtomically(files, folder / "a", "new text");
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code,
              faults.full_after_bytes == 2 ? ErrorCode::kOutOfSpace : ErrorCode::kIo);
    EXPECT_EQ(TextOf(folder / "a"), "old");
    EXPECT_THAT(*SystemFiles().List(folder.path()), ElementsAre("a"));
  }
}

TEST(ReplaceFileTest, RenamesWithoutWaitingForADisk) {
  const TemporaryFolder folder;
  folder.Write("a", "old");
  FaultyFileSystem files;
  ASSERT_TRUE(ReplaceFile(files, folder / "a", "new").ok());
  EXPECT_EQ(TextOf(folder / "a"), "new");
  EXPECT_THAT(files.calls(), ElementsAre("write a.partial", "rename a.partial a"));
  FaultyFileSystem failing({.fail_rename = 1});
  EXPECT_FALSE(ReplaceFile(failing, folder / "a", "newer").ok());
  EXPECT_EQ(TextOf(folder / "a"), "new");
  EXPECT_THAT(*SystemFiles().List(folder.path()), ElementsAre("a"));
}

TEST(PathTest, JoinsAndSplits) {
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "b"), "a/b");
  EXPECT_EQ(JoinPath("", "b"), "b");
  EXPECT_EQ(FolderOf("a/b"), "a");
  EXPECT_EQ(FolderOf("a/b/"), "a");
  EXPECT_EQ(FolderOf("b"), ".");
  EXPECT_EQ(FolderOf("/b"), "/");
  EXPECT_EQ(FolderOf("/"), "/");
}

TEST(SystemFilesTest, AFifoInAFilesPlaceIsRefusedWithoutWaiting) {
  const TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0644), 0);
  for (const WriteMode mode : {WriteMode::kTruncate, WriteMode::kAppend}) {
    EXPECT_THAT(SystemFiles().OpenForWrite(folder / "fifo", mode).error().message,
                HasSubstr("fifo: cannot write: not a regular file"));
    // With a reader at its other end too.
    const int reader = ::open((folder / "fifo").c_str(), O_RDONLY | O_NONBLOCK);
    EXPECT_FALSE(SystemFiles().OpenForWrite(folder / "fifo", mode).ok());
    ::close(reader);
  }
}

TEST(SystemFilesTest, AFileAtItsAllowedSizeIsASentence) {
  const TemporaryFolder folder;
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = 1000;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  auto file = *SystemFiles().OpenForWrite(folder / "file", WriteMode::kTruncate);
  ::setrlimit(RLIMIT_FSIZE, &small);
  const Status written = file->Append(BytesOf(std::string(2000, 'x')));
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.error().code, ErrorCode::kOutOfSpace);
  EXPECT_THAT(written.error().message, HasSubstr("raise the limit on a file's size (ulimit -f)"));
}

}  // namespace
}  // namespace troupe
