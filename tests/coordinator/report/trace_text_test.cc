#include "coordinator/report/trace_text.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace troupe::testing {
namespace {

using nlohmann::json;

constexpr int64_t kMs = 1'000'000;

TracedSpan Span(int32_t rank, const char* name, const char* category, int64_t start_ns,
                int64_t end_ns) {
  TracedSpan traced{.rank = rank};
  traced.span.set_name(name);
  traced.span.set_category(category);
  traced.span.set_start_ns(start_ns);
  traced.span.set_end_ns(end_ns);
  traced.span.set_microbatch(-1);
  traced.span.set_stage(-1);
  traced.span.set_step(3);
  return traced;
}
TracedSpan Send(int32_t rank, uint64_t flow, int64_t start_ns, int64_t end_ns) {
  TracedSpan traced = Span(rank, "send activation", "send", start_ns, end_ns);
  traced.span.set_flow_out(flow);
  return traced;
}
TracedSpan Receive(int32_t rank, uint64_t flow, int64_t start_ns, int64_t end_ns) {
  TracedSpan traced = Span(rank, "receive activation", "receive", start_ns, end_ns);
  traced.span.set_flow_in(flow);
  return traced;
}

class TraceTextTest : public ::testing::Test {
 protected:
  json Written(const std::vector<TracedSpan>& spans) {
    const TraceText text = WriteTrace(spans, names_, clocks_);
    left_out_ = text.spans_left_out;
    return json::parse(text.json)["traceEvents"];
  }
  static std::vector<json> Events(const json& events, const std::string& phase) {
    std::vector<json> found;
    for (const json& event : events) {
      if (event["ph"] == phase) found.push_back(event);
    }
    return found;
  }
  // Track name → names of its spans, in order.
  static std::map<std::string, std::vector<std::string>> Tracks(const json& events) {
    std::map<std::pair<int, int>, std::string> names;
    for (const json& event : Events(events, "M")) {
      if (event["name"] == "thread_name") {
        names[{event["pid"], event["tid"]}] = event["args"]["name"];
      }
    }
    std::map<std::string, std::vector<std::string>> tracks;
    for (const json& span : Events(events, "X")) {
      tracks[names.at({span["pid"], span["tid"]})].push_back(span["name"]);
    }
    return tracks;
  }
  static int64_t Ns(const json& microseconds) {
    return std::llround(microseconds.get<double>() * 1000);
  }

