// Settings that are legal and odd: a job may have them, and its user should hear of them. Pure.
#pragma once

#include <string>
#include <vector>

#include "coordinator/job/provenance.h"
#include "proto/job.pb.h"

namespace troupe {

// One sentence each, beginning with the key, of an effective job without errors. Only what somebody
// wrote (provenance) is odd.
std::vector<std::string> OddSettings(const proto::JobSpec& spec, const Provenance& provenance);

}  // namespace troupe
