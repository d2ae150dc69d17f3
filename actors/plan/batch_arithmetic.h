// What a step is made of. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "actors/plan/sequence_layout.h"
#include "proto/job.pb.h"
#include "runtime/base/result.h"

namespace troupe {

// When ranks with the same weights add up their gradients.
enum class GradReduce : uint8_t {
  kStep,        // once: a rank's microbatches are consecutive, and its sum is a group of the step's
  kMicrobatch,  // each: the ranks' microbatches of one number are a group of the step's. Each is
                // computed apart, on one worker too, and then added: the same bits in every layout
};
std::string_view GradReduceName(GradReduce reduce);  // "step", "microbatch"
// parallelism.grad_reduce; where it is not given, what zero_stage means. Refuses unknown words.
Result<GradReduce> GradReduceOf(const proto::Parallelism& parallelism);
// parallelism.dp x parallelism.cp: the ranks that have the same weights. What is not given, or
// cannot be, counts as 1.
int64_t WeightReplicasOf(const proto::Parallelism& parallelism);
// Whether several ranks add up their gradients while their lists go on.
bool ReducesEachMicrobatch(const proto::Parallelism& parallelism);

struct BatchArithmetic {
  int64_t micro_batch_size = 1;   // sequences
  int64_t global_batch_size = 1;  // sequences
  int64_t seq_len = 1;            // tokens
  int32_t num_microbatches = 1;   // a step and data-parallel rank
  int32_t data_parallel = 1;      // ranks with microbatches of their own
  int32_t gradient_groups = 1;    // of a step
  GradReduce grad_reduce = GradReduce::kStep;
  ContextParallel context{};     // ranks that share the sequences of a microbatch
  bool packs_documents = false;  // a sequence has several (data.document_separator)

  // Ranks of a pipeline's place, and so of the same weights.
  int32_t weight_replicas() const { return data_parallel * context.num_ranks; }
  int64_t local_seq_len() const { return seq_len / context.num_ranks; }  // a rank's positions
  // A rank's: of each sequence its positions.
  int64_t tokens_per_microbatch() const { return micro_batch_size * local_seq_len(); }
  int64_t tokens_per_step() const { return global_batch_size * seq_len; }
  int32_t microbatches_per_step() const { return num_microbatches * data_parallel; }
  // The number in the step of a data-parallel rank's microbatch, so that groups are consecutive.
  int32_t NumberInStep(int data_parallel_rank, int32_t microbatch) const {
    return grad_reduce == GradReduce::kStep ? data_parallel_rank * num_microbatches + microbatch
                                            : microbatch * data_parallel + data_parallel_rank;
  }
};

struct BatchReading {
  BatchArithmetic batch{};
  std::vector<Error> errors{};
};
// Every error found, naming its field and values that would do. `data_parallel` 0: not known, and
// what rests on it is not judged. num_microbatches is 0 where it cannot be known. gradient_groups
// that are not given: one of each rank (kStep), or one of each microbatch of a rank.
BatchReading ReadBatch(const proto::Batch& batch, int data_parallel,
                       GradReduce grad_reduce = GradReduce::kStep);
Result<BatchArithmetic> BatchOf(const proto::Batch& batch, int data_parallel,
                                GradReduce grad_reduce = GradReduce::kStep);

// "4 sequences x 8 microbatches = 32 sequences = 4,096 tokens a step, each sequence over 2 ranks"
std::string Describe(const BatchArithmetic& batch);

std::string WithThousands(int64_t value);  // "12,345"

}  // namespace troupe
