// What a backward computes again from what Forward left, instead of keeping it (train.recompute):
// the same numbers, bit for bit. Pure.
#pragma once

#include <cstdint>
#include <string_view>

#include "proto/job.pb.h"
#include "runtime/base/result.h"

namespace troupe {

enum class Recompute : uint8_t {
  kNone,
  kAttention,  // a layer's query, key and value, and the attention's output
  kFull,       // all of a layer but its input
};
std::string_view RecomputeName(Recompute recompute);  // "attention"
// kNone where it is not given. Refuses unknown words.
Result<Recompute> RecomputeOf(const proto::Train& train);

}  // namespace troupe
