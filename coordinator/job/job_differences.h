// What tells two effective jobs apart, as far as one that goes on from the other's checkpoint must
// be the same. Pure.
#pragma once

#include <string>
#include <vector>

#include "proto/job.pb.h"

namespace troupe {

// Keys of effective jobs that differ and must not: "optimizer.lr was 0.0003, is 0.001". The layout,
// the number of workers, names, paths, lengths, and what is reported or saved may differ; math
// threads may not, for they change bits.
std::vector<std::string> ForbiddenDifferences(const proto::JobSpec& saved,
                                              const proto::JobSpec& now);

}  // namespace troupe
