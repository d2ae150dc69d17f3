#include "coordinator/ops/read_logs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "tests/coordinator/harness.h"

namespace troupe {
namespace {

using ::testing::AnyOf;
using testing::Harness;
using ::testing::HasSubstr;
using testing::SmallJob;

class LogReaderTest : public ::testing::Test {
 protected:
  void Append(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary | std::ios::app) << text;
  }
  // Of what is there now: "2:text" a piece, "r0:text" of the reference run.
  static std::string All(LogReader& reader, bool complete = false) {
    std::string all;
    for (;;) {
      const auto lines = reader.Next(complete);
      EXPECT_TRUE(lines.ok()) << lines.error().message;
      if (!lines.ok() || !lines->has_value()) return all;
      all += ((*lines)->reference_run() ? "r" : "") + std::to_string((*lines)->rank()) + ":" +
             (*lines)->lines();
    }
  }

  const testing::TemporaryFolder folder_{};
};

TEST_F(LogReaderTest, GoesOnFromWhereItStood) {
  Append("rank-0000.log", "a\nb\n");
  Append("rank-0002.log", "c\n");
  Append("reference-rank-0000.log", "d\n");
  Append("agent.log", "of no rank\n");
  Append("rank-x.log", "of no rank\n");
  LogReader reader(folder_.path(), {});
  EXPECT_EQ(All(reader), "0:a\nb\n2:c\nr0:d\n");
  EXPECT_EQ(All(reader), "");
  Append("rank-0002.log", "e\n");
  Append("rank-0003.log", "f\n");
  EXPECT_EQ(All(reader), "2:e\n3:f\n") << "a rank that had printed nothing, too";
}

TEST_F(LogReaderTest, LinesComeWhole) {
  Append("rank-0000.log", "one\ntw");
  LogReader reader(folder_.path(), {});
  EXPECT_EQ(All(reader), "0:one\n");
  Append("rank-0000.log", "o\nend");
  EXPECT_EQ(All(reader), "0:two\n");
  EXPECT_EQ(All(reader, /*complete=*/true), "0:end");
  EXPECT_EQ(All(reader, /*complete=*/true), "");
}

TEST_F(LogReaderTest, ARankAloneIsNotTheReferenceRuns) {
  Append("rank-0000.log", "a\n");
  Append("rank-0001.log", "b\n");
  Append("reference-rank-0000.log", "c\n");
  LogReader reader(folder_.path(), 0);
  EXPECT_EQ(All(reader), "0:a\n");
}

TEST_F(LogReaderTest, LongAndForeignBytesComeInPieces) {
  const std::string line(3 * LogReader::kChunkBytesMax / 2, 'x');
  Append("rank-0000.log", line + "\n\xff\xfe\n");
  LogReader reader(folder_.path(), {});
  const std::string all = All(reader);
  EXPECT_THAT(all, HasSubstr("??\n"));
  EXPECT_EQ(std::ranges::count(all, 'x'), std::ssize(line));
}

TEST_F(LogReaderTest, WhoPrintsWithoutEndHoldsNobodyUp) {
  const std::string chunk(LogReader::kChunkBytesMax - 1, 'x');
  for (int i = 0; i < 3; ++i) Append("rank-0000.log", chunk + "\n");
  Append("rank-0001.log", "a\n");
  LogReader reader(folder_.path(), {});
  std::vector<int32_t> turns;
  for (int i = 0; i < 4; ++i) {
    const auto lines = reader.Next(/*complete=*/false);
    ASSERT_TRUE(lines.ok() && lines->has_value());
    turns.push_back((*lines)->rank());
    Append("rank-0000.log", chunk + "\n");
  }
  EXPECT_EQ(turns, (std::vector<int32_t>{0, 1, 0, 0}));
}

TEST_F(LogReaderTest, WhatIsReadOnceHasAnEndThoughTheFileGrows) {
  Append("rank-0000.log", "a\n");
  Append("rank-0001.log", "b\n");
  LogReader reader(folder_.path(), {});
  std::string all;
  for (int i = 0; i < 2; ++i) {
    const auto lines = reader.Next(/*complete=*/true);
    ASSERT_TRUE(lines.ok() && lines->has_value());
    all += (*lines)->lines();
    Append("rank-0000.log", "more\n");
    Append("rank-0001.log", "more\n");
  }
  EXPECT_THAT(all, AnyOf("a\nb\n", "a\nb\nmore\n"));
  const auto rest = reader.Next(/*complete=*/true);
  ASSERT_TRUE(rest.ok());
  EXPECT_FALSE(rest->has_value());
}

TEST_F(LogReaderTest, APipeInALogsPlaceHoldsNothingUp) {
  ASSERT_EQ(::mkfifo((folder_ / "rank-0000.log").c_str(), 0600), 0);
  Append("rank-0001.log", "a\n");
  LogReader reader(folder_.path(), {});
  EXPECT_EQ(All(reader), "1:a\n");
}

TEST_F(LogReaderTest, AFolderThatIsGoneIsASentence) {
  LogReader reader(folder_ / "gone", {});
  EXPECT_FALSE(reader.Next(false).ok());
}

TEST(FindLogsTest, KnowsJobsAndTheirRanks) {
  Harness h;
  JobLife& job = h.Submitted(SmallJob(2));
  proto::ReadLogsRequest request;
  request.set_job(job.id());
  const auto found = FindLogs(h.state, request);
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->folder, job.summary().run_directory() + "/logs");
  EXPECT_FALSE(found->complete);
  request.set_rank(2);
  EXPECT_THAT(FindLogs(h.state, request).error().message, HasSubstr("has ranks 0 to 1"));
  request.set_rank(1);
  job.Cancel({.checkpoint = false});
  EXPECT_TRUE(FindLogs(h.state, request)->complete);
  request.set_job(99);
  EXPECT_EQ(FindLogs(h.state, request).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace troupe
