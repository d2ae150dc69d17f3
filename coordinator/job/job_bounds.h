// How long and how odd the values of a job may be, before anyone reads what they mean
// (proto/job.proto says so to clients). Pure.
#pragma once

#include <cstddef>
#include <vector>

#include "proto/job.pb.h"
#include "runtime/base/result.h"

namespace troupe {

inline constexpr size_t kTextBytesMax = 4096;
inline constexpr size_t kPromptBytesMax = size_t{64} << 10;
inline constexpr int kListLengthMax = 1024;

// A number that is not finite, text that is too long or holds control characters, a list that is
// too long: one error each, by field name.
std::vector<Error> CheckBounds(const proto::JobSpec& spec);

}  // namespace troupe
