// What a coordinator says about its jobs, in the form that was asked for. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "proto/control.pb.h"

namespace troupe {

// The values of -o: for people; one JSON document; one JSON object a line.
enum class OutputFormat : uint8_t { kText, kJson, kJsonl };

// A table; {"jobs":[…],"hosts":[…]}; an object a job. `now_wall_us`: what a job's age ends at.
std::string JobsReport(const proto::ListJobsReply& reply, OutputFormat format, int64_t now_wall_us);
// "45s", "12m", "3h05m", "4d07h".
std::string Age(int64_t microseconds);
// A few lines; otherwise the job's object with "waits": who waits for whom.
std::string StatusReport(const proto::GetStatusReply& reply, OutputFormat format);
// The state's name; {"job":…,"state":…}.
std::string CancelReport(uint64_t job, const proto::CancelReply& reply, OutputFormat format);
// The number alone; {"job":…,"run_dir":…}.
std::string SubmitReport(const proto::SubmitReply& reply, OutputFormat format);

}  // namespace troupe
