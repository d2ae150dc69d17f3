// What a job gets that it does not say. Pure.
#pragma once

#include "coordinator/job/provenance.h"
#include "proto/job.pb.h"

namespace troupe {

// Sets every key that is not given and has a default; notes "default" in the provenance. Names of
// enumerations become canonical ("afab" -> "gpipe", underscores -> hyphens).
void ApplyDefaults(proto::JobSpec& spec, Provenance& provenance);

}  // namespace troupe
