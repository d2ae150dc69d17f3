// Fills a job's model keys from Hugging Face's config.json. Called by the job door between the
// user's keys, which win, and the defaults. Pure apart from the FileSystem.
#pragma once

#include "coordinator/job/provenance.h"
#include "proto/job.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

// From the file `model.config`, else from config.json in the folder `model.init_from`; nothing to
// do where neither is given, or the config is "". It is that afterwards, whatever comes of it: what
// the file says stands in the keys. Notes which of the two in the provenance. Token ids outside the
// vocabulary are left out.
Status MergeHfConfig(FileSystem& files, proto::Model& model, Provenance& provenance);

}  // namespace troupe
