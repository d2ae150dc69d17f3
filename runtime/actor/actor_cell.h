// ActorCell: the place of one actor in its scheduler. Cells are never freed before the scheduler,
// so a reference is a plain pointer; an ended actor's cell is used again under a new incarnation.
//
// Thread: the scheduler's, but for `incarnation` and the mailbox's reservations.
//
//     free --Spawn--> idle --mail--> ready --turn--> running --handler suspends--> awaiting
//                      ^               ^                |  |                           |
//                      |               +---more mail----+  +--error, End--> free       |
//                      +-----------mailbox empty--------+<------handler finishes-------+
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/actor/mailbox.h"
#include "runtime/actor/message.h"
#include "runtime/actor/runnable.h"
#include "runtime/actor/task.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"

namespace troupe {

class ActorBase;
class Scheduler;

enum class CellState : uint8_t { kFree, kIdle, kReady, kRunning, kAwaiting };

// Where Down goes: an actor of the same scheduler, or (cell == nullptr) the root.
struct SupervisorLink {
  ActorCell* cell = nullptr;
  uint32_t incarnation = 0;
};

struct ActorCell : Runnable {
  Scheduler* scheduler = nullptr;
  RunQueue* ready = nullptr;  // the scheduler's
  std::atomic<uint32_t> incarnation{1};
  CellState state = CellState::kFree;
  bool ending = false;  // end as soon as the running handler returns
  Mailbox mailbox;
  std::unique_ptr<ActorBase> actor;
  Task<Status> handler;                   // the suspended handler, while kAwaiting
  const MessageType* handling = nullptr;  // what it handles

  std::string name;
  uint32_t trace_name = 0;
  SupervisorLink supervisor;
  ActorCell* parent = nullptr;
  std::vector<ActorCell*> children;

  bool alive() const { return state != CellState::kFree; }
};

namespace actor_internal {

// The scheduler whose loop runs on this thread, or null.
inline constinit thread_local Scheduler* current_scheduler = nullptr;

// Makes a scheduler the thread's current one for a while. Scopes of different schedulers may nest.
class CurrentScope {
 public:
  explicit CurrentScope(Scheduler* scheduler)
      : before_(std::exchange(current_scheduler, scheduler)) {}
  ~CurrentScope() { current_scheduler = before_; }
  CurrentScope(const CurrentScope&) = delete;
  CurrentScope& operator=(const CurrentScope&) = delete;

 private:
  Scheduler* before_;
};

Error NotAlive(const ActorCell& cell, uint32_t incarnation);
Error MailboxFull(const ActorCell& cell);
Error NoActor();

// What a full mailbox offers the sender at its door.
enum class Room : uint8_t {
  kNone,      // refused
  kMade,      // at the cost of the oldest, or under way to make it then
  kDropThis,  // dropped and counted: as many as may be are under way already
};
Room MakeRoom(ActorCell& cell, bool local);

// Another thread: through the inbox, waking the scheduler. Takes the node over if it succeeds.
Status SendFromOutside(ActorCell* cell, MessageNode* node);

inline bool OnOwnThread(const ActorCell& cell) { return current_scheduler == cell.scheduler; }

inline void AppendAndSchedule(ActorCell* cell, MessageNode* node) {
  cell->mailbox.Append(node);
  if (cell->state == CellState::kIdle) {
    cell->state = CellState::kReady;
    cell->ready->PushBack(cell);
  }
}

}  // namespace actor_internal
}  // namespace troupe
