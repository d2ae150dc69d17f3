// What a rank's executor leaves of the steps that the trace covers: spans of what it sends and
// receives and of the phases of a round, and how the rank's memory went.
// Thread: the executor's, which owns it.
#pragma once

#include <cstdint>
#include <string_view>

#include "actors/plan/trace_window.h"
#include "actors/schedule/schedule.h"
#include "actors/traced_memory.h"
#include "runtime/base/clock.h"
#include "runtime/trace/span.h"
#include "runtime/transport/envelope.h"

namespace troupe {

// Of a message between stages on its way out or in: "send activation", on the track "send".
enum class MessageWay : uint8_t { kSend, kReceive };
SpanRecord MessageSpan(MessageWay way, InputKind kind, Rank rank);

class ExecutorTrace {
 public:
  // The memory outlives it; null: nobody asks.
  ExecutorTrace(Rank rank, TraceWindow window, TracedMemory* memory)
      : rank_(rank), window_(window), memory_(memory) {}

  // `arrived_ns`: when it began to arrive; 0: now.
  void Received(const Envelope& envelope, InputKind kind, int64_t arrived_ns, Clock& clock) const;
  // From `start_ns` until now. `name` is a literal.
  void Phase(std::string_view name, int64_t step, int64_t start_ns, Clock& clock) const;
  // Of a training step.
  void StepBegins(int64_t step) const;
  void StepEnds(int64_t step, int64_t start_ns, Clock& clock) const;

 private:
  const Rank rank_;
  const TraceWindow window_;
  TracedMemory* const memory_;
};

}  // namespace troupe
