#include "coordinator/cli/collectives_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include <nlohmann/json.hpp>

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> WordsOf(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

TEST(CollectivesTable, SizesAreThoseThatWorkersCanShare) {
  CollectivesRequest request{
      .workers = 3, .operation = "all-gather", .min_bytes = 100, .max_bytes = 1000, .factor = 3};
  const auto rows = RowsOf(request);
  ASSERT_TRUE(rows.ok());
  ASSERT_EQ(rows->size(), 3u);
  EXPECT_EQ((*rows)[0].count, 24);  // 96 of 100 bytes
  EXPECT_EQ((*rows)[1].count, 75);
  EXPECT_EQ((*rows)[2].count, 225);
  EXPECT_TRUE((*rows)[0].in_place && (*rows)[0].out_of_place);
  request.min_bytes = 8;
  EXPECT_EQ(RowsOf(request).error().message,
            "--min-bytes 8: all-gather of float32 among 3 workers has at least 12 bytes");
  request.min_bytes = 2000;
  EXPECT_EQ(RowsOf(request).error().message, "--max-bytes 1000: use at least --min-bytes, 2000");
}

TEST(CollectivesTable, ARingIsRefusedWhereNothingGoesAlongIt) {
  const auto runs = [](const std::string& operation) {
    const auto rows = RowsOf({.operation = operation, .reduction = "ring"});
    EXPECT_TRUE(rows.ok() ||
                rows.error().message.starts_with("--reduction ring: " + operation + " does not"));
    return rows.ok();
  };
  for (const std::string& operation : CollectiveOperations()) {
    EXPECT_EQ(runs(operation), operation == "all-reduce" || operation == "reduce-scatter");
  }
}

TEST(CollectivesTable, BuffersThatTheHostCannotHoldAreRefused) {
  const CollectivesRequest request{.workers = 3, .operation = "reduce", .max_bytes = 1000};
  EXPECT_TRUE(CheckRoom(request, 6000).ok());
  EXPECT_EQ(CheckRoom(request, 5999).error().message,
            "--max-bytes 1000: 3 workers hold 6000 bytes of buffers, and this host has 5999 left");
  const auto least = [](const std::string& operation) {
    const CollectivesRequest of_four{.workers = 4, .operation = operation, .max_bytes = 1000};
    for (int64_t bytes = 0;; bytes += 1000) {
      if (CheckRoom(of_four, bytes).ok()) return bytes;
    }
  };
  EXPECT_EQ(least("all-reduce"), 4000);
  EXPECT_EQ(least("all-gather"), 5000);
  EXPECT_EQ(least("reduce-scatter"), 5000);
  EXPECT_EQ(least("all-to-all"), 8000);
}

TEST(CollectivesTable, OperationsHaveTheirForms) {
  const auto forms = [](const char* operation) {
    const auto rows = RowsOf({.operation = operation});
    return std::pair(rows->front().out_of_place.has_value(), rows->front().in_place.has_value());
  };
  EXPECT_EQ(forms("all-reduce"), std::pair(false, true));
  EXPECT_EQ(forms("broadcast"), std::pair(false, true));
  EXPECT_EQ(forms("reduce"), std::pair(true, true));
  EXPECT_EQ(forms("reduce-scatter"), std::pair(true, true));
  EXPECT_EQ(forms("all-to-all"), std::pair(true, false));
}

TEST(CollectivesTable, ALineHasTheColumnsOfNcclTests) {
  CollectivesRequest request{.workers = 4, .operation = "all-reduce"};
  const CollectiveRow row{.count = 262'144, .in_place = CollectiveTimes{1000, 0}};
  EXPECT_THAT(WordsOf(CollectivesLine(request, row)),
              ElementsAre("1048576", "262144", "float", "sum", "-1", "N/A", "N/A", "N/A", "N/A",
                          "1000.0", "1.05", "1.57", "0"));
  request.operation = "reduce-scatter";
  request.dtype = "float16";
  const CollectiveRow parts{.count = 524'288,
                            .out_of_place = CollectiveTimes{12.345, 2},
                            .in_place = CollectiveTimes{12345, 0}};
  EXPECT_THAT(WordsOf(CollectivesLine(request, parts)),
              ElementsAre("1048576", "131072", "half", "sum", "-1", "12.35", "84.94", "63.70", "2",
                          "12345", "0.08", "0.06", "0"));
  request.operation = "broadcast";
  EXPECT_THAT(WordsOf(CollectivesLine(request, {.count = 1, .in_place = CollectiveTimes{1, 0}})),
              ElementsAre("2", "1", "half", "none", "0", "N/A", "N/A", "N/A", "N/A", "1.00", "0.00",
                          "0.00", "0"));
  const std::string header = CollectivesHeader(request);
  EXPECT_THAT(header, HasSubstr("# broadcast among 4 workers of this host, reduction ordered, "
                                "bound to: cpu, shared buffers\n"));
  const size_t names = header.find("#       size");
  ASSERT_NE(names, std::string::npos) << header;
  EXPECT_THAT(WordsOf(header.substr(names + 1, header.find('\n', names) - names)),
              ElementsAre("size", "count", "type", "redop", "root", "time", "algbw", "busbw",
                          "#wrong", "time", "algbw", "busbw", "#wrong"));
  // Numbers stand below their names.
  EXPECT_EQ(CollectivesLine(request, parts).size(), header.find('\n', names) + 1 - names);
}

TEST(CollectivesTable, TheEndCountsWhatWasWrong) {
  const CollectivesRequest request{.workers = 2};
  std::vector<CollectiveRow> rows = {{.count = 1000, .in_place = CollectiveTimes{1, 0}},
                                     {.count = 1000, .in_place = CollectiveTimes{2, 0}}};
  EXPECT_EQ(CollectivesFooter(request, rows),
            "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 3\n#\n");
  rows[1].in_place->num_wrong = 3;
  EXPECT_THAT(CollectivesFooter(request, rows), HasSubstr(": 3 FAILED\n"));
  const auto json = nlohmann::json::parse(CollectivesJson(request, rows));
  EXPECT_EQ(json["wrong"], 3);
  EXPECT_EQ(json["mean_busbw"], 3.0);
  EXPECT_EQ(json["rows"][1]["bytes"], 4000);
  EXPECT_EQ(json["rows"][1]["in_place"]["time_us"], 2.0);
  EXPECT_TRUE(json["rows"][1]["out_of_place"].is_null());
}

}  // namespace
}  // namespace troupe
