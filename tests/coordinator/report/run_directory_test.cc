#include "coordinator/report/run_directory.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <sstream>

#include <nlohmann/json.hpp>

#include "runtime/format/checkpoint_manifest.h"
#include "tests/runtime/actor/manual_clock.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/job_folder.h"

namespace troupe::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class RunDirectoryTest : public ::testing::Test {
 protected:
  RunDirectoryTest() {
    const auto job = job_.Load();
    CHECK(job.ok());
    *request_.mutable_spec() = job->spec;
    request_.set_job_file(job->text);
    request_.set_effective_file(job->effective_text);
    request_.set_command_line("troupe run job.yaml");
  }
  static proto::FromRank Step(int64_t step, double loss) {
    proto::FromRank message;
    message.mutable_metrics()->set_step(step);
    message.mutable_metrics()->set_loss(loss);
    return message;
  }
  // A run of so many steps that says and leaves all there is.
  void Run(RunDirectory& directory, int64_t first, int64_t last) {
    directory.Placed({"alpha", "beta"});
    for (int32_t rank = 0; rank < 2; ++rank) {
      proto::FromRank hello;
      hello.mutable_hello()->set_pid(40 + rank);
      hello.mutable_hello()->set_cpu("a CPU");
      hello.mutable_hello()->set_build("b");
      directory.RankSaid(rank, false, hello);
      proto::FromRank ready;
      auto* lane = ready.mutable_ready()->add_lanes();
      lane->set_peer(1 - rank);
      lane->set_lane("shared memory");
      directory.RankSaid(rank, false, ready);
    }
    for (int64_t step = first; step <= last; ++step) {
      directory.RankSaid(0, false, Step(step, 6.0 - 0.1 * static_cast<double>(step)));
    }
    proto::FromRank memory;
    auto* tag = memory.mutable_memory()->add_tags();
    tag->set_tag("params");
    tag->set_current_bytes(1 << 20);
    tag->set_peak_bytes(1 << 20);
    directory.RankSaid(0, false, memory);
    directory.RankLogged(1, false, "a line\n");
  }
  void End(RunDirectory& directory) {
    proto::JobResult result;
    result.set_state(proto::JOB_STATE_SUCCEEDED);
    directory.Ended(result, [] {});
  }
  std::string Read(const std::string& name) {
    auto text = SystemFiles().ReadFile(JoinPath(path_, name), 1 << 20);
    return text.ok() ? *text : "missing: " + name;
  }
  std::vector<int64_t> Steps() {
    std::vector<int64_t> steps;
    std::istringstream lines(Read("metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      steps.push_back(nlohmann::json::parse(line)["step"].get<int64_t>());
    }
    return steps;
  }

  JobFolder job_;
  ManualClock clock_;
  proto::SubmitRequest request_{};
  const std::string path_ = job_.folder / "run";
};

TEST_F(RunDirectoryTest, LeavesWhatTheReadmePromises) {
  RunDirectory directory(SystemFiles(), clock_, path_);
  ASSERT_TRUE(directory.Open(request_).ok());
  Run(directory, 1, 3);
  End(directory);
  EXPECT_EQ(Read("job.yaml"), request_.job_file());
  EXPECT_THAT(Read("job.yaml"), HasSubstr(job_.folder / "text.txt")) << "it runs again from there";
  EXPECT_EQ(Read("job.effective.yaml"), request_.effective_file());
  EXPECT_EQ(nlohmann::json::parse(Read("plan.json"))["workers"], 2);
  const auto environment = nlohmann::json::parse(Read("env.json"));
  EXPECT_EQ(environment["command_line"], "troupe run job.yaml");
  EXPECT_EQ(environment["version"], TROUPE_VERSION);
  EXPECT_EQ(environment["ranks"][1]["pid"], 41);
  EXPECT_EQ(environment["ranks"][1]["host"], "beta");
  EXPECT_EQ(environment["ranks"][1]["cpu"], "a CPU");
  EXPECT_EQ(environment["ranks"][1]["build"], "b");
  EXPECT_THAT(Steps(), ElementsAre(1, 2, 3));
  EXPECT_THAT(Read("events.jsonl"), HasSubstr(R"("lanes":{"1":"shared memory"})"));
  EXPECT_EQ(Read("logs/rank-0001.log"), "a line\n");
  EXPECT_THAT(Read("loss.svg"), HasSubstr("</svg>"));
  EXPECT_THAT(Read("memory.svg"), HasSubstr("</svg>"));
  EXPECT_EQ(nlohmann::json::parse(Read("memory.json"))["ranks"][0]["tags"]["params"]["peak_bytes"],
            1 << 20);
  EXPECT_TRUE(nlohmann::json::parse(Read("trace/step-00000001.json")).is_object());
  const auto result = nlohmann::json::parse(Read("result.json"));
  EXPECT_EQ(result["state"], "SUCCEEDED");
  EXPECT_EQ(result["metrics"]["step"], 3);
  const auto events = SystemFiles().List(JoinPath(path_, "tb"));
  ASSERT_TRUE(events.ok());
  EXPECT_THAT(*events, SizeIs(1));
}

TEST_F(RunDirectoryTest, ARunThatNeverStartsLeavesItsEnvironmentToo) {
  RunDirectory directory(SystemFiles(), clock_, path_);
  ASSERT_TRUE(directory.Open(request_).ok());
  const auto environment = nlohmann::json::parse(Read("env.json"));
  EXPECT_EQ(environment["command_line"], "troupe run job.yaml");
  EXPECT_FALSE(environment["coordinator_host"].get<std::string>().empty());
}

TEST_F(RunDirectoryTest, LatestNamesTheNewestRunThatNobodyNamed) {
  const std::string latest = job_.folder / "runs/latest";
  for (const std::string run : {"one", "two", "named"}) {
    request_.set_point_latest(run != "named");
    RunDirectory directory(SystemFiles(), clock_, job_.folder / ("runs/" + run));
    ASSERT_TRUE(directory.Open(request_).ok());
    const auto target = SystemFiles().ReadLink(latest);
    ASSERT_TRUE(target.ok()) << target.error().message;
    EXPECT_EQ(*target, run == "named" ? "two" : run) << "beside it, so that runs/ can be moved";
  }
  EXPECT_TRUE(SystemFiles().Exists(latest + "/plan.json"));
}

TEST_F(RunDirectoryTest, AFolderInThePlaceOfLatestStays) {
  const std::string latest = job_.folder / "runs/latest";
  ASSERT_TRUE(SystemFiles().CreateDirectories(latest).ok());
  request_.set_point_latest(true);
  RunDirectory directory(SystemFiles(), clock_, job_.folder / "runs/one");
  ::testing::internal::CaptureStderr();
  EXPECT_TRUE(directory.Open(request_).ok()) << "the job runs all the same";
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr(latest + ": something else than a link is there"));
  EXPECT_FALSE(SystemFiles().ReadLink(latest).ok());
}

