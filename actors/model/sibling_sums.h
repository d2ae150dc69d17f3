// SiblingSums: adds up gradients over a stage's siblings, the ranks that hold the same stage, so
// that this rank has the sum of its own part: of everything, or of its shard of a row.
//
//     where a shard is one rank's           reduce-scatter among the owners
//     several ranks', in order of members   reduce-scatter among all siblings, each a share of its
//                                           owner's run; all-gather of the shares among the
//                                           replicas of the shard
//     several ranks', along rings           reduce-scatter among the owners of each replica;
//                                           all-reduce among the replicas of the shard
//
// Thread: tasks of the compute stream, all of one stream.
//   U1. All siblings begin the same sums in the same order. Second halves begin in that order, too,
//       whichever first half ends first.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "actors/plan/parameter_shard.h"
#include "kernels/tensor_view.h"
#include "runtime/actor/stream_wait.h"
#include "runtime/actor/task.h"
#include "runtime/collective/group.h"

namespace troupe {

// The groups that this rank meets its siblings in. They outlive what is made of them.
struct SiblingGroups {
  Group* all = nullptr;       // in the order of sums (MemberOf); null: there are no siblings
  Group* owners = nullptr;    // who have one copy of the weights in shards, by owner; null: whole
  Group* replicas = nullptr;  // who have this rank's shard, by replica; null: nobody else
  bool in_order = true;       // sums are over all members ascending; else along rings
};

class SiblingSums {
 public:
  SiblingSums() = default;
  // `place`: this rank's own.
  SiblingSums(const SiblingGroups& groups, const ShardPlace& place)
      : groups_(groups), place_(place) {}

  bool has_siblings() const { return groups_.all != nullptr; }
  Group* owners() const { return groups_.owners; }

  // In place: everyone has the sum of all of it.
  Task<Status> Whole(TensorView gradients, GroupPurpose purpose);
  // Of a row or a part of one, `counts` of it each owner's, one behind the other: the own run is
  // its sum then, and the others' are left as they happen to be. `counts` lives until the end.
  Task<Status> Shard(TensorView gradients, std::span<const int64_t> counts, GroupPurpose purpose);

 private:
  Task<Status> FirstHalf(TensorView gradients, std::span<const int64_t> counts,
                         GroupPurpose purpose);
  Task<Status> SecondHalf(TensorView gradients, std::span<const int64_t> counts,
                          GroupPurpose purpose);
  TensorView OwnRun(TensorView gradients, std::span<const int64_t> counts) const;

  SiblingGroups groups_{};
  ShardPlace place_{};
  std::shared_ptr<StreamEvent> last_{};  // the second half that was asked for last has ended
};

}  // namespace troupe
