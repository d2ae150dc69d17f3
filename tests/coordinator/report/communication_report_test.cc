#include "coordinator/report/communication_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "tests/support/job_folder.h"

namespace troupe::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A rank that sent `bytes` in two messages a step.
proto::CommunicationReport Report(const std::string& operation, int64_t bytes, int64_t steps) {
  proto::CommunicationReport report;
  report.set_steps(steps);
  auto* row = report.add_rows();
  row->set_axis("pp");
  row->set_operation(operation);
  row->set_predicted_count(2);
  row->set_predicted_bytes(bytes);
  row->set_measured_count(2 * steps);
  row->set_measured_bytes(bytes * steps);
  return report;
}

TEST(CommunicationReportTest, MeasuredStandsBesidePredictedOfOneStep) {
  const std::string text = CommunicationText(
      {{0, Report("activation", 96 << 10, 5)}, {1, Report("gradient", 1 << 20, 5)}});
  EXPECT_EQ(text,
            "rank      pp activation      pp gradient\n"
            "0         96.0/96.0 KiB                -\n"
            "1                     -      1.0/1.0 MiB\n");
}

TEST(CommunicationReportTest, OfManyRanksTheBusiestAreShownInOrder) {
  CommunicationReports reports;
  for (int32_t rank = 0; rank < 20; ++rank) {
    reports[rank] = Report("activation", (rank % 10 + 1) << 20, 1);
  }
  const std::string text = CommunicationText(reports);
  EXPECT_EQ(std::ranges::count(text, '\n'), 1 + 8 + 1);
  EXPECT_THAT(text, HasSubstr("\n19 "));
  EXPECT_THAT(text, Not(HasSubstr("\n0 ")));
  EXPECT_THAT(text, HasSubstr("and 12 ranks that send no more"));
}

TEST(CommunicationReportTest, NothingSentIsNothingShown) {
  EXPECT_EQ(CommunicationText({}), "");
  EXPECT_EQ(CommunicationText({{0, {}}}), "");
}

TEST(CommunicationReportTest, TheJsonHasAStepsMeanAndIntegersWhereTheyDivide) {
  proto::CommunicationReport uneven = Report("gradient", 100, 4);
  uneven.mutable_rows(0)->set_measured_bytes(401);
  const auto json = nlohmann::json::parse(CommunicationRowsJson(
      {{0, Report("activation", 100, 4)}, {1, uneven}, {2, Report("activation", 100, 0)}}));
  ASSERT_EQ(json.size(), 3u);
  EXPECT_EQ(json[0].dump(),
            R"({"axis":"pp","measured":{"bytes":100,"count":2},"operation":"activation",)"
            R"("predicted":{"bytes":100,"count":2},"rank":0})");
  EXPECT_EQ(json[1]["measured"]["bytes"], 100.25);
  EXPECT_TRUE(json[2]["measured"].is_null()) << "it finished no step";
  EXPECT_EQ(CommunicationRowsJson({}), "[]");
}

TEST(CommunicationReportTest, APlanSaysBytesAndHowManyMessages) {
  const auto job =
      JobFolder().Load({"parallelism.dp=2", "parallelism.pp=2", "model.tie_word_embeddings=true"});
  ASSERT_TRUE(job.ok()) << job.error().message;
  const auto plan = MakeJobPlan(job->spec);
  ASSERT_TRUE(plan.ok());
  const std::string text = PlannedCommunicationText(*plan);
  EXPECT_EQ(std::ranges::count(text, '\n'), 1 + 4);
  EXPECT_THAT(text, ::testing::StartsWith("  rank      pp activation      pp gradient    "
                                          "pp all-reduce    dp all-reduce\n"));
  EXPECT_THAT(text, HasSubstr("1.0 KiB in 2"));
  const auto one = JobFolder().Load({"parallelism.pp=1"});
  ASSERT_TRUE(one.ok());
  EXPECT_EQ(PlannedCommunicationText(*MakeJobPlan(one->spec)), "");
}

}  // namespace
}  // namespace troupe::testing
