#include "coordinator/report/trace_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace troupe {
namespace {

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

}  // namespace

Result<std::unique_ptr<TraceFile>> TraceFile::Create(FileSystem& files, const std::string& path) {
  ASSIGN_OR_RETURN(auto file, files.OpenForWrite(path, WriteMode::kTruncate));
  return std::unique_ptr<TraceFile>(new TraceFile(std::move(file)));
}

TraceFile::TraceFile(std::unique_ptr<WritableFile> file)
    : file_(std::move(file)), json_([this](std::string_view text) { pending_ += text; }) {}

void TraceFile::Add(int32_t rank, const proto::Span& span) {
  if (num_bytes_ + static_cast<int64_t>(pending_.size()) > kBytesMax) {
    ++spans_left_out_;
    return;
  }
  SpanRecord record;
  record.category = CategoryNamed(span.category());
  record.rank = rank;
  record.stage = Narrow(span.stage());
  record.microbatch = span.microbatch();
  record.step = static_cast<int32_t>(span.step());
  record.flow_in = static_cast<uint32_t>(span.flow_in());
  record.flow_out = static_cast<uint32_t>(span.flow_out());
  record.start_ns = span.start_ns();
  record.end_ns = span.end_ns();
  record.cpu_ns = span.cpu_ns();
  const bool of_microbatch = record.category == SpanCategory::kCompute && span.microbatch() >= 0;
  const std::string name =
      of_microbatch ? fmt::format("{} {}", span.name(), span.microbatch()) : span.name();
  json_.Write(record, name, span.category());
}

Status TraceFile::Flush() {
  if (pending_.empty()) return {};
  const std::string text = std::exchange(pending_, {});
  num_bytes_ += static_cast<int64_t>(text.size());
  return file_->Append(BytesOf(text));
}

Status TraceFile::Finish() {
  json_.Finish();
  RETURN_IF_ERROR(Flush());
  return file_->Close();
}

}  // namespace troupe
