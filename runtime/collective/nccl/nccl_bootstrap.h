// NcclBootstrap: the group over messages that an NCCL group is built on, and what its members say
// to each other over it (nccl_agreement.h). Every exchange is an operation of that group, begun at
// all members in one order: Join, one for each operation, Meet.
//
// Thread: the scheduler's, but for what group.h says of the group.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/actor/stream.h"
#include "runtime/collective/group.h"
#include "runtime/collective/nccl/nccl_agreement.h"

namespace troupe {

using NcclId = std::array<std::byte, 128>;  // ncclUniqueId

class NcclBootstrap {
 public:
  NcclBootstrap(Scheduler& scheduler, std::unique_ptr<Group> group);

  Group& group() { return *group_; }
  int size() const { return group_->size(); }

  // Checks all members, and gives each the id that the first one makes. `text`: for wait records.
  void Join(Result<NcclMember> self, std::function<Result<NcclId>()> make_id, std::string text,
            std::function<void(const Result<NcclId>&)> joined);
  // Says to each member what is for it, and hears what it said in the same operation.
  using Begun = std::vector<BegunOperation>;  // by member
  void Say(Begun said, std::string text, const GroupPurpose& purpose,
           std::function<void(const Result<Begun>&)> heard);

  // Ends when every member is there, or with the error that breaks the group. What `purpose` views
  // outlives this.
  void Meet(const GroupPurpose& purpose, std::function<void(const Status&)> met);

 private:
  struct Joining;
  Task<Status> Exchange(Joining& joining);

  const std::unique_ptr<Group> group_;
  InlineStream stream_;  // of the group's operations
  StreamScope scope_;
};

}  // namespace troupe
