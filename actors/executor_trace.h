// The spans of a rank's executor, in the steps that the trace covers: what it sends and receives,
// and the phases of a round.
// Thread: the executor's, which owns it.
#pragma once

#include <cstdint>
#include <string_view>

#include "actors/plan/trace_window.h"
#include "actors/schedule/schedule.h"
#include "runtime/base/clock.h"
#include "runtime/trace/span.h"
#include "runtime/transport/envelope.h"

namespace troupe {

// Of a message between stages on its way out or in: "send activation", on the track "send".
enum class MessageWay : uint8_t { kSend, kReceive };
SpanRecord MessageSpan(MessageWay way, InputKind kind, Rank rank);

class ExecutorTrace {
 public:
  ExecutorTrace(Rank rank, TraceWindow window) : rank_(rank), window_(window) {}

  // `arrived_ns`: when it began to arrive; 0: now.
  void Received(const Envelope& envelope, InputKind kind, int64_t arrived_ns, Clock& clock) const;
  // From `start_ns` until now. `name` is a literal.
  void Phase(std::string_view name, int64_t step, int64_t start_ns, Clock& clock) const;

 private:
  const Rank rank_;
  const TraceWindow window_;
};

}  // namespace troupe
