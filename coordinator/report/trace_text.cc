#include "coordinator/report/trace_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <set>
#include <string_view>
#include <tuple>
#include <unordered_map>

#include "runtime/trace/trace_json.h"

namespace troupe {
namespace {

constexpr size_t kLanesMax = 64;

// In the order in which they stand below one another.
constexpr std::array<std::string_view, 6> kTracks = {"step",    "compute", "send",
                                                     "receive", "wait",    "handler"};

size_t TrackOf(SpanCategory category) {
  const std::string_view name = category == SpanCategory::kIo ? "step" : SpanCategoryName(category);
  return static_cast<size_t>(std::ranges::find(kTracks, name) - kTracks.begin());
}

SpanCategory CategoryNamed(std::string_view name) {
  for (int i = 0; i < kNumSpanCategories; ++i) {
    const auto category = static_cast<SpanCategory>(i);
    if (SpanCategoryName(category) == name) return category;
  }
  return SpanCategory::kHandler;
}

int16_t Narrow(int32_t value) {
  return static_cast<int16_t>(std::clamp<int32_t>(value, -1, std::numeric_limits<int16_t>::max()));
}

// A span on the common axis, and its place.
struct Slice {
  const proto::Span* told = nullptr;
  SpanRecord record{};
  size_t lane = 0;

  size_t track() const { return TrackOf(record.category); }
};

// The tracks of one rank and category: each is the ends of the spans that are open on it.
class Lanes {
 public:
  // The first lane where the span follows the others, or lies within the innermost open one.
  // kLanesMax where there is none. In the order of starts, outer spans first.
  size_t Place(int64_t start_ns, int64_t end_ns, bool nests) {
    for (size_t lane = 0; lane < kLanesMax; ++lane) {
      if (lane == open_.size()) open_.emplace_back();
      std::vector<int64_t>& ends = open_[lane];
      while (!ends.empty() && ends.back() < start_ns) ends.pop_back();
      if (!ends.empty() && !(nests && end_ns < ends.back())) continue;
      ends.push_back(end_ns);
      return lane;
    }
    return kLanesMax;
  }

 private:
  std::vector<std::vector<int64_t>> open_{};
};

struct Message {
  size_t sender = SIZE_MAX;
  size_t receiver = SIZE_MAX;
  bool ambiguous = false;
};

// Those whose both ends are there, by their spans' indices.
std::vector<Message> MessagesOf(const std::vector<TracedSpan>& spans) {
  std::unordered_map<uint64_t, Message> by_flow;
  const auto note = [](size_t& end, size_t index, Message& message) {
    message.ambiguous = message.ambiguous || end != SIZE_MAX;
    end = index;
  };
  for (size_t i = 0; i < spans.size(); ++i) {
    const proto::Span& span = spans[i].span;
    if (span.flow_out() != 0) note(by_flow[span.flow_out()].sender, i, by_flow[span.flow_out()]);
    if (span.flow_in() != 0) note(by_flow[span.flow_in()].receiver, i, by_flow[span.flow_in()]);
  }
  std::vector<Message> messages;
  for (const auto& [flow, message] : by_flow) {
    const bool whole = message.sender != SIZE_MAX && message.receiver != SIZE_MAX;
    if (whole && !message.ambiguous) messages.push_back(message);
  }
  std::ranges::sort(messages, {}, &Message::sender);
  return messages;
}

SpanRecord RecordOf(const TracedSpan& traced, const ClockAlignment& clocks) {
  const proto::Span& span = traced.span;
  SpanRecord record;
  record.category = CategoryNamed(span.category());
  record.rank = traced.rank;
  record.stage = Narrow(span.stage());
  record.microbatch = span.microbatch();
  record.step = static_cast<int32_t>(span.step());
  record.start_ns = clocks.CommonNs(traced.rank, span.start_ns());
  // A slice without a length has no inside for an arrow.
  record.end_ns = std::max(clocks.CommonNs(traced.rank, span.end_ns()), record.start_ns + 1);
  record.cpu_ns = span.cpu_ns();
  return record;
}

std::string NameOf(const Slice& slice) {
  const proto::Span& span = *slice.told;
  if (span.name() == "step") return fmt::format("step {}", span.step());
  const bool of_microbatch =
      slice.record.category == SpanCategory::kCompute && span.microbatch() >= 0;
  return of_microbatch ? fmt::format("{} {}", span.name(), span.microbatch()) : span.name();
}

std::string TrackName(size_t track, size_t lane) {
  return lane == 0 ? std::string(kTracks[track]) : fmt::format("{} {}", kTracks[track], lane + 1);
}

// Sorts them and gives each its lane; returns how many found none.
int64_t Place(std::vector<Slice>& slices) {
  std::ranges::stable_sort(slices, [](const Slice& a, const Slice& b) {
    return std::tuple(a.record.start_ns, -a.record.end_ns) <
           std::tuple(b.record.start_ns, -b.record.end_ns);
  });
  std::map<std::pair<int32_t, size_t>, Lanes> lanes;
  for (Slice& slice : slices) {
    const SpanRecord& record = slice.record;
    // One message is no part of another.
    const bool nests =
        record.category != SpanCategory::kSend && record.category != SpanCategory::kReceive;
    slice.lane = lanes[{record.rank, slice.track()}].Place(record.start_ns, record.end_ns, nests);
  }
  return static_cast<int64_t>(
      std::erase_if(slices, [](const Slice& slice) { return slice.lane == kLanesMax; }));
}

}  // namespace

TraceText WriteTrace(const std::vector<TracedSpan>& spans,
                     const std::map<int32_t, std::string>& rank_names, ClockAlignment& clocks) {
  const std::vector<Message> messages = MessagesOf(spans);
  for (const Message& message : messages) {
    const TracedSpan& sender = spans[message.sender];
    const TracedSpan& receiver = spans[message.receiver];
    clocks.AddMessage(sender.rank, sender.span.start_ns(), receiver.rank, receiver.span.start_ns());
  }
  std::vector<Slice> slices;
  for (const TracedSpan& traced : spans) {
    slices.push_back({.told = &traced.span, .record = RecordOf(traced, clocks)});
  }
  uint32_t flow = 0;
  for (const Message& message : messages) {
    SpanRecord& sender = slices[message.sender].record;
    SpanRecord& receiver = slices[message.receiver].record;
    if (receiver.end_ns <= sender.start_ns) continue;  // clocks that contradict one another
    sender.flow_out = receiver.flow_in = ++flow;
  }
  TraceText text;
  text.spans_left_out = Place(slices);
  TraceJsonWriter writer([&text](std::string_view piece) { text.json += piece; });
  std::set<std::tuple<int32_t, size_t, size_t>> tracks;
  for (const Slice& slice : slices) {
    tracks.emplace(slice.record.rank, slice.track(), slice.lane);
  }
  for (const auto& [rank, track, lane] : tracks) {
    if (const auto name = rank_names.find(rank); name != rank_names.end()) {
      writer.NameRank(Rank(rank), name->second);
    }
    writer.NameTrack(Rank(rank), TrackName(track, lane));
  }
  for (const Slice& slice : slices) {
    writer.Write(slice.record, NameOf(slice), TrackName(slice.track(), slice.lane));
  }
  writer.Finish();
  return text;
}

}  // namespace troupe
