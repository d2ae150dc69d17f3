// Supervision: what a scheduler tells about an actor that ended other than normally.
//
//   S1. Exactly one Down for every incarnation that ends with an error outside its normal endings;
//       none for a normal end.
//   S2. Children end before their parent, quietly.
//   S3. Mail of an ended incarnation is dropped.
#pragma once

#include <string>

#include "runtime/actor/actor_cell.h"
#include "runtime/actor/actor_ref.h"
#include "runtime/actor/mailbox.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"

namespace troupe {

struct Down {
  static constexpr std::string_view kMessageName = "troupe.Down";
  std::string name;
  Incarnation incarnation;
  Error error;
};

struct SpawnOptions {
  std::string name;  // unique among the scheduler's living actors; empty: not in the directory
  int mailbox_bound = 1024;
  Overflow overflow = Overflow::kRefuse;
  ActorRef<Down> supervisor;  // empty: the parent's supervisor, in the end the root
};

}  // namespace troupe
