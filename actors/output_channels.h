// OutputChannels: what a rank's stages computed for other ranks, until the transport lets go of it.
// A channel is one kind of output (activation, gradient) to one rank of the pipeline.
// Thread: the executor's, which owns it.
//
//   O1. Outputs of a channel leave in the order of Park, each against a credit; without one they
//       stay parked.
//   O2. A channel's buffers are those reserved and not yet let go: parked, under way, or held back
//       by the executor. Whoever needs one more than there are waits (HasRoom).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <utility>

#include "actors/messages.h"
#include "actors/plan/trace_window.h"
#include "actors/rank_traffic.h"
#include "actors/schedule/schedule.h"
#include "runtime/actor/actor_ref.h"
#include "runtime/actor/remote.h"
#include "runtime/base/clock.h"
#include "runtime/memory/buffer.h"
#include "runtime/trace/span.h"

namespace troupe {

using NeighbourRef = RemoteRef<WithBulk<Activation>, WithBulk<ActivationGradient>>;

class OutputChannels {
 public:
  struct Options {
    Rank rank{};
    TensorDescriptor boundary{};  // shape and bytes of an output
    int num_buffers = 0;          // of each channel
    std::map<PipelineRank, NeighbourRef> neighbours{};
    TraceWindow trace{};             // the steps whose sends leave spans
    RankTraffic* traffic = nullptr;  // counts them; outlives this. Null: nobody asks
  };
  // An output and where it belongs in time.
  struct Output {
    Transfer transfer{};
    int64_t round = 0;
    int64_t step = 0;
    bool training = false;  // of a training step, not of an evaluation
    Buffer bytes{};
  };

  explicit OutputChannels(Options options) : options_(std::move(options)) {}

  bool HasRoom(const Transfer& output) const;  // true for one that stays on the rank
  void Reserve(const Transfer& output);
  void Park(Output output);

  // Sends what is parked for (to, channel) as far as credits go. `executor` hears OutputSent for
  // each, when the transport has let go of its bytes; `clock` is read then too.
  Status Flush(PipelineRank to, uint16_t channel, const ActorRef<OutputSent>& executor,
               Clock& clock);
  void MarkSent(const OutputSent& sent);

 private:
  using Channel = std::pair<PipelineRank, InputKind>;
  using Parked = std::shared_ptr<const Output>;  // shared with the transport's callback

  Status Send(const Parked& parked, const ActorRef<OutputSent>& executor, Clock& clock) const;
  void Count(const Output& sent);
  SpanRecord SpanOf(const Output& output, uint32_t flow_id, const Clock& clock) const;

  const Options options_;
  std::map<Channel, std::deque<Parked>> parked_{};
  std::map<Channel, int> reserved_{};
};

}  // namespace troupe
