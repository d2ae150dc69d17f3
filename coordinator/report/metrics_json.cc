#include "coordinator/report/metrics_json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace troupe {

std::string JsonText(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string MetricsJson(const proto::StepMetrics& m, int num_workers, int64_t wall_us) {
  return fmt::format(
      R"({{"step":{},"time":{:.6f},"loss":{:.17g},"grad_norm":{:.17g},"lr":{:.17g},"tokens":{},)"
      R"("tokens_per_second":{:.17g},"tokens_per_second_per_worker":{:.17g},"mfu":null,)"
      R"("step_seconds":{:.17g},"data_seconds":{:.17g},"comm_seconds":{:.17g},)"
      R"("bubble_fraction":{:.17g}}})",
      m.step(), static_cast<double>(wall_us) * 1e-6, m.loss(), m.grad_norm(), m.lr(), m.tokens(),
      m.tokens_per_second(), m.tokens_per_second() / num_workers, m.step_seconds(),
      m.data_seconds(), m.comm_seconds(), m.bubble_fraction());
}

std::string EvalJson(const proto::EvalMetrics& m, int64_t wall_us) {
  return fmt::format(R"({{"step":{},"time":{:.6f},"val/loss":{:.17g},"val/tokens":{}}})", m.step(),
                     static_cast<double>(wall_us) * 1e-6, m.val_loss(), m.tokens());
}

std::string ResultJson(const proto::JobResult& r) {
  return fmt::format(
      R"({{"event":"result","state":{},"exit_code":{},"run_dir":{},"reason":{},"checkpoint":{},)"
      R"("parity":{}}})",
      JsonText(JobStateName(r.state())), r.exit_code(), JsonText(r.run_directory()),
      JsonText(r.reason()), JsonText(r.checkpoint()), JsonText(r.parity()));
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
    default:
      return "UNKNOWN";
  }
}

}  // namespace troupe
