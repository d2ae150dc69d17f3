// Merges Hugging Face's config.json into a job's model: of `model.config`, else of the folder
// `model.init_from`. Keys that the job gives itself win.
#pragma once

#include "coordinator/job/yaml_walker.h"
#include "proto/job.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

Status MergeHfConfig(FileSystem& files, proto::JobSpec& spec, Provenance& provenance);

}  // namespace troupe
