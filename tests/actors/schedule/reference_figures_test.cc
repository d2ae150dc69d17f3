#include "tests/actors/schedule/reference_figures.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "actors/schedule/generators.h"
#include "actors/schedule/simulator.h"
#include "tests/actors/schedule/jitter_figures.h"

namespace troupe {
namespace {

void ExpectEqual(const testing::FigureTable& table) {
  for (const testing::FigureRow& row : table.rows) {
    for (const testing::Figure& figure : row.figures) {
      if (!figure.judged()) continue;
      EXPECT_NEAR(figure.ours, figure.reference, figure.tolerance)
          << table.title << ": " << row.label << " p=" << row.p << " " << row.shape << ": "
          << figure.name;
    }
  }
  EXPECT_EQ(table.NumEqual(), table.NumJudged());
}

TEST(ReferenceFigures, EveryScheduleHasItsClosedForm) {
  const auto table = testing::ClosedFormFigures();
  ExpectEqual(table);
  std::set<std::string> found;
  for (const auto& row : table.rows) found.insert(fmt::format("{} p={}", row.label, row.p));
  for (const ScheduleInfo& info : KnownSchedules()) {
    if (info.name == "dynamic") continue;  // it has no order of its own
    for (const int p : {4, 8, 16}) {
      EXPECT_EQ(found.count(fmt::format("{} p={}", info.name, p)), 1U) << info.name;
    }
  }
  EXPECT_EQ(found.size(), 3U * (12 + 2)) << "and the two that have pairs also with them fused";
}

TEST(ReferenceFigures, RatesOnMeasuredProfiles) {
  const auto table = testing::ProfileFigures();
  ExpectEqual(table);
  EXPECT_EQ(table.NumJudged(), 12 * 4);
}

TEST(ReferenceFigures, RatesForEqualTimes) { ExpectEqual(testing::EqualTimeFigures()); }

TEST(ReferenceFigures, MakespansForUnequalTimes) { ExpectEqual(testing::UnequalTimeFigures()); }

TEST(ReferenceFigures, MakespansOfOverlappedPairs) { ExpectEqual(testing::OverlapFigures()); }

TEST(ReferenceFigures, SpansOnProfilesOfWholeModels) {
  const auto table = testing::ModelFigures();
  ExpectEqual(table);
  EXPECT_EQ(table.NumJudged(), 4 + 3 + 3);
}

// "1713 of 1713", as the README has them, in the order of its table.
TEST(ReferenceFigures, AreAsManyAsTheReadmeSays) {
  std::ifstream file(TROUPE_SOURCE_DIR "/README.md");
  const std::regex equal(R"((\d+) of (\d+))");
  std::vector<int> said;
  bool figures = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("## ")) figures = line == "## Figures";
    if (!figures || !line.starts_with("|")) continue;
    for (std::sregex_iterator it(line.begin(), line.end(), equal), end; it != end; ++it) {
      EXPECT_EQ((*it)[1], (*it)[2]) << line;
      said.push_back(std::stoi((*it)[1]));
    }
  }
  std::vector<int> equals;
  for (const auto& table :
       {testing::ClosedFormFigures(), testing::ProfileFigures(), testing::EqualTimeFigures(),
        testing::UnequalTimeFigures(), testing::OverlapFigures(), testing::StillFigures(),
        testing::ModelFigures()}) {
    equals.push_back(table.NumEqual());
  }
  EXPECT_EQ(said, equals);
}

TEST(ReferenceFigures, AFigureThatDiffersIsNotEqual) {
  const testing::FigureTable table{
      .title = "made up",
      .rows = {{.label = "zb-v", .p = 4, .figures = {{"a", 1.01, 1, .02}, {"b", 1.03, 1, .02}}},
               {.label = "zb-v", .p = 8, .figures = {{"c", 7, 1, -1}}}}};
  EXPECT_EQ(table.NumJudged(), 2);
  EXPECT_EQ(table.NumEqual(), 1);
}

// On every rank, not only the first.
TEST(ReferenceFigures, ZeroBubblePeaksAreTheSameOnAllRanks) {
  for (const int p : {4, 8, 16}) {
    const auto peaks = [p](const char* name) {
      const Schedule schedule =
          *Generate({.name = name, .num_ranks = p, .num_microbatches = 2 * p});
      const StageCost cost{.forward_ns = 10, .backward_input_ns = 10, .backward_weight_ns = 10};
      return Simulate(schedule, CostModel::Uniform(schedule, cost))->peak_activations;
    };
    EXPECT_EQ(peaks("zb-h1"), std::vector<double>(p, p));
    EXPECT_EQ(peaks("zb-h2"), std::vector<double>(p, 2 * p - 1));
  }
}

}  // namespace
}  // namespace troupe
