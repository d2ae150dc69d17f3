// What an effective job must satisfy before it may start: the same at the command line and at the
// coordinator, whoever sends it. Pure.
#pragma once

#include <vector>

#include "proto/job.pb.h"
#include "runtime/base/result.h"

namespace troupe {

// Every error found, one sentence each with the field's name and a remedy. None: the job has a plan
// (MakeJobPlan), and every field is one that somebody reads and that says something possible. What
// files hold is CheckFiles' matter.
std::vector<Error> CheckJob(const proto::JobSpec& spec);

// A spec from elsewhere, with the defaults of what it leaves open; the first error of CheckJob, and
// how many follow it.
Result<proto::JobSpec> AcceptSpec(proto::JobSpec spec);

}  // namespace troupe
