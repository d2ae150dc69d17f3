#include "coordinator/report/memory_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include <nlohmann/json.hpp>

namespace troupe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

proto::MemoryReport Report(int64_t peak, int64_t predicted) {
  proto::MemoryReport report;
  auto* tag = report.add_tags();
  tag->set_tag("params");
  tag->set_peak_bytes(peak);
  tag->set_predicted_bytes(predicted);
  report.set_other_bytes(3 << 20);
  return report;
}

TEST(MemoryReportTest, MeasuredStandsBesidePredictedInOneUnit) {
  const std::string text =
      MemoryText({{0, Report(449 << 10, 449 << 10)}, {1, Report(12'687'770, 13'736'346)}});
  EXPECT_THAT(text, HasSubstr("449/449 KiB"));
  EXPECT_THAT(text, HasSubstr("12.1/13.1 MiB"));
  EXPECT_THAT(text, HasSubstr("3.0 MiB\n"));
  EXPECT_THAT(text, HasSubstr("params"));
}

TEST(MemoryReportTest, OfManyRanksTheFullestAreShownInOrder) {
  MemoryReports reports;
  for (int32_t rank = 0; rank < 20; ++rank) reports[rank] = Report((rank % 10 + 1) << 20, 1 << 20);
  const std::string text = MemoryText(reports);
  EXPECT_EQ(std::ranges::count(text, '\n'), 1 + 8 + 1);
  EXPECT_THAT(text, HasSubstr("\n9 "));
  EXPECT_THAT(text, HasSubstr("\n19 "));
  EXPECT_THAT(text, Not(HasSubstr("\n0 ")));
  EXPECT_LT(text.find("\n9 "), text.find("\n19 "));
  EXPECT_THAT(text, HasSubstr("and 12 ranks that need less"));
}

TEST(MemoryReportTest, TheJsonHoldsEveryTagOfEveryRank) {
  proto::MemoryReport report = Report(7, 9);
  report.mutable_tags(0)->set_current_bytes(5);
  report.set_step(3);
  report.set_resident_bytes(11);
  const auto json = nlohmann::json::parse(MemoryJson({{0, {}}, {2, report}}));
  ASSERT_EQ(json["ranks"].size(), 2u);
  EXPECT_EQ(json["ranks"][1].dump(),
            R"({"other_bytes":3145728,"rank":2,"resident_bytes":11,"step":3,"tags":{"params":)"
            R"({"current_bytes":5,"peak_bytes":7,"predicted_bytes":9}}})");
  EXPECT_EQ(MemoryJson({}), "");
}

TEST(MemoryReportTest, ARowHasEveryTagAndTheirTotal) {
  proto::MemoryReport report = Report(7, 9);
  report.mutable_tags(0)->set_current_bytes(5);
  auto* tag = report.add_tags();
  tag->set_tag("comm");
  tag->set_predicted_bytes(1);
  tag->set_peak_bytes(2);
  tag->set_current_bytes(3);
  const auto json = nlohmann::json::parse(MemoryRowsJson({{4, report}}));
  ASSERT_EQ(json.size(), 1u);
  EXPECT_EQ(json[0].dump(),
            R"({"current":{"comm":3,"params":5,"total":8},"peak":{"comm":2,"params":7,"total":9},)"
            R"("predicted":{"comm":1,"params":9,"total":10},"rank":4})");
  EXPECT_EQ(MemoryRowsJson({}), "[]");
}

TEST(MemoryReportTest, NothingSaidIsNothingShown) {
  EXPECT_EQ(MemoryText({}), "");
  EXPECT_EQ(MemoryText({{0, {}}}), "");
}

}  // namespace
}  // namespace troupe
