// The spans of a window of steps as one JSON object that Perfetto opens. Pure.
//   T1. Spans of a track nest: steps, arithmetic, sends and receives of a rank have tracks of their
//       own, and as many of them as overlap ("send", "send 2").
//   T2. An arrow has both its ends, and none runs backwards: where messages show that a clock is
//       wrong, it is corrected by them (clock_alignment.h).
//   T3. Events are sorted by their times.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "coordinator/report/clock_alignment.h"
#include "proto/worker.pb.h"

namespace troupe {

// As the rank told it, by its own steady clock.
struct TracedSpan {
  int32_t rank = 0;
  proto::Span span{};
};

struct TraceText {
  std::string json{};
  int64_t spans_left_out = 0;  // more overlapped on a track than have room beside one another
};

// `rank_names`: how ranks are called in the picture; "rank N" where they are not.
TraceText WriteTrace(const std::vector<TracedSpan>& spans,
                     const std::map<int32_t, std::string>& rank_names, ClockAlignment& clocks);

}  // namespace troupe
