#include "coordinator/report/record_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/runtime/actor/manual_clock.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/temporary_folder.h"

namespace troupe::testing {
namespace {

using ::testing::HasSubstr;

class RecordFileTest : public ::testing::Test {
 protected:
  std::string Text() {
    auto text = SystemFiles().ReadFile(path_, 1 << 24);
    return text.ok() ? *text : "missing";
  }

  TemporaryFolder folder_;
  const std::string path_ = folder_ / "deep/lines";
  ManualClock clock_;
  FaultyFileSystem files_;
  RecordFile file_{files_, clock_, path_};
};

TEST_F(RecordFileTest, EveryTornWriteIsCompletedAndNoLineIsDoubled) {
  std::string wanted;
  for (int room = 0; room < 12; ++room) {
    const std::string line = fmt::format("line {:03}\n", room);
    wanted += line;
    files_.SetFaults({.full_after_bytes = files_.num_bytes_written() + room});
    file_.Append(line);
    clock_.AdvanceMs(RecordFile::kRetryMs + 1);
  }
  files_.SetFaults({});
  file_.Close();
  EXPECT_EQ(Text(), wanted);
  EXPECT_EQ(file_.num_missing(), 0);
  EXPECT_EQ(file_.num_lines(), 12);
}

TEST_F(RecordFileTest, AppendsToWhatAnEarlierRunLeft) {
  ASSERT_TRUE(SystemFiles().CreateDirectories(folder_ / "deep").ok());
  ASSERT_TRUE(WriteFileAtomically(SystemFiles(), path_, "earlier\n").ok());
  files_.SetFaults({.full_after_bytes = 3});
  file_.Append("later\n");
  files_.SetFaults({});
  file_.Close();
  EXPECT_EQ(Text(), "earlier\nlater\n");
}

TEST_F(RecordFileTest, TriesAgainOnlyAfterAWhile) {
  files_.SetFaults({.fail_write = 0});
  file_.Append("a\n");
  const int64_t tries = files_.num_writes();
  file_.Append("b\n");
  EXPECT_EQ(files_.num_writes(), tries);
  EXPECT_EQ(file_.num_missing(), 2);
  EXPECT_THAT(file_.trouble(), HasSubstr("injected fault"));
  clock_.AdvanceMs(RecordFile::kRetryMs);
  file_.Append("c\n");
  EXPECT_EQ(files_.num_writes(), tries + 1);
}

TEST_F(RecordFileTest, KeepsNoMoreThanItsBound) {
  files_.SetFaults({.fail_write = 0});
  std::string line(1 << 20, 'x');
  line += '\n';
  for (int i = 0; i < 20; ++i) file_.Append(line);
  files_.SetFaults({});
  file_.Close();
  EXPECT_EQ(file_.num_lines(), 20);
  EXPECT_EQ(file_.num_missing(), 13) << "8 MiB hold seven of them";
  EXPECT_EQ(Text().size(), 7 * line.size());
}

TEST_F(RecordFileTest, CountsWhatWasRemovedOrCut) {
  file_.Append("a\nb\n");
  ASSERT_TRUE(SystemFiles().RemoveAll(folder_ / "deep").ok());
  file_.Append("c\n");
  EXPECT_EQ(file_.num_missing(), 2);
  EXPECT_THAT(file_.trouble(), HasSubstr("was removed while the job ran"));
  EXPECT_EQ(Text(), "c\n");
  ASSERT_TRUE(WriteFileAtomically(SystemFiles(), path_, "").ok());
  file_.Append("d\n");
  file_.Close();
  EXPECT_EQ(file_.num_missing(), 3);
  EXPECT_EQ(Text(), "d\n");
}

}  // namespace
}  // namespace troupe::testing
