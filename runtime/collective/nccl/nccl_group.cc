#include "runtime/collective/nccl/nccl_group.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "runtime/actor/stream_wait.h"
#include "runtime/collective/nccl/nccl_calls.h"
#include "runtime/collective/nccl/nccl_communicator.h"

namespace troupe {
namespace {

// Looks one after the other before a timer's tick is waited for: some tens of microseconds, as long
// as NCCL takes to enqueue.
constexpr int kLooksAtOnce = 64;

}  // namespace

struct NcclGroup::Open {
  explicit Open(NcclGroup& group)
      : watch(group.scheduler_, group.spec(), group.waiter_,
              [&group](Error error) { group.Break(std::move(error)); }) {}
  bool has_passed() const { return is_enqueued && event == nullptr; }
  bool has_finished() const { return has_passed() && is_agreed; }

  OperationWait* wait = nullptr;  // null: it has returned
  uint64_t sequence = 0;
  OperationSignature signature{};
  GroupPurpose purpose{};
  std::string text{};  // "forward, group dp: all-reduce 17 of 1024 float32"
  std::vector<NcclCall> calls{};
  std::vector<BegunOperation> said{};  // by member
  int64_t begun_ns = 0;
  int64_t sent_bytes = 0;
  bool is_agreed = false;    // all members have begun it, and the same
  bool is_enqueued = false;  // behind which `event` is, until the device has passed it
  CUevent_st* event = nullptr;
  OperationWatch watch;
};

// What a task awaits: lives in its frame.
class NcclGroup::OperationWait final : public StreamWait {
 public:
  OperationWait(NcclGroup& group, std::unique_ptr<Open> open)
      : group_(group), prepared_(std::move(open)) {}
  ~OperationWait() {
    if (open_) group_.Abandon(*this);
  }
  bool await_ready() const { return false; }
  Status await_resume() { return std::move(status_); }

  void Ended(Status status) {
    open_ = false;
    status_ = std::move(status);
    Resume();
  }

 private:
  void Begin() override {
    open_ = true;
    group_.Begin(*this, std::move(prepared_));
  }

