// Submit: takes a job into the queue. A submission that came before finds the same job.
#pragma once

#include <functional>
#include <memory>

#include "coordinator/job_life.h"

namespace troupe {

// Makes what writes a job's run directory; null where nothing is written.
using NewRecorder = std::function<std::unique_ptr<JobRecorder>(const std::string& run_directory)>;

Result<proto::SubmitReply> Submit(State& state, Seams seams, const NewRecorder& new_recorder,
                                  proto::SubmitRequest request);

}  // namespace troupe
