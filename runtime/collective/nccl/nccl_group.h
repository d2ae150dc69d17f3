// NcclGroup: a Group whose operations are NCCL's, in the memory of GPUs, enqueued on a CUDA stream.
//
//     ASSIGN_OR_RETURN(const NcclLibrary nccl, NcclLibrary::Load({}));
//     NcclGroup dp(scheduler, nccl, *groups.Open(spec, channel), {.device = 0, .stream = compute});
//     CO_RETURN_IF_ERROR(co_await dp.AllReduce({kFloat32, gradients_on_gpu, count}));
//     CO_RETURN_IF_ERROR(co_await dp.Close());
//
// It is built on a bootstrap group of the same members, whose backend goes over messages. Over that
// the members exchange the communicator's id, say what they begin (nccl_agreement.h), and tell each
// other when one of them breaks. The bootstrap group's deadline and wait records serve the time
// until all have begun an operation, those of this one the time from there to its end.
//
//   joining --id--> initializing --> ready --Close, all ended--> finalizing --> meeting --> closed
//      |-----------------|-------------|----------------------------| error: aborted
//
// When OK is returned (NcclOptions::completion):
//   kEnqueued   when the operation is in the CUDA stream. What the task enqueues there next runs
//               behind it and finds it done, so for a task whose arithmetic is on that stream it is
//               as if it had waited, and the host waits for nothing. Who reads a result on the host
//               or on another stream synchronizes first; memory goes back in the stream's order.
//   kFinished   when the device has passed it: all that group.h promises of OK.
// A barrier needs no device: OK when every member has begun it.
//
//   N1. Operations are enqueued in the order in which they began, one after the other. Groups that
//       share a CUDA stream begin theirs in one order at all ranks, as the plan has it.
//   N2. What NCCL has only begun is looked at again, at first at once, then by a timer; so are its
//       errors and the device's progress, while operations are open. No handler blocks, but for N3.
//   N3. Where the group breaks, all members abort. Operations end with the error when the device
//       has left them (G6); who destroys a task in an operation is held until then.
//   N4. Sums are NCCL's: equal bits at every member, in an order of its own, whatever G3 and
//       GroupSpec::sums say. Those of two members are as in every backend; those of more agree as a
//       ring's do.
//   N5. Operations that differ (G1) are noticed beside the device's work: both members end with the
//       error that names both, with kEnqueued in a later operation or in Close.
//   N6. Finalizing takes all members, so no Close ends before each has done it: they meet over the
//       bootstrap group. Who has finalized closes well, whatever becomes of the others.
//
// Thread: as of every Group; constructor and destructor the scheduler's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/actor/scheduler.h"
#include "runtime/actor/stream_wait.h"
#include "runtime/collective/group.h"
#include "runtime/collective/nccl/nccl_bootstrap.h"
#include "runtime/collective/nccl/operation_watch.h"

struct CUstream_st;  // *cudaStream_t
struct CUevent_st;   // *cudaEvent_t

namespace troupe {

class NcclCommunicator;
struct NcclLibrary;

enum class NcclCompletion : uint8_t { kEnqueued, kFinished };

struct NcclOptions {
  int device = 0;                 // CUDA's number of the GPU in this process
  CUstream_st* stream = nullptr;  // of that GPU; outlives the group
  NcclCompletion completion = NcclCompletion::kEnqueued;
};

class NcclGroup final : public Group {
 public:
  // Begins at once to join the other members; operations wait until that is done. All members make
  // theirs before one begins an operation. The library outlives the group.
  NcclGroup(Scheduler& scheduler, const NcclLibrary& library, std::unique_ptr<Group> bootstrap,
            NcclOptions options);
  // Aborts what is not closed, and blocks until the device has left it.
  ~NcclGroup() override;

  // Awaited by a task of a stream, at every member, when its operations have begun: waits for their
  // ends, then finalizes and destroys the communicator (N6). No operation begins after it.
  Task<Status> Close();

  bool ready() const { return state_ == State::kReady; }
  const std::optional<Error>& broken() const { return broken_; }

  Task<Status> Run(GroupOperation operation) override;
  void Break(Error error) override { Break(std::move(error), /*tell=*/true); }

 protected:
  Task<Status> Alone(GroupOperation operation) override { return Run(operation); }

 private:
  enum class State : uint8_t {
    kJoining,
    kInitializing,
    kReady,
    kFinalizing,
    kMeeting,
    kDestroying,
    kClosed
  };
  class OperationWait;
  struct Open;

  void Joined(const Result<NcclId>& id);
  std::unique_ptr<Open> Prepare(const GroupOperation& operation);
  void Begin(OperationWait& wait, std::unique_ptr<Open> open);
  void Say(const Open& open);
  void Heard(uint64_t sequence, const NcclBootstrap::Begun& heard);
  void Abandon(OperationWait& wait);

  // Does what can be done now, and sees to it that it is called again.
  void Advance();
  Status Proceed();
  Status EnqueueNext();
  Status LookAtDevice();
  Result<bool> CallHasCome();
  void EndFinished();
  Status CloseWhenIdle();
  void LookAgain();

  void Break(Error error, bool tell);
  void CommunicatorEnded();
  void EndAll();
  std::function<void()> OnEnd();

  Scheduler& scheduler_;
  const NcclOptions options_;
  const std::string waiter_;                // "rank 3"
  const std::string join_text_;             // for wait records
  const std::shared_ptr<NcclGroup*> self_;  // what is posted finds the group by it, or nothing
  NcclBootstrap bootstrap_;
  const std::unique_ptr<NcclCommunicator> communicator_;
  State state_ = State::kJoining;
  OperationWatch watch_;  // of the communicator's beginning and end
  uint64_t num_begun_ = 0;
  std::vector<std::unique_ptr<Open>> open_;  // by sequence
  Open* enqueuing_ = nullptr;                // whose calls have begun and not come through
  bool closes_ = false;
  StreamEvent ended_{};  // closed, or broken and the device has left
  int num_looks_ = 0;    // since something came
  struct Look : TimerNode {
    NcclGroup* group = nullptr;
    bool posted = false;
  } look_{};
  std::optional<Error> broken_;
};

}  // namespace troupe
