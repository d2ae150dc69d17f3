// Whether a folder's tensors are those of the job's model: headers only, and of two tensors the
// bytes. Pure apart from the FileSystem.
#pragma once

#include <string>
#include <vector>

#include "actors/plan/parameter_table.h"
#include "runtime/base/file_system.h"
#include "runtime/base/result.h"

namespace troupe {

struct InitWeightsFindings {
  std::vector<Error> errors{};  // each begins with "model.init_from = FOLDER: "
  std::vector<std::string> warnings{};
};

// Every parameter must be there in its shape and a dtype that widens. Tensors that the model has no
// place for are an error, or a warning with `ignore_extra`. No place is needed for what follows
// from the rest: frequencies of the rotary embedding (a warning), a head with the bytes of the
// embedding that it is tied to. Without a table (null: the model is not known) the files are opened
// and no more.
InitWeightsFindings CheckInitWeights(FileSystem& files, const std::string& folder,
                                     const ParameterTable* table, bool ignore_extra);

}  // namespace troupe
