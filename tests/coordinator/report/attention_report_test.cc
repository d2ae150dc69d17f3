#include "coordinator/report/attention_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "actors/plan/sequence_layout.h"

namespace troupe::testing {
namespace {

using ::testing::DoubleEq;
using ::testing::DoubleNear;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kSteps = 5;
constexpr int64_t kChunk = 1000;

// A rank of a ring that saw what was predicted, in `kSteps` steps.
proto::CommunicationReport Report(const ContextParallel& context, int index) {
  proto::CommunicationReport report;
  report.set_steps(kSteps);
  auto& attention = *report.mutable_attention();
  attention.set_method(std::string(ContextMethodName(context.method)));
  attention.set_index(index);
  attention.set_num_ranks(context.num_ranks);
  attention.set_under_way_ns(4'000'000'000);
  attention.set_idle_ns(100'000'000);
  for (int phase = 0; phase < 3; ++phase) {
    auto& of = *attention.add_phases();
    if (phase == 1) continue;  // nothing is computed again
    for (int hop = 0; hop < context.num_ranks; ++hop) {
      const int64_t pairs = VisiblePairs(context, index, OriginAfter(context.num_ranks, index, hop),
                                         kChunk * context.num_ranks);
      of.add_predicted_pairs(pairs);
      of.add_pairs(pairs * kSteps);
    }
  }
  return report;
}

CommunicationReports Ring(SequenceLayout layout, int num_ranks, int num_groups = 1) {
  CommunicationReports reports;
  for (int rank = 0; rank < num_ranks * num_groups; ++rank) {
    reports[rank] = Report({num_ranks, ContextMethod::kRing, layout}, rank % num_ranks);
  }
  return reports;
}

TEST(AttentionBalanceTest, IsTheLayouts) {
  EXPECT_THAT(AttentionBalanceOf(Ring(SequenceLayout::kZigzag, 4)).measured, DoubleEq(1));
  const double c = kChunk;
  EXPECT_THAT(AttentionBalanceOf(Ring(SequenceLayout::kContiguous, 4)).predicted,
              DoubleNear((4 * c + 1) / (7 * c + 1), 1e-12));
  EXPECT_THAT(AttentionBalanceOf(Ring(SequenceLayout::kStriped, 8, 3)).measured,
              DoubleNear((8 * c + 1) / (8 * (c + 1)), 1e-12));
}

TEST(AttentionBalanceTest, LeavesOutGroupsThatHaveNotAllSaidTheirs) {
  CommunicationReports reports = Ring(SequenceLayout::kZigzag, 2, 2);
  reports[3].mutable_attention()->mutable_phases(0)->set_pairs(1, 1 << 30);
  EXPECT_LT(AttentionBalanceOf(reports).measured, 0.9);
  reports.erase(2);
  EXPECT_THAT(AttentionBalanceOf(reports).measured, DoubleEq(1));
  EXPECT_THAT(AttentionBalanceOf({}).measured, DoubleEq(1));
}

TEST(AttentionReportTest, MeasuredStandsBesidePredictedOfOneStep) {
  EXPECT_EQ(AttentionText(Ring(SequenceLayout::kContiguous, 2)),
            "rank            forward   computed again         backward  hops hidden\n"
            "0         500.5/500.5 k                -    500.5/500.5 k       97.5 %\n"
            "1             1.5/1.5 M                -        1.5/1.5 M       97.5 %\n"
            "balance 0.667/0.667: an equal share of the pairs over those of the slowest rank of "
            "each hop\n");
}

TEST(AttentionReportTest, WhatIsComputedAgainHasItsColumn) {
  CommunicationReports reports = Ring(SequenceLayout::kZigzag, 2);
  for (auto& [rank, report] : reports) {
    auto& phases = *report.mutable_attention()->mutable_phases();
    phases[1] = phases[0];
    report.mutable_attention()->set_under_way_ns(0);
  }
  const std::string text = AttentionText(reports);
  EXPECT_THAT(
      text, HasSubstr("0             1.0/1.0 M        1.0/1.0 M        1.0/1.0 M            -\n"));
}

TEST(AttentionReportTest, WhereDocumentsArePackedPredictedIsTheMost) {
  CommunicationReports reports = Ring(SequenceLayout::kZigzag, 2);
  EXPECT_THAT(AttentionText(reports), Not(HasSubstr("at most")));
  auto& own = *reports[1].mutable_attention()->mutable_phases(0);
  own.set_pairs(1, own.pairs(1) / 2);
  EXPECT_THAT(AttentionText(reports),
              HasSubstr("/1.000: an equal share of the pairs over those of the slowest rank of "
                        "each hop\npredicted is for one document a sequence: with "
                        "data.document_separator pairs are at most that"));
  for (auto& [rank, report] : reports) report.set_steps(0);
  EXPECT_THAT(AttentionText(reports), Not(HasSubstr("at most"))) << "nothing is measured";
}

TEST(AttentionReportTest, OfManyRanksTheBusiestAreShown) {
  const std::string text = AttentionText(Ring(SequenceLayout::kContiguous, 16));
  EXPECT_EQ(std::ranges::count(text, '\n'), 1 + 8 + 2);
  EXPECT_THAT(text, HasSubstr("\n15 "));
  EXPECT_THAT(text, HasSubstr("and 8 ranks that compute no more"));
}

TEST(AttentionReportTest, WhereNoSequenceIsSharedNothingIsSaid) {
  const CommunicationReports alone = {{0, proto::CommunicationReport()}};
  EXPECT_EQ(AttentionText(alone), "");
  EXPECT_EQ(AttentionJson(alone), "");
}

TEST(AttentionReportTest, TheJsonHasEveryHopOfEveryRank) {
  CommunicationReports reports = Ring(SequenceLayout::kContiguous, 2);
  reports[1].mutable_attention()->mutable_phases(0)->set_pairs(1, kSteps * kChunk * kChunk + 1);
  const auto json = nlohmann::json::parse(AttentionJson(reports));
  EXPECT_EQ(json["method"], "ring");
  EXPECT_NEAR(json["balance"]["predicted"].get<double>(), 2.0 / 3, 1e-3);
  ASSERT_EQ(json["work"].size(), 2u * 2 * 2);
  EXPECT_EQ(
      json["work"][0].dump(),
      R"({"hop":0,"measured":{"pairs":500500},"phase":"forward","predicted":{"pairs":500500},)"
      R"("rank":0})");
  EXPECT_EQ(json["work"][5]["rank"], 1);
  EXPECT_EQ(json["work"][5]["hop"], 1);
  EXPECT_EQ(json["work"][5]["measured"]["pairs"], kChunk * kChunk + 0.2) << "a mean";
  EXPECT_EQ(json["hops"][1]["rank"], 1);
  EXPECT_NEAR(json["hops"][1]["hidden"].get<double>(), 0.975, 1e-9);
  reports[0].set_steps(0);
  EXPECT_EQ(nlohmann::json::parse(AttentionJson(reports))["work"][0]["measured"], nullptr);
}

TEST(AttentionReportTest, OtherMethodsHaveNoHopsToHide) {
  CommunicationReports reports;
  for (int rank = 0; rank < 2; ++rank) {
    reports[rank] = Report({2, ContextMethod::kAllGather, SequenceLayout::kContiguous}, rank);
  }
  EXPECT_THAT(AttentionText(reports), Not(HasSubstr("hidden")));
  EXPECT_THAT(AttentionText(reports), HasSubstr("of the slowest rank\n"));
  EXPECT_TRUE(nlohmann::json::parse(AttentionJson(reports))["hops"].empty());
}

}  // namespace
}  // namespace troupe::testing