TEST_F(RunDirectoryTest, EveryEventIsAJsonObject) {
  RunDirectory directory(SystemFiles(), clock_, path_);
  ASSERT_TRUE(directory.Open(request_).ok());
  proto::FromRank happening;
  happening.mutable_happening()->set_level("warning");
  happening.mutable_happening()->set_text("a \"quoted\"\nthing");
  directory.RankSaid(1, false, happening);
  proto::FromRank sampled;
  sampled.mutable_sampled()->set_prompt("ab");
  sampled.mutable_sampled()->set_continuation("\xff\x01");
  directory.RankSaid(0, false, sampled);
  directory.StateChanged({});
  End(directory);
  std::istringstream lines(Read("events.jsonl"));
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    EXPECT_TRUE(nlohmann::json::parse(line, nullptr, false).is_object()) << line;
  }
  EXPECT_EQ(count, 3);
}

TEST_F(RunDirectoryTest, TheReferenceRunLeavesLogsAndNothingElse) {
  RunDirectory directory(SystemFiles(), clock_, path_);
  ASSERT_TRUE(directory.Open(request_).ok());
  Run(directory, 1, 2);
  directory.RankSaid(0, true, Step(1, 5.0));
  directory.RankLogged(0, true, "reference\n");
  End(directory);
  EXPECT_THAT(Steps(), ElementsAre(1, 2));
  EXPECT_EQ(Read("logs/reference-rank-0000.log"), "reference\n");
}

