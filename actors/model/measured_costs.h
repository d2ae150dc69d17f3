// What the parts of a model take on this machine, by running them: a layer of each kind, the head,
// the embedding, on one microbatch of the job's size; of a rank that shares sequences the last
// one's part, as if the others' blocks were there at once (still_peers.h). Called by a rank before
// it says Hello, where the job's schedule or partition hangs on it.
#pragma once

#include "actors/plan/memory_model.h"
#include "actors/plan/model_costs.h"
#include "kernels/tensor_view.h"
#include "runtime/base/clock.h"

namespace troupe {

// Blocks the thread for some thirty layers' worth of work, and holds at most one layer and the
// head. Wall time, the least of a few runs each, after one that warms up; where layers are so large
// that this lasts more than kMeasureMs, fewer.
inline constexpr int64_t kMeasureMs = 15'000;
ModelCosts MeasureModelCosts(const ModelSpec& model, const BatchArithmetic& batch,
                             const NumberWidths& widths, Recompute recompute, DType dtype,
                             int num_threads, const Clock& clock);

}  // namespace troupe
