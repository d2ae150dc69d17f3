#include "coordinator/report/run_traces.h"

#include <fmt/format.h>

#include <iterator>
#include <utility>

namespace troupe {

RunTraces::OpenWindow* RunTraces::Open(int64_t step) {
  const int64_t first = window_.FirstOf(step);
  if (const auto found = open_.find(first); found != open_.end()) return &found->second;
  if (open_.size() == kOpenMax) return nullptr;
  OpenWindow& window = open_[first];
  window.last_step = window_.LastOf(step);
  window.left_out = open_spans_ + kSpansMax > kOpenSpansMax;
  windows_left_out_ += window.left_out ? 1 : 0;
  return &window;
}

void RunTraces::Add(int32_t rank, const proto::Span& span) {
  if (!window_.Covers(span.step())) return;
  OpenWindow* window = span.step() <= written_through_ ? nullptr : Open(span.step());
  if (window == nullptr || window->left_out || window->spans.size() == kSpansMax ||
      span.name().size() > kNameBytesMax || span.category().size() > kNameBytesMax) {
    ++spans_left_out_;
    return;
  }
  ++open_spans_;
  window->spans.push_back({.rank = rank, .span = span});
}

Status RunTraces::StepDone(int64_t step) {
  const int64_t now_ns = clock_.NowNs();
  for (auto at = open_.begin(); at != open_.end();) {
    OpenWindow& window = at->second;
    if (window.over_ns == 0 && step > window.last_step) window.over_ns = now_ns;
    if (window.over_ns == 0 || now_ns - window.over_ns < int64_t{kLateMs} * 1'000'000) {
      ++at;
      continue;
    }
    const auto over = open_.extract(at++);
    RETURN_IF_ERROR(Write(over.key(), over.mapped()));
  }
  return {};
}

Status RunTraces::Finish() {
  for (const auto& [first, window] : std::exchange(open_, {})) {
    RETURN_IF_ERROR(Write(first, window));
  }
  return {};
}

Status RunTraces::Write(int64_t first_step, const OpenWindow& window) {
  written_through_ = std::max(written_through_, window.last_step);
  open_spans_ -= window.spans.size();
  if (window.spans.empty()) return {};
  TraceText text = WriteTrace(window.spans, rank_names_, clocks_);
  spans_left_out_ += text.spans_left_out;
  if (num_bytes_ + static_cast<int64_t>(text.json.size()) > kBytesMax) {
    spans_left_out_ += std::ssize(window.spans) - text.spans_left_out;
    return {};
  }
  num_bytes_ += static_cast<int64_t>(text.json.size());
  RETURN_IF_ERROR(files_.CreateDirectories(folder_));
  return ReplaceFile(files_, JoinPath(folder_, fmt::format("step-{:08}.json", first_step)),
                     text.json);
}

}  // namespace troupe