  NcclGroup& group_;
  std::unique_ptr<Open> prepared_;
  bool open_ = false;
  Status status_{};
};

NcclGroup::NcclGroup(Scheduler& scheduler, const NcclLibrary& library,
                     std::unique_ptr<Group> bootstrap, NcclOptions options)
    : Group(bootstrap->spec(), bootstrap->elements()),
      scheduler_(scheduler),
      options_(options),
      waiter_(fmt::format("rank {}", spec().self)),
      join_text_(fmt::format("group {}: its NCCL communicator", spec().name)),
      self_(std::make_shared<NcclGroup*>(this)),
      bootstrap_(scheduler, std::move(bootstrap)),
      communicator_(std::make_unique<NcclCommunicator>(library, options.device, options.stream)),
      watch_(scheduler, spec(), waiter_, [this](Error error) { Break(std::move(error)); }) {
  look_.group = this;
  look_.fire = [](TimerNode* timer) { static_cast<Look*>(timer)->group->Advance(); };
  bootstrap_.group().SetOnBroken([this](const Error& error) { Break(error, /*tell=*/false); });
  bootstrap_.Join(
      communicator_->Member(), [this] { return communicator_->NewId(); }, join_text_,
      [this](const Result<NcclId>& id) { Joined(id); });
}

NcclGroup::~NcclGroup() {
  bootstrap_.group().SetOnBroken({});
  for (const auto& open : open_) {
    CHECK(open->wait == nullptr, "group {}: {} is open while it ends", spec().name, open->text);
  }
  scheduler_.timers().Cancel(&look_);
}

void NcclGroup::Joined(const Result<NcclId>& id) {
  if (broken_) return;
  if (!id.ok()) return Break(id.error());
  for (const auto& open : open_) Say(*open);
  const Status begun = communicator_->Init(*id, size(), index());
  if (!begun.ok()) return Break(AtMember(spec(), begun.error()));
  state_ = State::kInitializing;
  watch_.Begin(join_text_, "its beginning", {}, scheduler_.now_ns());
  Advance();
}

Task<Status> NcclGroup::Run(GroupOperation operation) {
  co_return co_await OperationWait(*this, Prepare(operation));
}

// On the stream's thread: reads nothing that changes.
std::unique_ptr<NcclGroup::Open> NcclGroup::Prepare(const GroupOperation& operation) {
  const int64_t element_bytes = ElementBytes(operation);
  const OperationPlan plan = PlanOperation(operation, index(), size(), element_bytes);
  auto open = std::make_unique<Open>(*this);
  open->signature = SignatureOf(operation);
  open->purpose = operation.purpose;
  open->calls = NcclCallsOf(operation, plan, index(), element_bytes);
  open->sent_bytes = ElementsSent(operation, plan, index()) * element_bytes;
  for (int member = 0; member < size(); ++member) {
    open->said.push_back(BegunFor(member, index(), operation, plan));
  }
  return open;
}

Task<Status> NcclGroup::Close() {
  co_await OnScheduler([this] {
    CHECK(!closes_, "group {} is closed twice", spec().name);
    closes_ = true;
    Advance();
  });
  co_await ended_;
  Status ended;
  co_await OnScheduler([this, &ended] {
    if (state_ != State::kClosed) ended = *broken_;
  });
  co_return ended;
}

void NcclGroup::Begin(OperationWait& wait, std::unique_ptr<Open> open) {
  open->sequence = ++num_begun_;
  if (broken_) return wait.Ended(*broken_);
  if (closes_) {
    return wait.Ended(MakeError(ErrorCode::kFailed, "group {}: it is closed", spec().name));
  }
  open->wait = &wait;
  open->text = RecordText(open->sequence, open->signature, open->purpose);
  open->begun_ns = scheduler_.now_ns();
  open_.push_back(std::move(open));
  if (state_ != State::kJoining) Say(*open_.back());
  Advance();
}

void NcclGroup::Say(const Open& open) {
  bootstrap_.Say(open.said, open.text, open.purpose,
                 [this, sequence = open.sequence](const Result<NcclBootstrap::Begun>& heard) {
                   if (broken_) return;
                   if (!heard.ok()) return Break(heard.error());
                   Heard(sequence, *heard);
                 });
}

void NcclGroup::Heard(uint64_t sequence, const NcclBootstrap::Begun& heard) {
  const auto found =
      std::ranges::find(open_, sequence, [](const auto& open) { return open->sequence; });
  CHECK(found != open_.end(), "group {}: operation {} ended unheard", spec().name, sequence);
  Open* const open = found->get();
  for (int member = 0; member < size(); ++member) {
    if (member == index()) continue;
    const auto from = static_cast<size_t>(member);
    const OperationSignature theirs = SignatureSaid(heard[from]);
    if (theirs != open->signature) {
      return Break(Difference(sequence, open->signature, member, theirs));
    }
    if (const auto differs =
            CountDifference(open->said[from], spec().self, heard[from], spec().ranks[from])) {
      return Break(MakeError(ErrorCode::kFailed, "group {}: operation {}, {}: {}", spec().name,
                             sequence, Text(open->signature), *differs));
    }
  }
  open->is_agreed = true;
  if (!open->has_passed()) {
    open->watch.Begin(open->text, "its end on the device", open->purpose, open->begun_ns);
  }
  num_looks_ = 0;
  Advance();
}

void NcclGroup::Advance() {
  if (broken_) return;
  const Status proceeded = Proceed();
  if (!proceeded.ok()) return Break(AtMember(spec(), proceeded.error()));
  LookAgain();
}

Status NcclGroup::Proceed() {
  if (communicator_->alive()) {
    RETURN_IF_ERROR(LookAtDevice());
    ASSIGN_OR_RETURN(bool may_call, CallHasCome());
    while (may_call && enqueuing_ == nullptr && state_ == State::kReady) {
      RETURN_IF_ERROR(EnqueueNext());
      if (enqueuing_ == nullptr) break;  // none was left
      ASSIGN_OR_RETURN(may_call, CallHasCome());
    }
  }
  EndFinished();
  return CloseWhenIdle();
}

// Whether NCCL has done what was begun last, and takes the next call.
Result<bool> NcclGroup::CallHasCome() {
  ASSIGN_OR_RETURN(const bool is_idle, communicator_->IsIdle());
  if (!is_idle) return false;
  if (state_ == State::kInitializing) {
    state_ = State::kReady;
    watch_.End();
  }
  if (Open* enqueued = std::exchange(enqueuing_, nullptr)) {
    ASSIGN_OR_RETURN(enqueued->event, communicator_->Mark());
    enqueued->is_enqueued = true;
    num_looks_ = 0;
  }
  return true;
}

// Begins the first operation that has calls; what has none is in the stream with what came before.
Status NcclGroup::EnqueueNext() {
  for (const auto& open : open_) {
    if (open->calls.empty()) open->is_enqueued = true;
    if (open->is_enqueued) continue;
    enqueuing_ = open.get();
    CountSent(open->signature.kind, open->sent_bytes);
    return communicator_->Enqueue(open->calls, ElementOf(open->signature.dtype).name);
  }
  return {};
}

// In the stream's order.
Status NcclGroup::LookAtDevice() {
  for (const auto& open : open_) {
    if (open->event == nullptr) continue;
    ASSIGN_OR_RETURN(const bool passed, communicator_->Passed(open->event));
    if (!passed) return {};
    open->event = nullptr;
    num_looks_ = 0;
  }
  return {};
}

void NcclGroup::EndFinished() {
  bool in_turn = true;  // whatever began before has ended (G5)
  for (const auto& open : open_) {
    const bool at_once = options_.completion == NcclCompletion::kEnqueued &&
                         open->signature.kind != GroupOperationKind::kBarrier;
    const bool returns = at_once ? open->is_enqueued : open->has_finished();
    in_turn = in_turn && returns;
    if (open->has_finished() && (in_turn || open->wait == nullptr)) {
      CountEnded(open->signature.kind);
    }
    if (in_turn && open->wait != nullptr) std::exchange(open->wait, nullptr)->Ended({});
  }
  std::erase_if(open_,
                [](const auto& open) { return open->has_finished() && open->wait == nullptr; });
}

Status NcclGroup::CloseWhenIdle() {
  if (!closes_ || !open_.empty()) return {};
  if (state_ == State::kReady) {
    state_ = State::kFinalizing;
    watch_.Begin(join_text_, "its end", {}, scheduler_.now_ns());
    RETURN_IF_ERROR(communicator_->Finalize());
  }
  if (state_ != State::kFinalizing) return {};
  ASSIGN_OR_RETURN(const bool is_final, communicator_->IsIdle());
  if (!is_final) return {};
  state_ = State::kMeeting;
  watch_.End();
  bootstrap_.Meet({.stands_for = join_text_}, [this](const Status&) {
    state_ = State::kDestroying;
    communicator_->Destroy(OnEnd());
  });
  return {};
}

void NcclGroup::LookAgain() {
  const bool calls =
      enqueuing_ != nullptr || state_ == State::kInitializing || state_ == State::kFinalizing;
  const bool on_device =
      std::ranges::any_of(open_, [](const auto& open) { return open->event != nullptr; });
  if (!(calls || on_device) || look_.posted || look_.armed()) return;
  const bool somebody_waits = calls || options_.completion == NcclCompletion::kFinished;
  if (somebody_waits && ++num_looks_ <= kLooksAtOnce) {
    look_.posted = true;
    scheduler_.Post([self = std::weak_ptr(self_)] {
      const auto group = self.lock();
      if (!group) return;
      (*group)->look_.posted = false;
      (*group)->Advance();
    });
    return;
  }
  scheduler_.timers().Arm(&look_, scheduler_.now_ns() + TimerWheel::kTickNs);
}

// Its memory goes: neither the device nor a call refers to it when this returns.
void NcclGroup::Abandon(OperationWait& wait) {
  const auto found = std::ranges::find(open_, &wait, [](const auto& open) { return open->wait; });
  CHECK(found != open_.end());
  Open& open = **found;
  open.wait = nullptr;
  Break(MakeError(ErrorCode::kCancelled, "group {}: {} gave up operation {}, {}", spec().name,
                  waiter_, open.sequence, Text(open.signature)));
  communicator_->WaitUntilEnded();
}

void NcclGroup::Break(Error error, bool tell) {
  if (broken_) return;
  if (state_ >= State::kMeeting) {  // N6
    if (tell) bootstrap_.group().Break(std::move(error));
    return;
  }
  broken_ = error;
  watch_.End();
  for (const auto& open : open_) open->watch.End();
  scheduler_.timers().Cancel(&look_);
  if (tell) bootstrap_.group().Break(error);
  communicator_->alive() ? communicator_->Abort(OnEnd()) : EndAll();
  SayBroken(error);
}

// To be called on the thread on which the communicator ends.
std::function<void()> NcclGroup::OnEnd() {
  return [&scheduler = scheduler_, self = std::weak_ptr(self_)] {
    scheduler.Post([self] {
      if (const auto group = self.lock()) (*group)->CommunicatorEnded();
    });
  };
}

void NcclGroup::CommunicatorEnded() {
  communicator_->WaitUntilEnded();
  if (broken_) return EndAll();
  state_ = State::kClosed;
  ended_.Set();
}

// Broken, and the device has left.
void NcclGroup::EndAll() {
  enqueuing_ = nullptr;
  for (const auto& open : std::exchange(open_, {})) {
    if (open->wait != nullptr) std::exchange(open->wait, nullptr)->Ended(*broken_);
  }
  ended_.Set();
}

}  // namespace troupe
