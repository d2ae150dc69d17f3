#include "coordinator/report/job_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <sstream>

#include <nlohmann/json.hpp>

namespace troupe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kNowUs = 1'000'000'000'000'000;

proto::JobSummary Job(uint64_t number) {
  proto::JobSummary job;
  job.set_job(number);
  job.set_name("a \"job\"");
  job.set_state(proto::JOB_STATE_RUNNING);
  job.set_step(3);
  job.set_steps(20);
  job.set_loss(0.1);
  job.set_layout("pp4");
  job.set_run_directory("/runs/a");
  job.set_submitted_wall_us(kNowUs - 125'000'000);
  job.add_hosts("alpha");
  job.add_hosts("beta");
  return job;
}

proto::ListJobsReply TwoJobs() {
  proto::ListJobsReply reply;
  *reply.add_jobs() = Job(1);
  *reply.add_jobs() = Job(2);
  auto* host = reply.add_hosts();
  host->set_name("alpha");
  host->set_slots(4);
  host->set_slots_used(3);
  return reply;
}

TEST(JobsReportTest, IsATableForPeople) {
  const std::string table = JobsReport(TwoJobs(), OutputFormat::kText, kNowUs);
  EXPECT_THAT(table, HasSubstr("JOB   NAME"));
  EXPECT_THAT(table, HasSubstr("1     a \"job\"              RUNNING           3/20   0.1000"));
  EXPECT_THAT(table, HasSubstr("pp4         2m alpha +1     /runs/a"));
  EXPECT_EQ(std::ranges::count(table, '\n'), 3);
}

TEST(AgeTest, IsShort) {
  constexpr int64_t kSecond = 1'000'000;
  EXPECT_EQ(Age(-5), "0s");
  EXPECT_EQ(Age(45 * kSecond), "45s");
  EXPECT_EQ(Age(760 * kSecond), "12m");
  EXPECT_EQ(Age((3 * 3600 + 300) * kSecond), "3h05m");
  EXPECT_EQ(Age((4 * 24 + 7) * 3600 * kSecond), "4d07h");
}

TEST(JobsReportTest, IsOneDocumentInJson) {
  const auto json = nlohmann::json::parse(JobsReport(TwoJobs(), OutputFormat::kJson, kNowUs));
  ASSERT_EQ(json["jobs"].size(), 2u);
  EXPECT_EQ(json["jobs"][1]["job"], 2);
  EXPECT_EQ(json["jobs"][0]["name"], "a \"job\"");
  EXPECT_EQ(json["jobs"][0]["state"], "RUNNING");
  EXPECT_EQ(json["jobs"][0]["loss"].get<double>(), 0.1);
  EXPECT_EQ(json["jobs"][0]["run_dir"], "/runs/a");
  EXPECT_EQ(json["hosts"][0]["slots_used"], 3);
  const auto none = nlohmann::json::parse(JobsReport({}, OutputFormat::kJson, kNowUs));
  EXPECT_TRUE(none["jobs"].is_array() && none["jobs"].empty());
}

TEST(JobsReportTest, IsAJobALineInJsonl) {
  std::istringstream lines(JobsReport(TwoJobs(), OutputFormat::kJsonl, kNowUs));
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    EXPECT_EQ(nlohmann::json::parse(line)["job"], ++number) << line;
  }
  EXPECT_EQ(number, 2);
  EXPECT_EQ(JobsReport({}, OutputFormat::kJsonl, kNowUs), "");
}

TEST(StatusReportTest, SaysWhyAndWhoWaits) {
  proto::GetStatusReply reply;
  *reply.mutable_summary() = Job(7);
  reply.mutable_summary()->set_reason("4 workers need as many slots");
  reply.mutable_summary()->set_loss(std::numeric_limits<double>::quiet_NaN());
  auto* edge = reply.add_waits();
  edge->set_waiter("executor of rank 3");
  edge->set_owed("activation of microbatch 3");
  edge->set_from("rank 2");
  edge->set_waited_ms(12);
  reply.set_root("rank 2 waits for weights from files for 3 s");
  const std::string text = StatusReport(reply, OutputFormat::kText);
  EXPECT_THAT(text, HasSubstr("job 7 a \"job\": RUNNING, step 3/20"));
  EXPECT_THAT(text, HasSubstr("\n  4 workers need as many slots\n"));
  EXPECT_THAT(text, HasSubstr("executor of rank 3 waits 12 ms for activation of microbatch 3"));
  EXPECT_THAT(text, HasSubstr("\n  the root: rank 2 waits for weights from files for 3 s\n"));
  for (const OutputFormat format : {OutputFormat::kJson, OutputFormat::kJsonl}) {
    const auto json = nlohmann::json::parse(StatusReport(reply, format));
    EXPECT_EQ(json["job"], 7);
    EXPECT_EQ(json["reason"], "4 workers need as many slots");
    EXPECT_TRUE(json["loss"].is_null()) << "JSON has no NaN";
    EXPECT_EQ(json["waits"][0]["from"], "rank 2");
    EXPECT_EQ(json["root"], "rank 2 waits for weights from files for 3 s");
  }
  EXPECT_EQ(std::ranges::count(StatusReport(reply, OutputFormat::kJsonl), '\n'), 1);
}

TEST(CancelReportTest, IsTheStateAlone) {
  proto::CancelReply reply;
  reply.set_state(proto::JOB_STATE_DRAINING);
  EXPECT_EQ(CancelReport(4, reply, OutputFormat::kText), "DRAINING\n");
  EXPECT_EQ(CancelReport(4, reply, OutputFormat::kJsonl), "{\"job\":4,\"state\":\"DRAINING\"}\n");
}

TEST(SubmitReportTest, IsTheNumberAlone) {
  proto::SubmitReply reply;
  reply.set_job(4);
  reply.set_run_directory("/runs/\xff");
  EXPECT_EQ(SubmitReport(reply, OutputFormat::kText), "4\n");
  const auto json = nlohmann::json::parse(SubmitReport(reply, OutputFormat::kJson));
  EXPECT_EQ(json["run_dir"], "/runs/\ufffd") << "what is no UTF-8 cannot be in JSON";
}

}  // namespace
}  // namespace troupe
