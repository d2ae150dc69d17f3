// What a job's keys say of ranks that share sequences (parallelism.cp): how queries meet keys,
// which positions a rank has, and what that asks of model and batch. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "actors/plan/model_config.h"
#include "actors/plan/sequence_layout.h"
#include "proto/job.pb.h"
#include "runtime/base/result.h"

namespace troupe {

// These add every error found to `errors`, by field name and with values that would do; what is not
// given has its default.
//
// parallelism.cp_method and cp_load_balance. `num_ranks`: the extent of cp; 0: not known.
ContextParallel ReadContext(const proto::JobSpec& spec, int num_ranks, std::vector<Error>& errors);
// Whether the ranks can share sequences of so many tokens, and with Ulysses the model's heads. A
// size that is not known is 0, and not judged.
void CheckContext(const ContextParallel& context, const ModelConfig& config, int64_t seq_len,
                  std::vector<Error>& errors);

// Whether ranks share sequences in both jobs alike, or in none: else no sum has the bits of the
// other job's.
bool ShareSequencesAlike(const proto::JobSpec& one, const proto::JobSpec& other);

}  // namespace troupe
