#include "coordinator/ops/list_jobs.h"

#include "coordinator/job_life.h"

namespace troupe {

proto::ListJobsReply ListJobs(const State& state) {
  proto::ListJobsReply reply;
  for (const auto& [id, job] : state.jobs) *reply.add_jobs() = job->summary();
  for (const auto& [id, host] : state.hosts) {
    auto* summary = reply.add_hosts();
    summary->set_name(host.name);
    summary->set_slots(host.slots);
    summary->set_slots_used(static_cast<int>(host.used_slots.size()));
  }
  return reply;
}

}  // namespace troupe
