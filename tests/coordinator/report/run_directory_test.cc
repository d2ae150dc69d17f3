#include "coordinator/report/run_directory.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <sstream>

#include <nlohmann/json.hpp>

#include "runtime/format/checkpoint_manifest.h"
#include "tests/runtime/actor/manual_clock.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/job_folder.h"

namespace troupe::testing {
namespace {

using ::testing::Contains;
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
  static proto::FromRank Optimizer(int64_t step) {
    proto::FromRank message;
    auto* span = message.mutable_spans()->add_spans();
    span->set_name("optimizer");
    span->set_category("step");
    span->set_step(step);
    span->set_start_ns(step * 1000);
    span->set_end_ns(step * 1000 + 10);
    return message;
  }
  // A run of so many steps that says and leaves all there is.
  void Run(RunDirectory& directory, int64_t first, int64_t last) {
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
      directory.RankSaid(0, false, Optimizer(step));
      directory.RankSaid(0, false, Step(step, 6.0 - 0.1 * static_cast<double>(step)));
    }
    proto::FromRank memory;
    auto* tag = memory.mutable_memory()->add_tags();
    tag->set_tag("params");
    tag->set_current_bytes(1 << 20);
    tag->set_peak_bytes(1 << 20);
    directory.RankSaid(0, false, memory);
    proto::FromRank finished;
    auto* sent = finished.mutable_finished()->mutable_communication();
    sent->set_steps(2);
    auto* row = sent->add_rows();
    row->set_axis("pp");
    row->set_operation("activation");
    row->set_predicted_bytes(64);
    row->set_measured_bytes(128);
    directory.RankSaid(0, false, finished);
    row->set_measured_bytes(1);
    directory.RankSaid(0, true, finished);  // of the reference run: no matter
    directory.RankLogged(1, false, "a line\n");
  }
  // From the queue to the first word of a rank.
  Status Start(RunDirectory& directory) {
    RETURN_IF_ERROR(directory.Open(request_));
    Status begun;
    directory.Begin({"alpha", "beta"}, [&](Status status) { begun = std::move(status); });
    return begun;
  }
  proto::JobResult End(RunDirectory& directory,
                       proto::JobState state = proto::JOB_STATE_SUCCEEDED) {
    proto::JobResult result;
    result.set_state(state);
    directory.Ended(result,
                    [&](const proto::JobResult& recorded) { result = proto::JobResult(recorded); });
    return result;
  }
  // A committed checkpoint of the run directory; its path.
  std::string Checkpoint(int64_t step) {
    CheckpointManifest manifest;
    manifest.step = step;
    const std::string checkpoints = JoinPath(path_, "checkpoints");
    CHECK(SystemFiles().CreateDirectories(checkpoints).ok());
    CHECK(BeginCheckpoint(SystemFiles(), checkpoints, step).ok());
    const auto committed = CommitCheckpoint(SystemFiles(), checkpoints, manifest);
    CHECK(committed.ok());
    return *committed;
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
  ASSERT_TRUE(Start(directory).ok());
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
  EXPECT_EQ(result["memory"][0]["peak"]["params"], 1 << 20);
  EXPECT_EQ(result["communication"][0]["predicted"]["bytes"], 64);
  EXPECT_EQ(result["communication"][0]["measured"]["bytes"], 64) << "of one step";
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

TEST_F(RunDirectoryTest, LatestLeadsToTheNewestRun) {
  const std::string latest = job_.folder / "runs/latest";
  request_.set_latest(latest);
  for (const std::string run : {"runs/one", "runs/two", "elsewhere"}) {
    RunDirectory directory(SystemFiles(), clock_, job_.folder / run);
    ASSERT_TRUE(Start(directory).ok());
    const auto target = SystemFiles().ReadLink(latest);
    ASSERT_TRUE(target.ok()) << target.error().message;
    EXPECT_EQ(*target, run == "elsewhere" ? job_.folder / run : run.substr(5))
        << "beside it, so that runs/ can be moved";
    End(directory);
  }
  EXPECT_TRUE(SystemFiles().Exists(latest + "/plan.json"));
}

TEST_F(RunDirectoryTest, AFolderInThePlaceOfLatestStays) {
  const std::string latest = job_.folder / "runs/latest";
  ASSERT_TRUE(SystemFiles().CreateDirectories(latest).ok());
  request_.set_latest(latest);
  RunDirectory directory(SystemFiles(), clock_, job_.folder / "runs/one");
  ::testing::internal::CaptureStderr();
  EXPECT_TRUE(Start(directory).ok()) << "the job runs all the same";
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr(latest + ": something else than a link is there"));
  EXPECT_FALSE(SystemFiles().ReadLink(latest).ok());
}

TEST_F(RunDirectoryTest, EveryEventIsAJsonObject) {
  RunDirectory directory(SystemFiles(), clock_, path_);
  ASSERT_TRUE(Start(directory).ok());
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
  EXPECT_EQ(count, 4) << "two words of ranks, a state, the last state";
}

TEST_F(RunDirectoryTest, TheReferenceRunLeavesLogsAndNothingElse) {
  RunDirectory directory(SystemFiles(), clock_, path_);
  ASSERT_TRUE(Start(directory).ok());
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
    ASSERT_TRUE(Start(directory).ok());
    Run(directory, 1, 9);
    End(directory);
  }
  request_.set_resume_from(Checkpoint(7));
  RunDirectory resumed(SystemFiles(), clock_, path_);
  ASSERT_TRUE(Start(resumed).ok());
  EXPECT_THAT(Steps(), ElementsAre(1, 2, 3, 4, 5, 6, 7));
  Run(resumed, 8, 10);
  End(resumed);
  EXPECT_THAT(Steps(), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
  EXPECT_TRUE(nlohmann::json::parse(Read("trace/step-00000008.json")).is_object());
  EXPECT_TRUE(nlohmann::json::parse(Read("trace/step-00000001.json")).is_object()) << "stays";
  std::istringstream metrics(Read("metrics.jsonl"));
  std::vector<int> restarts;
  for (std::string line; std::getline(metrics, line);) {
    restarts.push_back(nlohmann::json::parse(line)["restarts"].get<int>());
  }
  EXPECT_THAT(restarts, ElementsAre(0, 0, 0, 0, 0, 0, 0, 1, 1, 1));
  EXPECT_THAT(*SystemFiles().List(JoinPath(path_, "tb")), SizeIs(1)) << "one curve, one file";
}

TEST_F(RunDirectoryTest, ASkippedStepIsALineLikeAnyOther) {
  std::vector<std::string> said;
  {
    RunDirectory directory(SystemFiles(), clock_, path_);
    ASSERT_TRUE(Start(directory).ok());
    Run(directory, 1, 2);
    proto::FromRank skipped;
    skipped.mutable_metrics()->set_step(3);
    directory.RankSaid(0, false, skipped);
    proto::FromRank evaluated;
    evaluated.mutable_eval()->set_step(3);
    directory.RankSaid(0, false, evaluated);
    End(directory);
  }
  EXPECT_THAT(Steps(), ElementsAre(1, 2, 3, 3));
  EXPECT_THAT(Read("metrics.jsonl"), HasSubstr(R"("loss":null,"grad_norm":null)"));
  EXPECT_THAT(Read("metrics.jsonl"), HasSubstr(R"("val/loss":null)"));
  request_.set_resume_from(Checkpoint(3));
  RunDirectory resumed(SystemFiles(), clock_, path_,
                       [&said](const std::string& text) { said.push_back(text); });
  ASSERT_TRUE(Start(resumed).ok());
  EXPECT_THAT(said, ::testing::IsEmpty()) << "no step is missing";
}

TEST_F(RunDirectoryTest, AFreshRunInAUsedDirectoryIsRefusedOrMovesTheEarlierOneAside) {
  {
    RunDirectory directory(SystemFiles(), clock_, path_);
    ASSERT_TRUE(Start(directory).ok());
    Run(directory, 1, 3);
    End(directory);
  }
  const std::string records = Read("metrics.jsonl");
  RunDirectory second(SystemFiles(), clock_, path_);
  const Status refused = second.Open(request_);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidSpec);
  for (const char* way : {"--resume", "another --run-dir", "--overwrite"}) {
    EXPECT_THAT(refused.error().message, HasSubstr(way));
  }
  EXPECT_EQ(Read("metrics.jsonl"), records);
  request_.set_overwrite(true);
  RunDirectory third(SystemFiles(), clock_, path_);
  ASSERT_TRUE(Start(third).ok());
  Run(third, 1, 2);
  End(third);
  EXPECT_THAT(Steps(), ElementsAre(1, 2));
  EXPECT_EQ(*SystemFiles().ReadFile(path_ + ".replaced-1/metrics.jsonl", 1 << 20), records);
  EXPECT_TRUE(SystemFiles().Exists(path_ + ".replaced-1/result.json"));
}

