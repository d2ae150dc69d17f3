// Group: the ranks along one axis of the mesh, as one member sees them. Operations have exactly
// NCCL's meanings and are awaited by a task of the member's stream (actor/stream.h):
//
//     CO_RETURN_IF_ERROR(co_await group.AllReduce({kFloat32, gradients, count}));
//
// The task leaves the stream and goes on there when the members' messages have come; a group of one
// suspends nothing. An operation that returns OK read all of its input and wrote all of its output.
//
// A backend derives from Group and implements Run: router_group.h goes over messages, in process,
// between processes and in the simulator alike; nccl/nccl_group.h is NCCL's.
//
// Thread: operations from tasks of one stream; everything else the scheduler's.
//   G1. Operations of a group are numbered by each member in the order in which its tasks began to
//       wait; the n-th of all members are one operation. Where two members differ in it (kind,
//       dtype, root, elements), both end with an error that names both, and the group is broken.
//   G2. OK means that every member has begun this very operation; of a Shift, that it was there
//       that its block was sent.
//   G3. A sum adds the members in the order of GroupSpec::ranks, element by element, as
//       ElementType::sum says: equal bits in every backend and at every member. A ring alone
//       (SumAlgorithm) has another order, which is the same in every backend and at every member.
//   G4. An error breaks the group: it ends every open and every later operation, here and, as far
//       as they can be told, at the other members. Causes: a member lost, a passed deadline, a task
//       that was destroyed in an operation, a difference (G1).
//   G5. Operations of different groups, and of one, may be open at once. Those of one group end,
//       and their tasks go on, in the order in which they began.
//   G6. The group outlives the tasks that use it. Memory of an operation belongs to its task; a
//       group refers to it while the operation is open and never after, however it ended.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/actor/task.h"
#include "runtime/base/all_reduce_parts.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"

namespace troupe {

using GroupId = Id<struct GroupIdTag, uint32_t>;  // unique in the job, the same at every member

// What a group must know of a dtype; the runtime adds nothing itself.
struct ElementType {
  uint8_t dtype = 0;      // kernels' DType code
  int64_t num_bytes = 0;  // of one element
  std::string_view name;  // a literal: "float32"
  // out[i] = inputs[0][i] + inputs[1][i] + … in this order; `out` is one of the inputs or overlaps
  // none of them.
  void (*sum)(void* out, const void* const* inputs, int num_inputs, int64_t count) = nullptr;
};

// `count` elements at `data`, borrowed. Nothing needs alignment.
struct Elements {
  uint8_t dtype = 0;
  void* data = nullptr;
  int64_t count = 0;
};
struct ConstElements {
  uint8_t dtype = 0;
  const void* data = nullptr;
  int64_t count = 0;

  ConstElements() = default;
  ConstElements(uint8_t type, const void* first, int64_t num_elements)
      : dtype(type), data(first), count(num_elements) {}
  ConstElements(const Elements& e) : dtype(e.dtype), data(e.data), count(e.count) {}  // NOLINT
};

enum class GroupOperationKind : uint8_t {
  kAllReduce,
  kReduceScatter,
  kAllGather,
  kAllToAll,
  kBroadcast,
  kReduce,
  kShift,
  kBarrier,
};
inline constexpr int kNumGroupOperationKinds = 8;
std::string_view GroupOperationName(GroupOperationKind kind);  // "all-reduce"

// What an operation belongs to, for wait records and sentences.
struct GroupPurpose {
  std::string_view activity{};  // "forward"; lives as long as the operation
  int64_t step = -1;
  int microbatch = -1;
  // What it serves, in place of its own name: "group dp: all-reduce 17 of 1024 float32". As long.
  std::string_view stands_for{};
};

// One operation as one member asks for it. The spans live until it has ended.
struct GroupOperation {
  GroupOperationKind kind = GroupOperationKind::kBarrier;
  ConstElements input{};
  Elements output{};
  int peer = 0;  // the root's index; of a Shift its distance
  // Elements to and from each member (all-to-all), or of each member's part (reduce-scatter and
  // all-gather of unequal parts; empty: equal ones).
  std::span<const int64_t> send_counts{};
  std::span<const int64_t> receive_counts{};
  std::span<const ElementRun> parts{};  // of a reduce-scatter, in place of send_counts
  GroupPurpose purpose{};

  uint8_t dtype() const { return input.dtype; }
};

// What all members must agree on in an operation.
struct OperationSignature {
  GroupOperationKind kind = GroupOperationKind::kBarrier;
  uint8_t dtype = 0;
  int32_t peer = 0;
  int64_t total = 0;  // elements; 0 where every pair of members has its own number
  bool operator==(const OperationSignature&) const = default;
};
OperationSignature SignatureOf(const GroupOperation& operation);

// What one member did in the operations of one kind.
struct GroupTraffic {
  int64_t num_operations = 0;  // that ended well
  int64_t sent_bytes = 0;      // elements to other members; of operations that failed, too
};

// By which way an all-reduce and a reduce-scatter sum; all else of a group goes directly.
//   kOrdered  each member sends every part to its owner, who adds them in the members' order
//   kRing     a part's sum begins at its owner's next neighbour and goes round to the owner; a
//             whole sum goes round once more (all-reduce). NCCL's ring
//   kChain    an all-reduce alone, in the members' order: the sum goes from the first to the last
//             (reduce), and whole back to the first (broadcast). It counts as those two
enum class SumAlgorithm : uint8_t { kOrdered, kRing, kChain };

struct GroupSpec {
  GroupId id{};
  std::string name{};         // "dp"
  std::vector<Rank> ranks{};  // all members, each once, in the order of sums
  Rank self{};
  int64_t deadline_ms = 300'000;  // of an operation, from its beginning; 0: none
  int64_t tell_ms = 60'000;       // so long a wait is told of (wait record's deadline); 0: never
  SumAlgorithm sums = SumAlgorithm::kOrdered;  // the same at every member
  // A number for the host of each member, by which rings go (neighbour_plan.h); empty: one host.
  std::vector<int> hosts{};
};

