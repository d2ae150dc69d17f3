// Whether a plan fits the memory of the host that runs all of it, and what would make it fit: other
// settings are planned anew and weighed by the same memory model. Pure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "actors/plan/job_plan.h"
#include "runtime/base/host_memory.h"

namespace troupe {

struct MemoryFit {
  HostMemory memory{};
  int64_t ranks_bytes = 0;      // of all ranks together, as predicted, with their processes
  int64_t reference_bytes = 0;  // of the one worker of eval.check_against, afterwards; 0: none
  int64_t largest_bytes = 0;    // of the rank that needs most, with its process
  std::vector<std::string>
      remedies{};  // where it does not fit: "batch.micro_batch_size=2 (1.1 GiB)"

  int64_t needed_bytes() const { return std::max(ranks_bytes, reference_bytes); }
  bool fits() const;      // at all
  bool fits_now() const;  // beside what else runs
};

// What a process of a rank takes beside what the model predicts: program, libraries, transport.
inline constexpr int64_t kRankProcessBytes = int64_t{40} << 20;

MemoryFit FitOnHost(const proto::JobSpec& spec, const JobPlan& plan, VectorIsa isa,
                    const HostMemory& memory);

// "host      4 ranks: 1.1 GiB predicted, of 15.6 GiB (12.1 GiB available)": a line of the plan.
std::string FitText(const MemoryFit& fit, int num_ranks);
// Where it does not fit: kInfeasible with both numbers and the remedies.
Status CheckFit(const MemoryFit& fit);

}  // namespace troupe
