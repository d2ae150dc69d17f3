#include "actors/output_channels.h"

#include <utility>

#include "actors/executor_trace.h"

namespace troupe {

bool OutputChannels::HasRoom(const Transfer& output) const {
  const auto reserved = reserved_.find({output.to, output.kind});
  return !output.crosses_ranks() || reserved == reserved_.end() ||
         reserved->second < options_.num_buffers;
}

void OutputChannels::Reserve(const Transfer& output) { ++reserved_[{output.to, output.kind}]; }

void OutputChannels::MarkSent(const OutputSent& sent) { --reserved_.at({sent.to, sent.kind}); }

void OutputChannels::Park(Output output) {
  auto& queue = parked_[{output.transfer.to, output.transfer.kind}];
  queue.push_back(std::make_shared<const Output>(std::move(output)));
}

Status OutputChannels::Flush(PipelineRank to, uint16_t channel,
                             const ActorRef<OutputSent>& executor, Clock& clock) {
  for (auto& [key, queue] : parked_) {
    if (key.first != to || ChannelOf(key.second) != channel) continue;
    while (!queue.empty()) {
      Status sent = Send(queue.front(), executor, clock);
      if (!sent.ok() && sent.error().code == ErrorCode::kResourceExhausted) break;  // O1
      RETURN_IF_ERROR(std::move(sent));
      Count(*queue.front());
      queue.pop_front();
    }
  }
  return {};
}

Status OutputChannels::Send(const Parked& parked, const ActorRef<OutputSent>& executor,
                            Clock& clock) const {
  const Transfer& t = parked->transfer;
  const Postmark postmark{.channel = ChannelOf(t.kind),
                          .step = parked->step,
                          .microbatch = t.microbatch.value,
                          .stage = t.to_stage.value,
                          .flow_id = NewFlowId(options_.rank)};
  const NeighbourRef& to = options_.neighbours.at(t.to);
  // The bytes live in `done` until the transport has let go of them.
  auto done = [&clock, output = parked, traced = options_.trace.Covers(parked->step),
               span = SpanOf(*parked, postmark.flow_id, clock), executor,
               sent = OutputSent{t.to, t.kind}]() mutable {
    span.end_ns = clock.NowNs();
    if (traced) ThreadTraceRing().Write(span);
    output.reset();
    (void)executor.Send(sent);  // an executor that has ended counts no buffers
  };
  const auto bytes = parked->bytes.bytes();
  if (t.kind == InputKind::kActivation) {
    return to.SendBulk(
        Activation{parked->round, static_cast<int16_t>(t.to_stage.value),
                   static_cast<int16_t>(t.input), t.microbatch.value, options_.boundary},
        bytes, std::move(done), postmark);
  }
  return to.SendBulk(
      ActivationGradient{parked->round, t.to_stage.value, t.microbatch.value, options_.boundary},
      bytes, std::move(done), postmark);
}

void OutputChannels::Count(const Output& sent) {
  if (options_.traffic == nullptr || !sent.training) return;
  SentOutputs& sum = options_.traffic->outputs[sent.transfer.kind];
  ++sum.count;
  sum.bytes += sent.bytes.num_bytes();
}

SpanRecord OutputChannels::SpanOf(const Output& output, uint32_t flow_id,
                                  const Clock& clock) const {
  const Transfer& transfer = output.transfer;
  SpanRecord span = MessageSpan(MessageWay::kSend, transfer.kind, options_.rank);
  span.stage = static_cast<int16_t>(transfer.from_stage.value);
  span.microbatch = transfer.microbatch.value;
  span.step = static_cast<int32_t>(output.step);
  span.flow_out = flow_id;
  span.start_ns = clock.NowNs();
  return span;
}

}  // namespace troupe
