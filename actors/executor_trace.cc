#include "actors/executor_trace.h"

#include <fmt/format.h>

namespace troupe {
namespace {

// What spans of one way are called.
struct MessageNames {
  explicit MessageNames(std::string_view way)
      : activation(InternTraceName(fmt::format("{} activation", way))),
        gradient(InternTraceName(fmt::format("{} gradient", way))) {}

  uint32_t activation, gradient;
};

}  // namespace

SpanRecord MessageSpan(MessageWay way, InputKind kind, Rank rank) {
  static const MessageNames send("send");
  static const MessageNames receive("receive");
  const bool sends = way == MessageWay::kSend;
  const MessageNames& names = sends ? send : receive;
  SpanRecord span;
  span.name = kind == InputKind::kActivation ? names.activation : names.gradient;
  span.category = sends ? SpanCategory::kSend : SpanCategory::kReceive;
  span.rank = rank.value;
  return span;
}

void ExecutorTrace::Received(const Envelope& envelope, InputKind kind, int64_t arrived_ns,
                             Clock& clock) const {
  if (!window_.Covers(envelope.step)) return;
  SpanRecord span = MessageSpan(MessageWay::kReceive, kind, rank_);
  span.stage = static_cast<int16_t>(envelope.stage);
  span.microbatch = envelope.microbatch;
  span.step = static_cast<int32_t>(envelope.step);
  span.flow_in = envelope.flow_id;
  span.end_ns = clock.NowNs();
  span.start_ns = arrived_ns > 0 ? arrived_ns : span.end_ns;
  ThreadTraceRing().Write(span);
}

void ExecutorTrace::Phase(std::string_view name, int64_t step, int64_t start_ns,
                          Clock& clock) const {
  if (!window_.Covers(step)) return;
  SpanRecord span;
  span.name = InternTraceName(name);
  span.category = SpanCategory::kStep;
  span.rank = rank_.value;
  span.step = static_cast<int32_t>(step);
  span.start_ns = start_ns;
  span.end_ns = clock.NowNs();
  ThreadTraceRing().Write(span);
}

void ExecutorTrace::StepBegins(int64_t step) const {
  if (memory_ != nullptr && window_.Covers(step)) memory_->Begin();
}

void ExecutorTrace::StepEnds(int64_t step, int64_t start_ns, Clock& clock) const {
  if (memory_ != nullptr && window_.Covers(step)) memory_->End(step);
  Phase("step", step, start_ns, clock);
}

}  // namespace troupe
