// What a job's keys say of the ranks with the same weights (dp x cp): what they share out (ZeRO),
// how and when they add up their gradients, and what that asks of schedule and groups. Pure.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "actors/plan/batch_arithmetic.h"
#include "actors/plan/parameter_shard.h"
#include "actors/plan/train_schedule.h"
#include "proto/job.pb.h"

namespace troupe {

// How sums over those ranks are taken.
enum class ReductionAlgorithm : uint8_t {
  kOrdered,  // who owns a part adds it of all, ascending: bit-equal to one worker
  kRing,     // a part goes once around from the one behind its owner, and is added on its way
  kChain,    // added from the first member to the last, and from there back to all
};

inline constexpr int kZeroStageMax = 3;
inline constexpr int kZeroPrefetchMax = 1024;  // units: more than a stage has
inline constexpr int64_t kBucketBytesMax = int64_t{1} << 40;

// These add every error found to `errors`, by field name; what is not given has its default.
//
// zero_stage, zero_prefetch, reshard_after_forward, zero_group and persist_elements.
// `weight_replicas` 0: not known, and what rests on it is not judged.
ZeroSharding ReadZero(const proto::Parallelism& parallelism, int weight_replicas,
                      std::vector<Error>& errors);
int64_t ReadBucketBytes(const proto::Parallelism& parallelism, std::vector<Error>& errors);
// parallelism.reduction and data_parallel.algorithm.
ReductionAlgorithm ReadReduction(const proto::JobSpec& spec, std::vector<Error>& errors);

// Whether sums along rings, of one of the two jobs at least, have another order in the other.
bool RingSumsDiffer(const proto::JobSpec& one, const proto::JobSpec& other);

// Of data_parallel.algorithm: "all_reduce" or "reduce_broadcast". Hyphens are taken, too.
inline constexpr std::string_view kAllReduce = "all_reduce";
inline constexpr std::string_view kReduceBroadcast = "reduce_broadcast";
// Of parallelism.reduction.
inline constexpr std::string_view kOrderedReduction = "ordered";
inline constexpr std::string_view kRingReduction = "ring";

// What the sums of a step need of a schedule and of the groups.
// `keys` are those that the schedule is of.
Status CheckGroups(const proto::Parallelism& keys, const TrainSchedule& train,
                   const BatchArithmetic& batch);

}  // namespace troupe
