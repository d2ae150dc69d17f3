// The life of actors: spawning, turns, endings, supervision.
#include "runtime/actor/actor_cell.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/actor/actor_base.h"
#include "runtime/actor/scheduler.h"
#include "runtime/base/talk.h"
#include "runtime/trace/span.h"

namespace troupe {
namespace {

// Which cell the actor under construction belongs to.
constinit thread_local ActorCell* constructing_cell = nullptr;

}  // namespace

namespace actor_internal {

Error NotAlive(const ActorCell& cell, uint32_t incarnation) {
  if (!OnOwnThread(cell)) {  // the name belongs to the other thread
    return MakeError(ErrorCode::kStale, "the actor has ended (incarnation {})", incarnation);
  }
  return MakeError(ErrorCode::kStale, "{}: incarnation {} has ended, the cell is at {}",
                   cell.name.empty() ? "an unnamed actor" : cell.name, incarnation,
                   cell.incarnation.load());
}

Error MailboxFull(const ActorCell& cell) {
  return MakeError(ErrorCode::kResourceExhausted,
                   "{}: its mailbox is full with {} messages; wait for answers before sending more",
                   OnOwnThread(cell) ? cell.name : "actor", cell.mailbox.bound());
}

Room MakeRoom(ActorCell& cell, bool local) {
  Mailbox& mailbox = cell.mailbox;
  if (mailbox.overflow() == Overflow::kRefuse) return Room::kNone;
  if (local) {
    mailbox.MakeRoom();
    return Room::kMade;
  }
  if (mailbox.TryReserveUnderWay()) return Room::kMade;
  mailbox.CountDropped();
  return Room::kDropThis;
}

Error NoActor() { return MakeError(ErrorCode::kNotFound, "the reference names no actor"); }

Status SendFromOutside(ActorCell* cell, MessageNode* node) {
  node->act = &Scheduler::DeliverFromOutside;
  cell->scheduler->PostRunnable(node);
  return {};
}

}  // namespace actor_internal

ActorBase::ActorBase() : cell_(constructing_cell) {
  CHECK(cell_ != nullptr, "actors are created by Scheduler::Spawn");
}

TimerId ActorContext::After(int64_t delay_ms, std::function<void()> function) const {
  return scheduler().After(delay_ms, [cell = cell_, incarnation = cell_->incarnation.load(),
                                      function = std::move(function)] {
    if (cell->incarnation.load() == incarnation) function();
  });
}

ActorCell* Scheduler::NewCell(ActorCell* parent, const SpawnOptions& options) {
  ActorCell* cell;
  if (free_cells_.empty()) {
    cell = &cells_.emplace_back();
    cell->scheduler = this;
    cell->ready = &ready_;
    cell->act = &Scheduler::RunCell;
  } else {
    cell = free_cells_.back();
    free_cells_.pop_back();
  }
  cell->state = CellState::kIdle;
  cell->name = options.name;
  cell->trace_name = options_.trace_handlers ? InternTraceName(options.name) : 0;
  cell->mailbox.Reset(options.mailbox_bound, options.overflow);
  cell->parent = parent;
  if (parent != nullptr) parent->children.push_back(cell);
  if (!options.supervisor.empty()) {
    cell->supervisor = {options.supervisor.cell(), options.supervisor.incarnation().value};
  } else {
    cell->supervisor = parent != nullptr ? parent->supervisor : SupervisorLink{};
  }
  if (!cell->name.empty()) {
    CHECK(directory_.emplace(cell->name, cell).second, "two actors are named {}", cell->name);
  }
  return cell;
}

void Scheduler::Populate(ActorCell* cell, const Factory& factory) {
  actor_internal::CurrentScope scope(this);
  cell->ending = false;
  ActorCell* outer_constructing = std::exchange(constructing_cell, cell);
  ActorCell* outer_cell = std::exchange(current_cell_, cell);
  // Messages that it sends to itself wait until it is complete.
  cell->state = CellState::kRunning;
  cell->actor = factory();
  constructing_cell = outer_constructing;
  Status started = cell->actor->OnStart();
  current_cell_ = outer_cell;
  if (Conclude(cell, std::move(started))) {
    cell->state = cell->mailbox.empty() ? CellState::kIdle : CellState::kReady;
    if (cell->state == CellState::kReady) ready_.PushBack(cell);
  }
}

Result<ActorCell*> Scheduler::FindCell(std::string_view name,
                                       std::initializer_list<const MessageType*> all) {
  const auto found = directory_.find(std::string(name));
  if (found == directory_.end() || found->second->actor == nullptr) {
    return MakeError(ErrorCode::kNotFound, "no living actor is named {}", name);
  }
  const auto taken = found->second->actor->TakenMessages();
  for (const MessageType* type : all) {
    if (std::ranges::find(taken, type) == taken.end()) {
      return MakeError(ErrorCode::kNotFound, "actor {} takes no {}", name, type->name);
    }
  }
  return found->second;
}

void Scheduler::RunCell(Runnable* self, Runnable::Fate fate) {
  auto* cell = static_cast<ActorCell*>(self);
  if (fate == Runnable::Fate::kRun) cell->scheduler->Turn(cell);
}

// One turn: up to kMessagesPerTurn messages, or until a handler suspends or the actor ends. One
// body with all that it calls but what is rare.
[[gnu::flatten]] void Scheduler::Turn(ActorCell* cell) {
  cell->state = CellState::kRunning;
  current_cell_ = cell;
  if (!handler_start_known_) StartHandlerSpan();
  bool may_go_on = true;
  for (int handled = 0; may_go_on && handled < kMessagesPerTurn; ++handled) {
    MessageNode* node = cell->mailbox.Pop();
    if (node == nullptr) break;
    may_go_on = HandleOne(cell, node);
  }
  current_cell_ = nullptr;
  if (!may_go_on) return;
  if (cell->mailbox.empty()) {
    cell->state = CellState::kIdle;
  } else {
    cell->state = CellState::kReady;
    ready_.PushBack(cell);
  }
}

// False: the actor takes no further message now (its handler waits, or it has ended).
bool Scheduler::HandleOne(ActorCell* cell, MessageNode* node) {
  ++counters_.messages;
  const MessageType& type = *node->type;
  Task<Status> task;
  Status status = cell->actor->Receive(*node, task);
  node->destroy(node);
  if (!task.empty()) {
    task.Start();
    if (!task.done()) {
      TraceHandled(cell, type);
      cell->handler = std::move(task);
      cell->handling = &type;
      cell->state = CellState::kAwaiting;
      if (cell->ending) Conclude(cell, {});
      return false;
    }
    status = task.Take();
  }
  TraceHandled(cell, type);
  return Conclude(cell, std::move(status));
}

void Scheduler::StartHandlerSpan() {
  if (options_.trace_handlers) handler_start_ns_ = options_.clock->NowNs();
  handler_start_known_ = true;
}

void Scheduler::TraceHandled(ActorCell* cell, const MessageType& type) {
  if (!options_.trace_handlers) return;
  uint32_t name = type.trace_name.load(std::memory_order_relaxed);
  if (name == 0) [[unlikely]] {
    name = InternTraceName(type.name);
    type.trace_name.store(name, std::memory_order_relaxed);
  }
  // The end of one handler is the start of the next: one clock read a message.
  const int64_t end_ns = options_.clock->NowNs();
  SpanRecord record;
  record.name = name;
  record.category = SpanCategory::kHandler;
  record.rank = options_.rank.value;
  record.track = cell->trace_name;
  record.start_ns = handler_start_ns_;
  record.end_ns = end_ns;
  ring_->Write(record);
  handler_start_ns_ = end_ns;
}

void Scheduler::ResumeIn(ActorCell* cell, std::coroutine_handle<> handle) {
  if (cell == nullptr) {  // a task that somebody else drives
    handle.resume();
    return;
  }
  cell->state = CellState::kRunning;
  current_cell_ = cell;
  StartHandlerSpan();
  handle.resume();
  current_cell_ = nullptr;
  TraceHandled(cell, *cell->handling);
  if (!cell->handler.done()) {
    cell->state = CellState::kAwaiting;
    if (cell->ending) EndCell(cell, nullptr);
    return;
  }
  Status status = cell->handler.Take();
  cell->handler = {};
  if (!Conclude(cell, std::move(status))) return;
  cell->state = cell->mailbox.empty() ? CellState::kIdle : CellState::kReady;
  if (cell->state == CellState::kReady) ready_.PushBack(cell);
}

// Judges how a handler ended. False: the actor has ended with it.
bool Scheduler::Conclude(ActorCell* cell, Status status) {
  if (status.ok() && !cell->ending) [[likely]]
    return true;
  EndWith(cell, std::move(status));
  return false;
}

[[gnu::noinline]] void Scheduler::EndWith(ActorCell* cell, Status status) {
  cell->state = CellState::kIdle;  // nothing of it is on the stack any more
  if (current_cell_ == cell) current_cell_ = nullptr;
  if (status.ok() || cell->actor->IsNormalEnding(status.error().code)) {
    EndCell(cell, nullptr);
  } else {
    const Error error = std::move(status).error();
    EndCell(cell, &error);
  }
}

void Scheduler::EndChildren(ActorCell* cell) {
  while (!cell->children.empty()) EndCell(cell->children.back(), nullptr);
}

// Destroys the incarnation: its suspended handler first, since that refers to the actor.
void Scheduler::ClearIncarnation(ActorCell* cell) {
  cell->incarnation.store(cell->incarnation.load(std::memory_order_relaxed) + 1,
                          std::memory_order_relaxed);
  cell->ending = false;
  cell->handler = {};
  cell->actor.reset();
  // Last, since the dying may have sent to themselves.
  while (MessageNode* node = cell->mailbox.Pop()) node->destroy(node);
  if (cell->queued) ready_.Remove(cell);
}

void Scheduler::EndCell(ActorCell* cell, const Error* error) {
  CHECK(cell != nullptr);
  if (cell == current_cell_ || cell->state == CellState::kRunning) {
    cell->ending = true;  // its handler is on the stack; Conclude ends it
    return;
  }
  // A child of an actor that is being constructed or ended is reached once only.
  cell->state = CellState::kRunning;
  EndChildren(cell);
  const uint32_t ended = cell->incarnation.load(std::memory_order_relaxed);
  ClearIncarnation(cell);
  if (!cell->name.empty()) directory_.erase(cell->name);
  if (cell->parent != nullptr) std::erase(cell->parent->children, cell);
  const bool report = error != nullptr;
  Down down{cell->name, Incarnation(ended), report ? *error : Error{}};
  const SupervisorLink supervisor = cell->supervisor;
  cell->state = CellState::kFree;
  cell->parent = nullptr;
  free_cells_.push_back(cell);
  if (report) DeliverDown(supervisor, std::move(down));
}

void Scheduler::DeliverDown(const SupervisorLink& supervisor, Down down) {
  ActorCell* to = supervisor.cell;
  if (to != nullptr && to->scheduler != this) {
    auto* node = new TypedNode<Down>(std::move(down));
    node->target = to;
    node->incarnation = supervisor.incarnation;
    to->mailbox.Reserve();
    (void)actor_internal::SendFromOutside(to, node);
    return;
  }
  if (to != nullptr && to->incarnation.load(std::memory_order_relaxed) == supervisor.incarnation) {
    // Past the bound on purpose: a supervisor with a full mailbox must hear of it all the more.
    actor_internal::AppendAndSchedule(to, new TypedNode<Down>(std::move(down)));
    return;
  }
  if (on_down_) {
    on_down_(down);
  } else {
    Talk("{} (incarnation {}) ended: {}\n", down.name, down.incarnation, down.error.message);
  }
}

void Scheduler::DeliverFromOutside(Runnable* self, Runnable::Fate fate) {
  auto* node = static_cast<MessageNode*>(self);
  ActorCell* cell = node->target;
  cell->mailbox.Unreserve();
  const bool alive = cell->incarnation.load(std::memory_order_relaxed) == node->incarnation;
  if (fate == Runnable::Fate::kRun && alive) {
    if (cell->mailbox.overflow() == Overflow::kDropOldest) cell->mailbox.MakeRoom();
    actor_internal::AppendAndSchedule(cell, node);
    return;
  }
  node->destroy(node);
}

}  // namespace troupe
