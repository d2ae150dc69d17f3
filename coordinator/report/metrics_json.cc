#include "coordinator/report/metrics_json.h"

#include <algorithm>

#include "runtime/format/metrics_file.h"

namespace troupe {

namespace {

// A column stays where it has no number.
void AddOrNull(JsonLine& line, std::string_view key, bool known, double value) {
  if (known) {
    line.Add(key, value);
  } else {
    line.AddJson(key, "null");
  }
}

}  // namespace

std::string JsonText(std::string_view text) { return JsonString(text); }

void NotePeak(MemoryPeaks& peaks, int32_t rank, const proto::MemoryReport& report) {
  int64_t held = 0;
  for (const auto& tag : report.tags()) held += tag.peak_bytes();
  int64_t& peak = peaks[rank];
  peak = std::max(peak, held);
}

std::string MetricsJson(const proto::StepMetrics& m, int num_workers, int64_t wall_us,
                        const MemoryPeaks& peaks, int64_t restarts) {
  JsonLine line;
  line.Add("step", m.step()).Add("time", static_cast<double>(wall_us) * 1e-6);
  AddOrNull(line, "loss", m.has_loss(), m.loss());
  AddOrNull(line, "grad_norm", m.has_grad_norm(), m.grad_norm());
  line.Add("lr", m.lr())
      .Add("tokens", m.tokens())
      .Add("tokens_per_second", m.tokens_per_second())
      .Add("tokens_per_second_per_worker", m.tokens_per_second() / std::max(1, num_workers))
      .Add("step_seconds", m.step_seconds())
      .Add("data_seconds", m.data_seconds())
      .Add("comm_seconds", m.comm_seconds())
      .Add("bubble_fraction", m.bubble_fraction());
  AddOrNull(line, "mfu", m.mfu() > 0, m.mfu());
  if (restarts >= 0) line.Add("restarts", restarts);
  if (!peaks.empty()) {
    JsonLine by_rank;
    for (const auto& [rank, peak] : peaks) by_rank.Add(std::to_string(rank), peak);
    line.AddJson("memory_peak_bytes", by_rank.Text());
  }
  return line.Text();
}

std::string EvalJson(const proto::EvalMetrics& m, int64_t wall_us) {
  JsonLine line;
  line.Add("step", m.step()).Add("time", static_cast<double>(wall_us) * 1e-6);
  AddOrNull(line, "val/loss", m.has_val_loss(), m.val_loss());
  return line.Add("val/tokens", m.tokens()).Text();
}

std::string ResultJson(const proto::JobResult& r) {
  JsonLine line;
  line.Add("event", "result")
      .Add("state", JobStateName(r.state()))
      .Add("exit_code", int64_t{r.exit_code()})
      .Add("run_dir", r.run_directory())
      .Add("reason", r.reason())
      .Add("checkpoint", r.checkpoint())
      .Add("checkpoint_step", int64_t{r.checkpoint_step()})
      .Add("parity", r.parity());
  if (r.has_val_loss()) line.Add("val/loss", r.val_loss());
  if (r.has_sample()) {
    line.AddJson("sample", JsonLine()
                               .Add("prompt", r.sample().prompt())
                               .Add("continuation", r.sample().continuation())
                               .Text());
  }
  if (r.missing_records_size() > 0) {
    std::string missing;
    for (const std::string& sentence : r.missing_records()) {
      missing += (missing.empty() ? "" : ",") + JsonString(sentence);
    }
    line.AddJson("missing_records", "[" + missing + "]");
  }
  return line.Text();
}

std::string_view JobStateName(proto::JobState state) {
  switch (state) {
    case proto::JOB_STATE_QUEUED:
      return "QUEUED";
    case proto::JOB_STATE_STARTING:
      return "STARTING";
    case proto::JOB_STATE_RUNNING:
      return "RUNNING";
    case proto::JOB_STATE_DRAINING:
      return "DRAINING";
    case proto::JOB_STATE_SUCCEEDED:
      return "SUCCEEDED";
    case proto::JOB_STATE_FAILED:
      return "FAILED";
    case proto::JOB_STATE_CANCELLED:
      return "CANCELLED";
    case proto::JOB_STATE_PREEMPTED:
      return "PREEMPTED";
    default:
      return "UNKNOWN";
  }
}

}  // namespace troupe