  ClockAlignment clocks_{};
  std::map<int32_t, std::string> names_{};
  int64_t left_out_ = 0;
};

TEST_F(TraceTextTest, SendsThatOverlapStandOnTracksOfTheirOwn) {
  const json events = Written({Send(0, 0, 100, 900), Send(0, 0, 200, 300), Send(0, 0, 400, 1000),
                               Send(0, 0, 2000, 2100), Span(0, "Forward", "compute", 0, 3000)});
  const auto tracks = Tracks(events);
  EXPECT_EQ(tracks.at("send").size(), 2u) << "the first, and the one after all";
  EXPECT_EQ(tracks.at("send 2").size(), 2u) << "one inside another is no part of it";
  EXPECT_EQ(tracks.at("compute").size(), 1u);
  EXPECT_EQ(left_out_, 0);
}

TEST_F(TraceTextTest, PhasesNestWithinTheirStep) {
  const json events =
      Written({Span(0, "vote", "step", 500, 700), Span(0, "optimizer", "step", 710, 890),
               Span(0, "step", "step", 100, 900), Span(0, "checkpoint", "io", 950, 990)});
  EXPECT_EQ(Tracks(events).at("step"),
            (std::vector<std::string>{"step 3", "vote", "optimizer", "checkpoint"}));
}

TEST_F(TraceTextTest, ASpanThatCrossesAnotherGoesBesideIt) {
  const auto tracks = Tracks(Written({Span(0, "a", "step", 0, 100), Span(0, "b", "step", 50, 150),
                                      Span(0, "c", "step", 100, 200)}));
  EXPECT_EQ(tracks.at("step"), (std::vector<std::string>{"a"}));
  EXPECT_EQ(tracks.at("step 2"), (std::vector<std::string>{"b"}));
  EXPECT_EQ(tracks.at("step 3"), (std::vector<std::string>{"c"}))
      << "a viewer that adds a start and a length in floating point would see an overlap";
}

TEST_F(TraceTextTest, ArrowsLeaveAtTheStartAndHaveBothEnds) {
  names_[1] = "rank 1 (pid 7)";
  const json events = Written({Send(0, 9, 1000, 5000), Receive(1, 9, 1500, 2000),
                               Send(0, 10, 1100, 5000), Receive(1, 11, 1, 2)});
  const auto starts = Events(events, "s");
  const auto ends = Events(events, "f");
  ASSERT_EQ(starts.size(), 1u) << "nobody received 10, nobody sent 11";
  ASSERT_EQ(ends.size(), 1u);
  EXPECT_EQ(Ns(starts[0]["ts"]), 1000);
  EXPECT_EQ(Ns(ends[0]["ts"]), 1999) << "inside the receive, at its end";
  EXPECT_EQ(starts[0]["id"], ends[0]["id"]);
  EXPECT_EQ(ends[0]["bp"], "e");
  EXPECT_EQ(Events(events, "M")[0]["args"]["name"], "rank 0");
}

TEST_F(TraceTextTest, EventsAreSorted) {
  std::vector<TracedSpan> spans;
  for (int i = 30; i > 0; --i) {
    spans.push_back(Send(0, static_cast<uint64_t>(i), i * 100, i * 100 + 450));
    spans.push_back(Receive(1, static_cast<uint64_t>(i), i * 100 + 50, i * 100 + 400));
  }
  double last = -1;
  for (const json& event : Written(spans)) {
    if (!event.contains("ts")) continue;
    EXPECT_GE(event["ts"].get<double>(), last);
    last = event["ts"].get<double>();
  }
}

TEST_F(TraceTextTest, NoArrowRunsBackwardsWhereAClockIsWrong) {
  clocks_.Add(0, 100 * kMs, 1'000'000);
  clocks_.Add(1, 900'000 * kMs, 993'000);  // another boot; its wall clock is 7 ms slow
  std::vector<TracedSpan> spans;
  for (int i = 0; i < 20; ++i) {  // hops of 1 ms, back and forth
    const auto flow = static_cast<uint64_t>(i) + 1;
    const int64_t there = 200 * kMs + i * 10 * kMs;
    const int64_t beyond = 900'100 * kMs + i * 10 * kMs;
    spans.push_back(Send(0, flow, there, there + kMs));
    spans.push_back(Receive(1, flow, beyond + kMs, beyond + kMs + 1000));
    spans.push_back(Send(1, flow + 100, beyond + 5 * kMs, beyond + 6 * kMs));
    spans.push_back(Receive(0, flow + 100, there + 6 * kMs, there + 6 * kMs + 1000));
  }
  const json events = Written(spans);
  std::map<int, std::pair<int64_t, int64_t>> arrows;
  for (const json& event : Events(events, "s")) arrows[event["id"]].first = Ns(event["ts"]);
  for (const json& event : Events(events, "f")) arrows[event["id"]].second = Ns(event["ts"]);
  EXPECT_EQ(arrows.size(), 40u);
  for (const auto& [id, arrow] : arrows) EXPECT_LE(arrow.first, arrow.second) << id;
}

TEST_F(TraceTextTest, ClocksThatContradictOneAnotherLoseTheArrowAlone) {
  clocks_.Add(0, 0, 1'000'000);
  clocks_.Add(1, 0, 1'000'000);  // one clock, by their hellos
  const json events = Written({Send(0, 1, 5000, 6000), Receive(1, 1, 100, 200)});
  EXPECT_EQ(Events(events, "X").size(), 2u);
  EXPECT_TRUE(Events(events, "s").empty());
  EXPECT_TRUE(Events(events, "f").empty());
}

TEST_F(TraceTextTest, WhatOverlapsWithoutEndIsCounted) {
  std::vector<TracedSpan> spans;
  for (int i = 0; i < 100; ++i) spans.push_back(Send(0, 0, i, 1000 + i));
  EXPECT_EQ(Events(Written(spans), "X").size(), 64u);
  EXPECT_EQ(left_out_, 36);
}

}  // namespace
}  // namespace troupe::testing