class Group {
 public:
  // `elements` (what may be reduced or moved) outlives the group.
  Group(GroupSpec spec, std::span<const ElementType> elements);
  virtual ~Group() = default;
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  const GroupSpec& spec() const { return spec_; }
  int size() const { return static_cast<int>(spec_.ranks.size()); }
  int index() const { return index_; }  // this member's place among the ranks
  std::span<const ElementType> elements() const { return elements_; }
  const ElementType& ElementOf(uint8_t dtype) const;
  // Of one element of the operation; 1 for a barrier, which has none.
  int64_t ElementBytes(const GroupOperation& operation) const;
  // Since it was opened.
  const GroupTraffic& traffic(GroupOperationKind kind) const {
    return traffic_[static_cast<size_t>(kind)];
  }

  // In place: the sum over the members.
  Task<Status> AllReduce(Elements data, GroupPurpose purpose = {});
  // `input`: a part for each member, in their order. output = the sum of this member's part, which
  // may be that part of `input`. counts: each part's elements, empty where they are equal.
  Task<Status> ReduceScatter(ConstElements input, Elements output,
                             std::span<const int64_t> counts = {}, GroupPurpose purpose = {});
  // The same with a run of `input` for each member, which need neither be packed in it nor cover
  // it. No other member's run overlaps this member's.
  Task<Status> ReduceScatter(ConstElements input, Elements output,
                             std::span<const ElementRun> parts, GroupPurpose purpose = {});
  // output: every member's input, in their order; `input` may be its part of `output`.
  Task<Status> AllGather(ConstElements input, Elements output, std::span<const int64_t> counts = {},
                         GroupPurpose purpose = {});
  // Sends send_counts[i] elements to member i and receives receive_counts[i] from it, packed in the
  // order of members on both sides. The two do not overlap.
  Task<Status> AllToAll(ConstElements input, std::span<const int64_t> send_counts, Elements output,
                        std::span<const int64_t> receive_counts, GroupPurpose purpose = {});
  // In place, from the member of index `root`.
  Task<Status> Broadcast(Elements data, int root, GroupPurpose purpose = {});
  // The sum over the members, in `output` of the root, which may be its `input`; elsewhere `output`
  // is not used.
  Task<Status> Reduce(ConstElements input, Elements output, int root, GroupPurpose purpose = {});
  // A ring's hop: `input` goes `distance` members on, `output` comes from as far behind. The two
  // may differ in size and do not overlap.
  Task<Status> Shift(ConstElements input, Elements output, int distance, GroupPurpose purpose = {});
  Task<Status> Barrier(GroupPurpose purpose = {});

  // One operation, well formed and of two members or more: what a backend implements.
  virtual Task<Status> Run(GroupOperation operation) = 0;

  // For who builds on a group. Breaks it for a cause of the caller's, here and at the other members
  // (G4); and who is called, once, when it breaks for whatever cause. The scheduler's thread.
  virtual void Break(Error error);
  void SetOnBroken(std::function<void(const Error&)> on_broken) {
    on_broken_ = std::move(on_broken);
  }

  // "all-reduce of 1024 float32", for any signature that another member may send.
  std::string Text(const OperationSignature& signature) const;

 protected:
  // Of a backend's operations.
  void CountSent(GroupOperationKind kind, int64_t num_bytes) {
    traffic_[static_cast<size_t>(kind)].sent_bytes += num_bytes;
  }
  void CountEnded(GroupOperationKind kind) { ++traffic_[static_cast<size_t>(kind)].num_operations; }
  // Of a backend that breaks. The last thing it does then.
  void SayBroken(const Error& error) {
    if (on_broken_) on_broken_(error);
  }
  // "forward, group dp: all-reduce 17 of 1024 float32", or what the operation stands for.
  std::string RecordText(uint64_t sequence, const OperationSignature& signature,
                         const GroupPurpose& purpose) const;
  // Of the n-th operation as this member and member `from` began it (G1): one sentence at both.
  Error Difference(uint64_t sequence, const OperationSignature& mine, int from,
                   const OperationSignature& theirs) const;
  // One operation of a group of one: copies in the host's memory.
  virtual Task<Status> Alone(GroupOperation operation);

 private:
  Task<Status> Start(GroupOperation operation);
  void Check(const GroupOperation& operation) const;

  const GroupSpec spec_;
  const std::span<const ElementType> elements_;
  int index_ = -1;
  std::array<GroupTraffic, kNumGroupOperationKinds> traffic_{};
  std::function<void(const Error&)> on_broken_{};
};

}  // namespace troupe
