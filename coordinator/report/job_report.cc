#include "coordinator/report/job_report.h"

#include <fmt/format.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "coordinator/report/metrics_json.h"

namespace troupe {
namespace {

using Json = nlohmann::ordered_json;

std::string Dumped(const Json& json, OutputFormat format) {
  const int indent = format == OutputFormat::kJson ? 2 : -1;
  return json.dump(indent, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) + "\n";
}

Json JobJson(const proto::JobSummary& job) {
  Json json;
  json["job"] = job.job();
  json["name"] = job.name();
  json["state"] = JobStateName(job.state());
  json["step"] = job.step();
  json["steps"] = job.steps();
  json["loss"] = job.loss();
  json["tokens_per_second"] = job.tokens_per_second();
  json["layout"] = job.layout();
  json["workers"] = job.workers();
  json["hosts"] = Json::array();
  for (const auto& host : job.hosts()) json["hosts"].push_back(host);
  json["submitted"] = static_cast<double>(job.submitted_wall_us()) * 1e-6;
  json["ended"] = job.ended_wall_us() == 0 ? Json(nullptr)
                                           : Json(static_cast<double>(job.ended_wall_us()) * 1e-6);
  json["run_dir"] = job.run_directory();
  json["exit_code"] = job.ended_wall_us() == 0 ? Json(nullptr) : Json(job.exit_code());
  json["reason"] = job.reason();
  return json;
}

std::string HostsInWords(const proto::JobSummary& job) {
  if (job.hosts().empty()) return "-";
  if (job.hosts_size() == 1) return job.hosts(0);
  return fmt::format("{} +{}", job.hosts(0), job.hosts_size() - 1);
}

std::string JobsTable(const proto::ListJobsReply& reply, int64_t now_wall_us) {
  std::string table =
      fmt::format("{:<5} {:<20} {:<10} {:>11} {:>8} {:>9} {:<7} {:>6} {:<12} {}\n", "JOB", "NAME",
                  "STATE", "STEP", "LOSS", "TOK/S", "LAYOUT", "AGE", "HOSTS", "RUN DIRECTORY");
  for (const auto& job : reply.jobs()) {
    table += fmt::format(
        "{:<5} {:<20} {:<10} {:>11} {:>8.4f} {:>9.0f} {:<7} {:>6} {:<12} {}\n", job.job(),
        job.name(), JobStateName(job.state()), fmt::format("{}/{}", job.step(), job.steps()),
        job.loss(), job.tokens_per_second(), job.layout(),
        Age(now_wall_us - job.submitted_wall_us()), HostsInWords(job), job.run_directory());
  }
  return table;
}

}  // namespace

std::string Age(int64_t microseconds) {
  const int64_t seconds = std::max<int64_t>(0, microseconds / 1'000'000);
  if (seconds < 100) return fmt::format("{}s", seconds);
  if (seconds < 6000) return fmt::format("{}m", seconds / 60);
  if (seconds < 100 * 3600) return fmt::format("{}h{:02}m", seconds / 3600, seconds % 3600 / 60);
  return fmt::format("{}d{:02}h", seconds / 86400, seconds % 86400 / 3600);
}

std::string JobsReport(const proto::ListJobsReply& reply, OutputFormat format,
                       int64_t now_wall_us) {
  if (format == OutputFormat::kText) return JobsTable(reply, now_wall_us);
  if (format == OutputFormat::kJsonl) {
    std::string lines;
    for (const auto& job : reply.jobs()) lines += Dumped(JobJson(job), format);
    return lines;
  }
  Json json = {{"jobs", Json::array()}, {"hosts", Json::array()}};
  for (const auto& job : reply.jobs()) json["jobs"].push_back(JobJson(job));
  for (const auto& host : reply.hosts()) {
    json["hosts"].push_back(
        {{"name", host.name()}, {"slots", host.slots()}, {"slots_used", host.slots_used()}});
  }
  return Dumped(json, format);
}

std::string StatusReport(const proto::GetStatusReply& reply, OutputFormat format) {
  const proto::JobSummary& job = reply.summary();
  if (format != OutputFormat::kText) {
    Json json = JobJson(job);
    json["waits"] = Json::array();
    for (const auto& edge : reply.waits()) {
      json["waits"].push_back({{"waiter", edge.waiter()},
                               {"owed", edge.owed()},
                               {"from", edge.from()},
                               {"step", edge.step()},
                               {"microbatch", edge.microbatch()},
                               {"waited_ms", edge.waited_ms()}});
    }
    if (!reply.root().empty()) json["root"] = reply.root();
    return Dumped(json, format);
  }
  std::string text = fmt::format("job {} {}: {}, step {}/{}, loss {:.4f}\n", job.job(), job.name(),
                                 JobStateName(job.state()), job.step(), job.steps(), job.loss());
  if (!job.reason().empty()) text += fmt::format("  {}\n", job.reason());
  for (const auto& edge : reply.waits()) {
    text += fmt::format("  {} waits {} ms for {} from {}\n", edge.waiter(), edge.waited_ms(),
                        edge.owed(), edge.from());
  }
  if (!reply.root().empty()) text += fmt::format("  the root: {}\n", reply.root());
  return text;
}

std::string CancelReport(uint64_t job, const proto::CancelReply& reply, OutputFormat format) {
  if (format == OutputFormat::kText) return fmt::format("{}\n", JobStateName(reply.state()));
  return Dumped({{"job", job}, {"state", JobStateName(reply.state())}}, format);
}

std::string SubmitReport(const proto::SubmitReply& reply, OutputFormat format) {
  if (format == OutputFormat::kText) return fmt::format("{}\n", reply.job());
  return Dumped({{"job", reply.job()}, {"run_dir", reply.run_directory()}}, format);
}

}  // namespace troupe
