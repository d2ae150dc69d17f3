// Writes spans as Chrome trace events, which Perfetto (ui.perfetto.dev) and chrome://tracing open.
// Source: "Trace Event Format" (Google): ph X (complete), M (names), s/f (flows); ts and dur in
// microseconds; pid = rank, tid = track.
//
// Thread: one. Streams: what it holds is a line, the tracks seen so far and the arrows under way.
//   J1. After Finish the output is one valid JSON object, whatever strings were interned.
//   J2. A flow's arrow leaves at the start of its sending span and arrives in the last nanosecond
//   of
//       its receiving one (bp: e).
//   J3. Where spans are written in the order of their starts, events are sorted by their times.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "runtime/base/ids.h"
#include "runtime/trace/span.h"

namespace troupe {

class TraceJsonWriter {
 public:
  // Gets the text piece by piece, in order.
  using Sink = std::function<void(std::string_view text)>;

  explicit TraceJsonWriter(Sink sink);
  ~TraceJsonWriter();  // finishes

  // How a rank is called in the picture; without it "rank N".
  void NameRank(Rank rank, std::string_view name);
  // Tracks of a rank stand below one another in the order of their first names or spans.
  void NameTrack(Rank rank, std::string_view track) { TrackId(rank.value, track); }

  // By interned ids, for spans of this process.
  void Write(const SpanRecord& record);
  // By strings, for spans that came from other processes; record.name and record.track are unused.
  void Write(const SpanRecord& record, std::string_view name, std::string_view track);

  void Finish();
  int64_t events() const { return events_; }

 private:
  void Event(std::string_view body);
  // Those that are due at `now_ns`, in order.
  void WriteArrivals(int64_t now_ns);
  int TrackId(int32_t rank, std::string_view track);

  Sink sink_;
  std::map<std::pair<int32_t, std::string>, int> tracks_;
  std::set<int32_t> named_ranks_;
  std::unordered_map<uint32_t, std::string> names_;
  std::multimap<int64_t, std::string> arrivals_;  // time in ns → the event of an arrow's end
  int64_t events_ = 0;
  bool finished_ = false;
};

// A JSON string literal of any bytes; invalid UTF-8 becomes U+FFFD.
std::string JsonQuoted(std::string_view text);

}  // namespace troupe
