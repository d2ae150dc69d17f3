// The limits that a process was started with (ulimit), against what it is going to need: a library
// that meets one of them aborts, or names another cause. Checked before anything begins.
#pragma once

#include <cstdint>
#include <string_view>

#include "runtime/base/result.h"

namespace troupe {

// 0: not asked for.
struct ProcessNeeds {
  int64_t descriptors = 0;    // open at once
  int64_t address_bytes = 0;  // of address space
  int64_t file_bytes = 0;     // of one file, shared memory among them
};

// Raises the soft limit on descriptors as far as the hard one allows. kResourceExhausted where a
// limit is below the need, with both numbers; `who` begins the sentence: "the coordinator".
Status CheckProcessLimits(std::string_view who, const ProcessNeeds& needs);

// From now on a process whose memory runs out on a thread where nobody catches it says `words` on
// stderr and ends with 1. `words` live as long as the process. Once, before threads.
void SayWhereMemoryRunsOut(std::string_view words);

}  // namespace troupe
