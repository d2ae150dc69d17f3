#include "actors/executor_trace.h"

#include "runtime/trace/span.h"

namespace troupe {
namespace {

uint32_t ReceiveSpanName(InputKind kind) {
  static const uint32_t activation = InternTraceName("receive activation");
  static const uint32_t gradient = InternTraceName("receive gradient");
  return kind == InputKind::kActivation ? activation : gradient;
}

}  // namespace

void ExecutorTrace::Received(const Envelope& envelope, InputKind kind, int64_t arrived_ns,
                             Clock& clock) const {
  if (!window_.Covers(envelope.step)) return;
  static const uint32_t track = InternTraceName("receive");
  SpanRecord span;
  span.name = ReceiveSpanName(kind);
  span.category = SpanCategory::kReceive;
  span.track = track;
  span.rank = rank_.value;
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
  static const uint32_t track = InternTraceName("step");
  SpanRecord span;
  span.name = InternTraceName(name);
  span.category = SpanCategory::kStep;
  span.track = track;
  span.rank = rank_.value;
  span.step = static_cast<int32_t>(step);
  span.start_ns = start_ns;
  span.end_ns = clock.NowNs();
  ThreadTraceRing().Write(span);
}

}  // namespace troupe