TEST_F(RunDirectoryTest, OneJobHasItAtATime) {
  RunDirectory first(SystemFiles(), clock_, path_);
  ASSERT_TRUE(Start(first).ok());
  request_.set_overwrite(true);
  RunDirectory second(SystemFiles(), clock_, path_);
  const Status refused = second.Open(request_);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("is in use"));
  EXPECT_THAT(refused.error().message, HasSubstr(fmt::format("process {}", ::getpid())));
  End(first);
  EXPECT_TRUE(second.Open(request_).ok()) << "a job that made no step leaves no run";
}

TEST_F(RunDirectoryTest, ACrashLeavesNoLockAndATornEventIsMended) {
  {
    RunDirectory crashed(SystemFiles(), clock_, path_);
    ASSERT_TRUE(Start(crashed).ok());
    Run(crashed, 1, 4);
  }
  {
    auto events = SystemFiles().OpenForWrite(JoinPath(path_, "events.jsonl"), WriteMode::kAppend);
    ASSERT_TRUE((*events)->Append(BytesOf("{\"time\":1,\"ev")).ok());
  }
  request_.set_resume_from(Checkpoint(2));
  RunDirectory resumed(SystemFiles(), clock_, path_);
  ASSERT_TRUE(Start(resumed).ok());
  Run(resumed, 3, 4);
  End(resumed);
  EXPECT_THAT(Steps(), ElementsAre(1, 2, 3, 4));
  std::istringstream lines(Read("events.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    EXPECT_TRUE(nlohmann::json::parse(line, nullptr, false).is_object()) << line;
  }
}

TEST_F(RunDirectoryTest, AJobThatEndsInTheQueueLeavesItsResult) {
  RunDirectory directory(SystemFiles(), clock_, path_);
  ASSERT_TRUE(directory.Open(request_).ok());
  proto::JobSummary queued;
  queued.set_state(proto::JOB_STATE_QUEUED);
  directory.StateChanged(queued);
  EXPECT_FALSE(SystemFiles().Exists(JoinPath(path_, "events.jsonl"))) << "nothing is held open";
  End(directory, proto::JOB_STATE_CANCELLED);
  EXPECT_EQ(nlohmann::json::parse(Read("result.json"))["state"], "CANCELLED");
  EXPECT_THAT(Read("events.jsonl"), HasSubstr("QUEUED"));
}

TEST_F(RunDirectoryTest, TheResultKnowsTheNewestCheckpointThatNobodyTold) {
  RunDirectory directory(SystemFiles(), clock_, path_);
  ASSERT_TRUE(Start(directory).ok());
  const std::string checkpoint = Checkpoint(8);
  const proto::JobResult result = End(directory, proto::JOB_STATE_FAILED);
  EXPECT_EQ(result.checkpoint(), checkpoint);
  EXPECT_EQ(result.checkpoint_step(), 8);
}

TEST_F(RunDirectoryTest, PicturesAreRedrawnWhileTheRunGoes) {
  RunDirectory directory(SystemFiles(), clock_, path_);
  ASSERT_TRUE(Start(directory).ok());
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

TEST_F(RunDirectoryTest, AFullDiskLaterIsToldAtOnceAndMakesTheResultSaySo) {
  FaultyFileSystem measure;
  {
    RunDirectory directory(measure, clock_, path_ + "-measured");
    ASSERT_TRUE(Start(directory).ok());
  }
  FaultyFileSystem files({.full_after_bytes = measure.num_bytes_written() + 600});
  std::vector<std::string> told;
  RunDirectory directory(files, clock_, path_,
                         [&](const std::string& trouble) { told.push_back(trouble); });
  ASSERT_TRUE(Start(directory).ok());
  ::testing::internal::CaptureStderr();
  Run(directory, 1, 50);
  EXPECT_FALSE(told.empty()) << "before the end";
  const proto::JobResult result = End(directory);
  (void)::testing::internal::GetCapturedStderr();
  EXPECT_THAT(told.front(), HasSubstr("the run's records are incomplete"));
  EXPECT_THAT(told.front(), HasSubstr("the disk is full"));
  EXPECT_EQ(result.state(), proto::JOB_STATE_FAILED);
  EXPECT_EQ(result.exit_code(), 1);
  EXPECT_THAT(result.reason(), HasSubstr("the job ran to its end, but its records are incomplete"));
  EXPECT_THAT(result.missing_records(), Contains(HasSubstr("metrics.jsonl lacks")));
}

TEST_F(RunDirectoryTest, ADiskThatFillsForAWhileCostsNothing) {
  FaultyFileSystem files;
  request_.mutable_spec()->mutable_log()->set_tensorboard(false);
  RunDirectory directory(files, clock_, path_);
  ASSERT_TRUE(Start(directory).ok());
  ::testing::internal::CaptureStderr();
  directory.RankSaid(0, false, Step(1, 6));
  files.SetFaults({.full_after_bytes = files.num_bytes_written() + 10});
  for (int64_t step = 2; step <= 20; ++step) directory.RankSaid(0, false, Step(step, 5));
  files.SetFaults({});
  clock_.AdvanceMs(RecordFile::kRetryMs + 1);
  directory.RankSaid(0, false, Step(21, 5));
  const proto::JobResult result = End(directory);
  (void)::testing::internal::GetCapturedStderr();
  EXPECT_EQ(Steps().size(), 21u) << "the line that was torn has been completed";
  EXPECT_EQ(result.state(), proto::JOB_STATE_SUCCEEDED) << result.reason();
}

TEST_F(RunDirectoryTest, AFolderThatIsRemovedMeanwhileIsNoSuccess) {
  RunDirectory directory(SystemFiles(), clock_, path_);
  ASSERT_TRUE(Start(directory).ok());
  Run(directory, 1, 3);
  ASSERT_TRUE(SystemFiles().RemoveAll(path_).ok());
  ::testing::internal::CaptureStderr();
  directory.RankSaid(0, false, Step(4, 5));
  const proto::JobResult result = End(directory);
  (void)::testing::internal::GetCapturedStderr();
  EXPECT_THAT(Steps(), ElementsAre(4)) << "what comes later is kept";
  EXPECT_EQ(result.exit_code(), 1);
  EXPECT_THAT(result.missing_records(), Contains(HasSubstr("metrics.jsonl lacks 3 of 4 lines")));
  EXPECT_THAT(result.missing_records(), Contains(HasSubstr("was removed or moved")));
}

TEST_F(RunDirectoryTest, ACheckpointThatWasRemovedIsNotNamed) {
  RunDirectory directory(SystemFiles(), clock_, path_);
  ASSERT_TRUE(Start(directory).ok());
  proto::JobResult result;
  result.set_state(proto::JOB_STATE_CANCELLED);
  result.set_checkpoint(Checkpoint(8));
  result.set_checkpoint_step(8);
  ASSERT_TRUE(SystemFiles().RemoveAll(JoinPath(path_, "checkpoints")).ok());
  directory.Ended(result, [&](const proto::JobResult& told) { result = proto::JobResult(told); });
  EXPECT_EQ(result.checkpoint(), "");
  EXPECT_EQ(result.checkpoint_step(), 0);
}

TEST_F(RunDirectoryTest, AFolderThatWasMovedAwayAndTakenAnewIsLeftAlone) {
  RunDirectory moved(SystemFiles(), clock_, path_);
  ASSERT_TRUE(Start(moved).ok());
  Run(moved, 1, 3);
  ASSERT_TRUE(SystemFiles().Rename(path_, path_ + "-kept").ok());
  RunDirectory other(SystemFiles(), clock_, path_);
  ASSERT_TRUE(Start(other).ok());
  Run(other, 1, 2);
  ::testing::internal::CaptureStderr();
  moved.RankSaid(0, false, Step(4, 5));
  const proto::JobResult result = End(moved);
  (void)::testing::internal::GetCapturedStderr();
  EXPECT_EQ(result.state(), proto::JOB_STATE_FAILED);
  EXPECT_THAT(result.reason(), HasSubstr("was removed or moved while the job ran"));
  EXPECT_FALSE(SystemFiles().Exists(JoinPath(path_, "result.json")));
  EXPECT_EQ(End(other).state(), proto::JOB_STATE_SUCCEEDED);
  EXPECT_THAT(Steps(), ElementsAre(1, 2));
}

// ---- from the queue --------------------------------------------------------------------------

TEST_F(RunDirectoryTest, AFolderOfAJobInTheQueueIsRefusedToOthers) {
  RunDirectory queued(SystemFiles(), clock_, path_);
  ASSERT_TRUE(queued.Open(request_).ok());
  request_.set_overwrite(true);
  RunDirectory other(SystemFiles(), clock_, path_);
  const Status refused = other.Open(request_);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidSpec);
  EXPECT_THAT(refused.error().message,
              HasSubstr(fmt::format("in the queue of coordinator process {}", ::getpid())));
  End(queued, proto::JOB_STATE_CANCELLED);
  EXPECT_TRUE(other.Open(request_).ok());
}

TEST_F(RunDirectoryTest, AQueueThatDiedKeepsNoFolder) {
  ASSERT_TRUE(SystemFiles().CreateDirectories(path_).ok());
  std::array<char, 256> host{};
  ASSERT_EQ(::gethostname(host.data(), host.size()), 0);
  // A number that another process has by now, started at another time.
  const std::string claim = fmt::format("{} 17 {} 1\n", ::getpid(), host.data());
  ASSERT_TRUE(WriteFileAtomically(SystemFiles(), JoinPath(path_, "claim"), claim).ok());
  RunDirectory directory(SystemFiles(), clock_, path_);
  ASSERT_TRUE(Start(directory).ok());
  EXPECT_FALSE(SystemFiles().Exists(JoinPath(path_, "claim"))) << "from then on it is locked";
}

TEST_F(RunDirectoryTest, AJobWhoseFolderWasTakenWhileItWaitedTouchesNothing) {
  RunDirectory queued(SystemFiles(), clock_, path_);
  ASSERT_TRUE(queued.Open(request_).ok());
  // By a process that cannot see the first one: another host's.
  ASSERT_TRUE(SystemFiles().RemoveAll(JoinPath(path_, "claim")).ok());
  RunDirectory other(SystemFiles(), clock_, path_);
  ASSERT_TRUE(Start(other).ok());
  Run(other, 1, 3);
  End(other);
  const std::string result = Read("result.json");
  Status begun;
  queued.Begin({"alpha"}, [&](Status status) { begun = std::move(status); });
  ASSERT_FALSE(begun.ok());
  EXPECT_THAT(begun.error().message, HasSubstr("taken by another run while this job waited"));
  EXPECT_EQ(End(queued, proto::JOB_STATE_FAILED).state(), proto::JOB_STATE_FAILED);
  EXPECT_EQ(Read("result.json"), result);
  EXPECT_THAT(Steps(), ElementsAre(1, 2, 3));
}

TEST_F(RunDirectoryTest, AnExportAloneIsAnEarlierRun) {
  ASSERT_TRUE(SystemFiles().CreateDirectories(JoinPath(path_, "hf")).ok());
  RunDirectory directory(SystemFiles(), clock_, path_);
  EXPECT_THAT(directory.Open(request_).error().message, HasSubstr("holds the records of a run"));
}

TEST_F(RunDirectoryTest, AJobFileOfTheUsersIsNotWrittenOver) {
  ASSERT_TRUE(SystemFiles().CreateDirectories(path_).ok());
  ASSERT_TRUE(WriteFileAtomically(SystemFiles(), JoinPath(path_, "job.yaml"), "mine\n").ok());
  for (const bool overwrite : {false, true}) {
    request_.set_overwrite(overwrite);
    RunDirectory directory(SystemFiles(), clock_, path_);
    EXPECT_THAT(directory.Open(request_).error().message, HasSubstr("that no run left there"));
    EXPECT_EQ(Read("job.yaml"), "mine\n");
  }
}

TEST_F(RunDirectoryTest, LostMetricsAreSaidWhereTheRunGoesOn) {
  {
    RunDirectory first(SystemFiles(), clock_, path_);
    ASSERT_TRUE(Start(first).ok());
    Run(first, 1, 4);
    End(first);
  }
  ASSERT_TRUE(SystemFiles().RemoveAll(JoinPath(path_, "metrics.jsonl")).ok());
  request_.set_resume_from(Checkpoint(4));
  std::vector<std::string> said;
  RunDirectory resumed(SystemFiles(), clock_, path_,
                       [&](const std::string& trouble) { said.push_back(trouble); });
  ASSERT_TRUE(Start(resumed).ok());
  EXPECT_THAT(said, ElementsAre("metrics.jsonl holds 0 of the 4 steps before this one"));
}

}  // namespace
}  // namespace troupe::testing
