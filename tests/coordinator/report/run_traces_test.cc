#include "coordinator/report/run_traces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include <nlohmann/json.hpp>

#include "tests/runtime/actor/manual_clock.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/temporary_folder.h"

namespace troupe::testing {
namespace {

using ::testing::ElementsAre;

proto::TraceWindow Window(int first, int steps, int every) {
  proto::TraceWindow window;
  window.set_first(first);
  window.set_steps(steps);
  window.set_every(every);
  return window;
}

TEST(TraceWindowTest, StartsWhereItIsTold) {
  const TraceWindow once(Window(3, 2, 0), 1);
  for (const int64_t step : {1, 2, 5, 6, 1000}) EXPECT_FALSE(once.Covers(step)) << step;
  for (const int64_t step : {3, 4}) EXPECT_TRUE(once.Covers(step)) << step;
  EXPECT_EQ(once.FirstOf(4), 3);
  EXPECT_EQ(once.LastOf(3), 4);
}

TEST(TraceWindowTest, ComesAgain) {
  const TraceWindow window(Window(2, 2, 10), 1);
  std::vector<int64_t> covered;
  for (int64_t step = 0; step <= 25; ++step) {
    if (window.Covers(step)) covered.push_back(step);
  }
  EXPECT_THAT(covered, ElementsAre(2, 3, 12, 13, 22, 23));
  EXPECT_EQ(window.FirstOf(13), 12);
  EXPECT_EQ(window.LastOf(12), 13);
}

TEST(TraceWindowTest, ARunThatGoesOnLaterHasOneOfItsOwn) {
  const TraceWindow once(Window(1, 4, 0), 151);
  EXPECT_FALSE(once.Covers(150));
  EXPECT_TRUE(once.Covers(151));
  EXPECT_TRUE(once.Covers(154));
  EXPECT_FALSE(once.Covers(155));
  const TraceWindow again(Window(1, 4, 10), 23);  // in the midst of 21 to 24
  EXPECT_FALSE(again.Covers(22));
  EXPECT_TRUE(again.Covers(24));
  EXPECT_EQ(again.FirstOf(24), 23) << "the file of the run before stays";
}

TEST(TraceWindowTest, NoStepsAreNone) {
  EXPECT_FALSE(TraceWindow().Covers(1));
  EXPECT_FALSE(TraceWindow(Window(1, 0, 0), 1).Covers(1));
}

class RunTracesTest : public ::testing::Test {
 protected:
  RunTraces& With(const TraceWindow& window, FileSystem& files = SystemFiles()) {
    traces_.emplace(files, clock_, clocks_, folder_ / "trace", window);
    return *traces_;
  }
  void Tell(int64_t step, const std::string& name = "Forward") {
    proto::Span span;
    span.set_name(name);
    span.set_category("compute");
    span.set_step(step);
    span.set_start_ns(step * 1000);
    span.set_end_ns(step * 1000 + 100);
    traces_->Add(0, span);
  }
  std::set<int64_t> StepsIn(const std::string& name) {
    std::set<int64_t> steps;
    const auto text = SystemFiles().ReadFile(folder_ / ("trace/" + name), 1 << 20);
    if (!text.ok()) return steps;
    const auto json = nlohmann::json::parse(*text);
    for (const auto& event : json["traceEvents"]) {
      if (event["ph"] == "X") steps.insert(event["args"]["step"].get<int64_t>());
    }
    return steps;
  }

