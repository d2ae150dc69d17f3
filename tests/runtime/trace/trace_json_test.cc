#include "runtime/trace/trace_json.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace troupe {
namespace {

using nlohmann::json;

struct TraceJsonTest : ::testing::Test {
  json Parsed() {
    writer.Finish();
    return json::parse(text);
  }
  // The events of one phase, in order.
  std::vector<json> Events(const json& trace, const std::string& phase) {
    std::vector<json> found;
    for (const auto& event : trace["traceEvents"]) {
      if (event["ph"] == phase) found.push_back(event);
    }
    return found;
  }
  std::string text{};
  TraceJsonWriter writer{[this](std::string_view piece) { text += piece; }};
};

TEST_F(TraceJsonTest, AnEmptyTraceIsValid) {
  const json trace = Parsed();
  EXPECT_TRUE(trace["traceEvents"].empty());
  EXPECT_EQ(trace["displayTimeUnit"], "ns");
}

TEST_F(TraceJsonTest, ASpanIsACompleteEventOnItsTrack) {
  writer.NameRank(Rank(1), "rank 1 on host-a");
  writer.Write({.category = SpanCategory::kCompute,
                .stage = 2,
                .rank = 1,
                .microbatch = 17,
                .step = 812,
                .start_ns = 1'234'567,
                .end_ns = 3'234'568,
                .cpu_ns = 1'500'000},
               "2F17", "compute");
  const json trace = Parsed();
  const auto spans = Events(trace, "X");
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans[0]["name"], "2F17");
  EXPECT_EQ(spans[0]["cat"], "compute");
  EXPECT_EQ(spans[0]["pid"], 1);
  EXPECT_DOUBLE_EQ(spans[0]["ts"], 1234.567);
  EXPECT_DOUBLE_EQ(spans[0]["dur"], 2000.001);
  EXPECT_EQ(spans[0]["args"]["step"], 812);
  EXPECT_EQ(spans[0]["args"]["stage"], 2);
  EXPECT_EQ(spans[0]["args"]["microbatch"], 17);
  EXPECT_EQ(spans[0]["args"]["core_wait_ns"], 500'001);
  std::map<std::string, json> names;
  for (const auto& event : Events(trace, "M")) names[event["name"]] = event;
  EXPECT_EQ(names["process_name"]["args"]["name"], "rank 1 on host-a");
  EXPECT_EQ(names["thread_name"]["args"]["name"], "compute");
  EXPECT_EQ(names["thread_name"]["tid"], spans[0]["tid"]);
}

TEST_F(TraceJsonTest, AnArrowJoinsTheSendingAndTheReceivingSpan) {
  writer.Write({.rank = 0, .flow_out = 41, .start_ns = 1000, .end_ns = 3000}, "send", "executor");
  writer.Write({.rank = 0, .flow_out = 42, .start_ns = 3000, .end_ns = 4000}, "send", "executor");
  writer.Write({.rank = 1, .flow_in = 41, .start_ns = 9000, .end_ns = 9500}, "receive", "executor");
  const json trace = Parsed();
  const auto starts = Events(trace, "s");
  const auto ends = Events(trace, "f");
  ASSERT_EQ(starts.size(), 2u);
  ASSERT_EQ(ends.size(), 1u);
  EXPECT_EQ(starts[0]["id"], ends[0]["id"]);
  EXPECT_NE(starts[1]["id"], ends[0]["id"]);
  // A viewer joins the halves only if all of these agree.
  for (const char* key : {"cat", "name"}) EXPECT_EQ(starts[0][key], ends[0][key]);
  EXPECT_EQ(ends[0]["bp"], "e");
  EXPECT_EQ(starts[0]["pid"], 0);
  EXPECT_EQ(ends[0]["pid"], 1);
  EXPECT_DOUBLE_EQ(starts[0]["ts"], 1.0) << "at the start of the send";
  EXPECT_DOUBLE_EQ(ends[0]["ts"], 9.499) << "inside the receive, where it is over";
}

TEST_F(TraceJsonTest, TimesBeforeZeroStayTimes) {
  writer.Write({.rank = 1, .start_ns = -4'001, .end_ns = -4'000}, "early", "t");
  EXPECT_DOUBLE_EQ(Events(Parsed(), "X")[0]["ts"], -4.001);
}

TEST_F(TraceJsonTest, AnyBytesMakeAValidName) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  const std::vector<std::string> names = {
      all, "\"\\\n\t", "überall — ok", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"};
  for (const auto& name : names) writer.Write({.start_ns = 0, .end_ns = 1}, name, name);
  const json trace = Parsed();
  const auto spans = Events(trace, "X");
  ASSERT_EQ(spans.size(), names.size());
  EXPECT_EQ(spans[1]["name"], "\"\\\n\t");
  EXPECT_EQ(spans[2]["name"], "überall — ok");
  EXPECT_EQ(spans[5]["name"], "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST_F(TraceJsonTest, TracksOfARankHaveTheirOwnLines) {
  writer.Write({.rank = 0, .end_ns = 1}, "a", "x");
  writer.Write({.rank = 0, .end_ns = 1}, "b", "y");
  writer.Write({.rank = 1, .end_ns = 1}, "c", "x");
  writer.Write({.rank = 0, .end_ns = 1}, "d", "x");
  const json trace = Parsed();
  const auto spans = Events(trace, "X");
  EXPECT_NE(spans[0]["tid"], spans[1]["tid"]);
  EXPECT_EQ(spans[0]["tid"], spans[3]["tid"]);
  EXPECT_EQ(Events(trace, "M").size(), 2u * 2 + 2u * 3)
      << "two ranks and three tracks are named once";
}

}  // namespace
}  // namespace troupe
