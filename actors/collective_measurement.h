// CollectiveMeasurement: one operation of a group at one member, timed again and again, then run
// once over known elements, whose result is compared element by element. What workers of `troupe
// bench collectives` run (collectives_bench_rank.h).
//
// Sizes as nccl-tests count them: `count` elements are the input of all-reduce, reduce-scatter,
// broadcast, reduce and all-to-all, and the output of all-gather.
//
// Thread: Run's task on the group's stream; the rest where the group is.
//   M1. Elements are whole numbers below 4, so sums of up to kMeasuredMembersMax members are exact
//   in every
//       dtype, whatever the order.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "actors/plan/measured_group.h"
#include "kernels/tensor_view.h"
#include "runtime/base/clock.h"
#include "runtime/collective/group.h"
#include "runtime/memory/buffer.h"

namespace troupe {

struct MeasuredOperation {
  GroupOperationKind kind = GroupOperationKind::kAllReduce;
  DType dtype = DType::kFloat32;
  int64_t count = 0;
  bool in_place = true;  // all-reduce and broadcast are, all-to-all is not
  bool private_buffers = false;
  int warmup = 0;
  int iterations = 1;
};

class CollectiveMeasurement {
 public:
  // Takes the memory. kInvalidSpec where the group cannot run such an operation,
  // kResourceExhausted where there is no room, or the system shares none. Group, ledger and clock
  // outlive it.
  static Result<std::unique_ptr<CollectiveMeasurement>> Make(Group& group,
                                                             const MeasuredOperation& what,
                                                             MemoryLedger& ledger, Clock& clock);

  // Once. The measurement outlives the task.
  Task<Status> Run();

  // After Run. Of one operation, from barrier to barrier.
  double mean_us() const { return mean_us_; }
  int64_t num_wrong() const { return num_wrong_; }  // elements of this member's result

 private:
  CollectiveMeasurement(Group& group, const MeasuredOperation& what, MemoryLedger& ledger,
                        Clock& clock);
  Task<Status> Operate();
  void Fill();
  int64_t CountWrong() const;
  int ExpectedAt(int64_t index) const;
  int64_t part() const { return what_.count / group_.size(); }

  Group& group_;
  const MeasuredOperation what_;
  Clock& clock_;
  Buffer memory_{};          // the result's, and the input's in place
  Buffer separate_input_{};  // out of place
  ConstElements input_{};
  Elements output_{};
  std::vector<int64_t> part_counts_{};
  double mean_us_ = 0;
  int64_t num_wrong_ = 0;
};

// By their names ("all-reduce", "bfloat16"); empty for others and for what is not measured.
std::optional<GroupOperationKind> MeasurableOperation(std::string_view name);
std::optional<DType> MeasurableDType(std::string_view name);

}  // namespace troupe