  const TemporaryFolder folder_{};
  ManualClock clock_{};
  ClockAlignment clocks_{};
  std::optional<RunTraces> traces_{};
};

TEST_F(RunTracesTest, EveryWindowIsAFileOfItsStepsAlone) {
  RunTraces& traces = With(TraceWindow(Window(2, 2, 5), 1));
  for (int64_t step = 1; step <= 9; ++step) {
    Tell(step);
    EXPECT_TRUE(traces.StepDone(step).ok());
  }
  EXPECT_TRUE(traces.Finish().ok());
  EXPECT_THAT(*SystemFiles().List(folder_ / "trace"),
              ElementsAre("step-00000002.json", "step-00000007.json"));
  EXPECT_THAT(StepsIn("step-00000002.json"), ElementsAre(2, 3));
  EXPECT_THAT(StepsIn("step-00000007.json"), ElementsAre(7, 8));
  EXPECT_EQ(traces.spans_left_out(), 0);
}

TEST_F(RunTracesTest, AWindowIsWrittenWhenLateSpansHaveHadTheirTime) {
  RunTraces& traces = With(TraceWindow(Window(1, 2, 0), 1));
  Tell(1);
  ASSERT_TRUE(traces.StepDone(3).ok());
  Tell(2);
  EXPECT_THAT(StepsIn("step-00000001.json"), ElementsAre()) << "spans may be under way";
  clock_.AdvanceMs(RunTraces::kLateMs);
  ASSERT_TRUE(traces.StepDone(4).ok());
  EXPECT_THAT(StepsIn("step-00000001.json"), ElementsAre(1, 2));
  Tell(2);
  EXPECT_EQ(traces.spans_left_out(), 1) << "too late";
  EXPECT_TRUE(traces.Finish().ok());
  EXPECT_THAT(StepsIn("step-00000001.json"), ElementsAre(1, 2));
}

TEST_F(RunTracesTest, WithoutSpansThereIsNoFile) {
  RunTraces& traces = With(TraceWindow());
  Tell(1);
  EXPECT_TRUE(traces.Finish().ok());
  EXPECT_FALSE(SystemFiles().Exists(folder_ / "trace"));
}

TEST_F(RunTracesTest, WhatRanksInventIsBounded) {
  RunTraces& traces = With(TraceWindow(Window(1, 1, 1), 1));
  Tell(1, std::string(1 << 20, 'n'));
  constexpr int64_t kWindows = static_cast<int64_t>(RunTraces::kOpenMax);
  for (int64_t step = 2; step <= kWindows + 3; ++step) Tell(step);
  EXPECT_EQ(traces.spans_left_out(), 1 + 3) << "a name, and windows that no step has opened";
  for (size_t i = 0; i < RunTraces::kSpansMax + 10; ++i) Tell(1);
  EXPECT_EQ(traces.spans_left_out(), 4 + 10);
}

TEST_F(RunTracesTest, AWindowIsThereWholeOrNotAtAll) {
  RunTraces& traces = With(TraceWindow(Window(1, 2, 2), 1));
  constexpr size_t kEach = RunTraces::kSpansMax;  // spans of a window
  int64_t step = 1;
  for (; traces.windows_left_out() == 0; step += 2) {
    for (size_t i = 0; i < kEach; ++i) Tell(step);
  }
  EXPECT_EQ(step, 1 + 2 * (1 + static_cast<int64_t>(RunTraces::kOpenSpansMax / kEach)));
  EXPECT_EQ(traces.spans_left_out(), static_cast<int64_t>(kEach));
  const int64_t left_out = step - 2;
  ASSERT_TRUE(traces.StepDone(left_out).ok());
  clock_.AdvanceMs(RunTraces::kLateMs);
  ASSERT_TRUE(traces.StepDone(left_out).ok());
  Tell(left_out + 1);  // there would be room again
  Tell(left_out + 2);
  EXPECT_TRUE(traces.Finish().ok());
  const auto names = *SystemFiles().List(folder_ / "trace");
  EXPECT_FALSE(SystemFiles().Exists(folder_ / fmt::format("trace/step-{:08}.json", left_out)));
  EXPECT_TRUE(SystemFiles().Exists(folder_ / fmt::format("trace/step-{:08}.json", left_out + 2)));
}

TEST_F(RunTracesTest, AFullDiskIsAnError) {
  FaultyFileSystem files({.full_after_bytes = 10});
  RunTraces& traces = With(TraceWindow(Window(1, 1, 0), 1), files);
  Tell(1);
  const Status finished = traces.Finish();
  ASSERT_FALSE(finished.ok());
  EXPECT_EQ(finished.error().code, ErrorCode::kOutOfSpace);
}

}  // namespace
}  // namespace troupe::testing
