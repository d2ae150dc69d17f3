#include "coordinator/report/metrics_json.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include <nlohmann/json.hpp>

namespace troupe {
namespace {

TEST(MetricsJsonTest, FloatsComeBackToTheBit) {
  proto::StepMetrics metrics;
  metrics.set_step(7);
  metrics.set_loss(0.1 + 0.2);
  metrics.set_grad_norm(1.0 / 3.0);
  metrics.set_tokens_per_second(1000);
  const auto json = nlohmann::json::parse(MetricsJson(metrics, 4, 5'000'000, {{2, 1024}}));
  EXPECT_EQ(std::bit_cast<uint64_t>(json["loss"].get<double>()),
            std::bit_cast<uint64_t>(0.1 + 0.2));
  EXPECT_EQ(json["grad_norm"].get<double>(), 1.0 / 3.0);
  EXPECT_EQ(json["tokens_per_second_per_worker"], 250.0);
  EXPECT_EQ(json["time"], 5.0);
  EXPECT_EQ(json["memory_peak_bytes"]["2"], 1024);
}

TEST(MetricsJsonTest, EveryPromisedKeyIsThere) {
  const auto json = nlohmann::json::parse(MetricsJson({}, 1, 0));
  for (const char* key : {"step", "time", "loss", "grad_norm", "lr", "tokens", "tokens_per_second",
                          "tokens_per_second_per_worker", "mfu", "step_seconds", "data_seconds",
                          "comm_seconds", "bubble_fraction"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
}

TEST(MetricsJsonTest, WhatIsNotFiniteIsStillJson) {
  proto::StepMetrics metrics;
  metrics.set_loss(std::nan(""));
  metrics.set_grad_norm(HUGE_VAL);
  const auto json = nlohmann::json::parse(MetricsJson(metrics, 1, 0));
  EXPECT_TRUE(json["loss"].is_null());
  EXPECT_TRUE(json["grad_norm"].is_null());
}

TEST(MetricsJsonTest, WhatNoLabelCountedForIsNull) {
  proto::StepMetrics metrics;
  metrics.set_step(7);
  metrics.set_tokens(100);
  const auto skipped = nlohmann::json::parse(MetricsJson(metrics, 1, 0));
  EXPECT_TRUE(skipped["loss"].is_null());
  EXPECT_TRUE(skipped["grad_norm"].is_null());
  EXPECT_EQ(skipped["tokens"], 100);
  metrics.set_loss(0);
  EXPECT_EQ(nlohmann::json::parse(MetricsJson(metrics, 1, 0))["loss"], 0) << "a loss like any";
  const auto evaluated = nlohmann::json::parse(EvalJson({}, 0));
  EXPECT_TRUE(evaluated["val/loss"].is_null());
  EXPECT_EQ(evaluated["val/tokens"], 0);
}

TEST(MetricsJsonTest, AResultQuotesWhatItQuotes) {
  proto::JobResult result;
  result.set_state(proto::JOB_STATE_FAILED);
  result.set_exit_code(5);
  result.set_reason("rank 1 said \"no\"\n\xff");
  result.set_run_directory("/runs/a");
  const std::string text = ResultJson(result);
  EXPECT_TRUE(text.starts_with(R"({"event":"result","state":"FAILED","exit_code":5,)")) << text;
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json["run_dir"], "/runs/a");
  EXPECT_EQ(json["reason"], "rank 1 said \"no\"\n\uFFFD");
}

TEST(MetricsJsonTest, AResultHasWhatTheJobMade) {
  proto::JobResult result;
  const auto parse = [&result] { return nlohmann::json::parse(ResultJson(result)); };
  for (const char* key : {"val/loss", "sample", "missing_records"}) {
    EXPECT_FALSE(parse().contains(key)) << key;
  }
  result.set_val_loss(0.1);
  result.mutable_sample()->set_prompt("once");
  result.mutable_sample()->set_continuation("upon\n\xff");
  result.add_missing_records("metrics.jsonl lacks 3 of 4 lines");
  result.add_missing_records("tb: \"full\"");
  EXPECT_EQ(parse()["val/loss"], 0.1);
  EXPECT_EQ(parse()["sample"]["prompt"], "once");
  EXPECT_EQ(parse()["sample"]["continuation"], "upon\n\uFFFD");
  EXPECT_EQ(parse()["missing_records"][1], "tb: \"full\"");
}

TEST(MetricsJsonTest, PeaksOnlyGrow) {
  MemoryPeaks peaks;
  proto::MemoryReport report;
  report.add_tags()->set_peak_bytes(10);
  report.add_tags()->set_peak_bytes(5);
  NotePeak(peaks, 1, report);
  report.mutable_tags(0)->set_peak_bytes(2);
  NotePeak(peaks, 1, report);
  EXPECT_EQ(peaks, (MemoryPeaks{{1, 15}}));
}

}  // namespace
}  // namespace troupe
