#include "runtime/trace/trace_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace troupe {
namespace {

// Length of the valid UTF-8 sequence at `text[i]`, 0 if there is none.
size_t Utf8Length(std::string_view text, size_t i) {
  const auto at = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
  const unsigned char lead = at(i);
  const size_t length = lead < 0x80                   ? 1
                        : lead >= 0xC2 && lead < 0xE0 ? 2
                        : lead >= 0xE0 && lead < 0xF0 ? 3
                        : lead >= 0xF0 && lead < 0xF5 ? 4
                                                      : 0;
  if (length == 0 || i + length > text.size()) return 0;
  for (size_t k = 1; k < length; ++k) {
    if ((at(i + k) & 0xC0) != 0x80) return 0;
  }
  if (length == 3 && lead == 0xE0 && at(i + 1) < 0xA0) return 0;   // overlong
  if (length == 3 && lead == 0xED && at(i + 1) >= 0xA0) return 0;  // surrogate
  if (length == 4 && lead == 0xF0 && at(i + 1) < 0x90) return 0;   // overlong
  if (length == 4 && lead == 0xF4 && at(i + 1) >= 0x90) return 0;  // beyond U+10FFFF
  return length;
}

// Nanoseconds as microseconds with three decimals, exactly.
std::string Micros(int64_t ns) {
  const char* sign = ns < 0 ? "-" : "";
  const uint64_t magnitude = ns < 0 ? 0 - static_cast<uint64_t>(ns) : static_cast<uint64_t>(ns);
  return fmt::format("{}{}.{:03}", sign, magnitude / 1000, magnitude % 1000);
}

std::string Arguments(const SpanRecord& record) {
  std::string text;
  const auto add = [&](std::string_view key, int64_t value) {
    text += fmt::format("{}\"{}\":{}", text.empty() ? "" : ",", key, value);
  };
  if (record.step >= 0) add("step", record.step);
  if (record.stage >= 0) add("stage", record.stage);
  if (record.microbatch >= 0) add("microbatch", record.microbatch);
  if (record.cpu_ns > 0) {
    add("cpu_ns", record.cpu_ns);
    // Wall time beyond CPU time is waiting for a core.
    add("core_wait_ns", std::max<int64_t>(record.end_ns - record.start_ns - record.cpu_ns, 0));
  }
  return text;
}

}  // namespace

std::string JsonQuoted(std::string_view text) {
  std::string quoted = "\"";
  for (size_t i = 0; i < text.size();) {
    const size_t length = Utf8Length(text, i);
    const auto byte = static_cast<unsigned char>(text[i]);
    if (length == 0) {
      quoted += "\\ufffd";
      ++i;
    } else if (byte == '"' || byte == '\\') {
      quoted += '\\';
      quoted += text[i++];
    } else if (byte < 0x20) {
      quoted += fmt::format("\\u{:04x}", byte);
      ++i;
    } else {
      quoted += text.substr(i, length);
      i += length;
    }
  }
  return quoted + '"';
}

TraceJsonWriter::TraceJsonWriter(Sink sink) : sink_(std::move(sink)) {
  sink_("{\"traceEvents\":[");
}

TraceJsonWriter::~TraceJsonWriter() { Finish(); }

void TraceJsonWriter::Event(std::string_view body) {
  sink_(fmt::format("{}\n{{{}}}", events_ == 0 ? "" : ",", body));
  ++events_;
}

void TraceJsonWriter::WriteArrivals(int64_t now_ns) {
  while (!arrivals_.empty() && arrivals_.begin()->first <= now_ns) {
    Event(arrivals_.begin()->second);
    arrivals_.erase(arrivals_.begin());
  }
}

void TraceJsonWriter::NameRank(Rank rank, std::string_view name) {
  if (!named_ranks_.insert(rank.value).second) return;
  Event(fmt::format(R"("ph":"M","name":"process_name","pid":{},"tid":0,"args":{{"name":{}}})", rank,
                    JsonQuoted(name)));
  Event(fmt::format(
      R"("ph":"M","name":"process_sort_index","pid":{0},"tid":0,"args":{{"sort_index":{0}}})",
      rank));
}

int TraceJsonWriter::TrackId(int32_t rank, std::string_view track) {
  NameRank(Rank(rank), fmt::format("rank {}", rank));
  const auto [found, fresh] =
      tracks_.try_emplace({rank, std::string(track)}, static_cast<int>(tracks_.size()) + 1);
  if (fresh) {
    Event(fmt::format(R"("ph":"M","name":"thread_name","pid":{},"tid":{},"args":{{"name":{}}})",
                      rank, found->second, JsonQuoted(track)));
    Event(fmt::format(
        R"("ph":"M","name":"thread_sort_index","pid":{},"tid":{},"args":{{"sort_index":{}}})", rank,
        found->second, found->second));
  }
  return found->second;
}

void TraceJsonWriter::Write(const SpanRecord& record) {
  const auto name_of = [this](uint32_t id) -> const std::string& {
    const auto [found, fresh] = names_.try_emplace(id);
    if (fresh) found->second = TraceName(id);
    return found->second;
  };
  const std::string& name = name_of(record.name);
  Write(record, name, name_of(record.track));
}

void TraceJsonWriter::Write(const SpanRecord& record, std::string_view name,
                            std::string_view track) {
  const std::string quoted = JsonQuoted(name);
  const int tid = TrackId(record.rank, track);
  const std::string_view category = SpanCategoryName(record.category);
  WriteArrivals(record.start_ns);
  Event(fmt::format(
      R"("ph":"X","name":{},"cat":"{}","pid":{},"tid":{},"ts":{},"dur":{},"args":{{{}}})", quoted,
      category, record.rank, tid, Micros(record.start_ns), Micros(record.end_ns - record.start_ns),
      Arguments(record)));
  const auto flow = [&](const char* ph, const char* extra, uint32_t id, int64_t at_ns) {
    return fmt::format(
        R"("ph":"{}","name":"message","cat":"flow","id":{},"pid":{},"tid":{},"ts":{}{})", ph, id,
        record.rank, tid, Micros(at_ns), extra);
  };
  if (record.flow_out != 0) Event(flow("s", "", record.flow_out, record.start_ns));
  if (record.flow_in == 0) return;
  // An arrow belongs to the slice around its time, and a slice ends before its end.
  const int64_t arrival_ns = std::max(record.start_ns, record.end_ns - 1);
  arrivals_.emplace(arrival_ns, flow("f", R"(,"bp":"e")", record.flow_in, arrival_ns));
}

void TraceJsonWriter::Finish() {
  if (finished_) return;
  finished_ = true;
  WriteArrivals(std::numeric_limits<int64_t>::max());
  sink_("\n],\"displayTimeUnit\":\"ns\"}\n");
}

}  // namespace troupe