TEST_F(RunDirectoryTest, AResumedRunCutsMetricsBackAndGoesOn) {
  {
    RunDirectory directory(SystemFiles(), clock_, path_);
    ASSERT_TRUE(directory.Open(request_).ok());
    Run(directory, 1, 9);
    End(directory);
  }
  CheckpointManifest manifest;
  manifest.step = 7;
  const std::string checkpoints = JoinPath(path_, "checkpoints");
  ASSERT_TRUE(SystemFiles().CreateDirectories(checkpoints).ok());
  ASSERT_TRUE(BeginCheckpoint(SystemFiles(), checkpoints, 7).ok());
  const auto committed = CommitCheckpoint(SystemFiles(), checkpoints, manifest);
  ASSERT_TRUE(committed.ok());
  request_.set_resume_from(*committed);
  RunDirectory resumed(SystemFiles(), clock_, path_);
  ASSERT_TRUE(resumed.Open(request_).ok());
  EXPECT_THAT(Steps(), ElementsAre(1, 2, 3, 4, 5, 6, 7));
  Run(resumed, 8, 10);
  End(resumed);
  EXPECT_THAT(Steps(), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
  EXPECT_TRUE(nlohmann::json::parse(Read("trace/step-00000008.json")).is_object());
  EXPECT_THAT(*SystemFiles().List(JoinPath(path_, "tb")), SizeIs(1)) << "one curve, one file";
}

TEST_F(RunDirectoryTest, AFreshRunInAUsedDirectoryStartsItsMetricsAgain) {
  for (int run = 0; run < 2; ++run) {
    RunDirectory directory(SystemFiles(), clock_, path_);
    ASSERT_TRUE(directory.Open(request_).ok());
    Run(directory, 1, 3);
    End(directory);
  }
  EXPECT_THAT(Steps(), ElementsAre(1, 2, 3));
}

TEST_F(RunDirectoryTest, PicturesAreRedrawnWhileTheRunGoes) {
  RunDirectory directory(SystemFiles(), clock_, path_);
  ASSERT_TRUE(directory.Open(request_).ok());
  directory.RankSaid(0, false, Step(1, 5.0));
  EXPECT_THAT(Read("loss.svg"), HasSubstr("missing"));
  clock_.AdvanceMs(RunDirectory::kDrawEveryMs + 1);
  directory.RankSaid(0, false, Step(2, 4.0));
  EXPECT_THAT(Read("loss.svg"), HasSubstr("</svg>"));
}

TEST_F(RunDirectoryTest, AFullDiskBeforeTheStartRefusesTheJob) {
  FaultyFileSystem files({.full_after_bytes = 100});
  RunDirectory directory(files, clock_, path_);
  const Status opened = directory.Open(request_);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, ErrorCode::kOutOfSpace);
}

TEST_F(RunDirectoryTest, AFullDiskLaterIsSaidOnceAndEndsNothing) {
  FaultyFileSystem measure;
  {
    RunDirectory directory(measure, clock_, path_);
    ASSERT_TRUE(directory.Open(request_).ok());
  }
  FaultyFileSystem files({.full_after_bytes = measure.num_bytes_written() + 600});
  RunDirectory directory(files, clock_, path_);
  ASSERT_TRUE(directory.Open(request_).ok());
  ::testing::internal::CaptureStderr();
  Run(directory, 1, 50);
  End(directory);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("the run's records are incomplete from now on"));
  EXPECT_THAT(said, HasSubstr("the disk is full"));
  EXPECT_EQ(std::ranges::count(said, '\n'), 1) << said;
}

}  // namespace
}  // namespace troupe::testing
