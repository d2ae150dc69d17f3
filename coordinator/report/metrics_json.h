// One JSON object a step: the lines of metrics.jsonl and of `-o jsonl`. Floats have 17 significant
// digits, so that reading them gives the same bits; those that are not known or not finite become
// null: loss and gradient norm of a skipped step too. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "proto/control.pb.h"

namespace troupe {

// rank → the peaks of its memory tags, added up, in bytes
using MemoryPeaks = std::map<int32_t, int64_t>;
void NotePeak(MemoryPeaks& peaks, int32_t rank, const proto::MemoryReport& report);

// restarts: how often the run was gone on with; below 0: not told.
std::string MetricsJson(const proto::StepMetrics& metrics, int num_workers, int64_t wall_us,
                        const MemoryPeaks& peaks = {}, int64_t restarts = -1);
std::string EvalJson(const proto::EvalMetrics& metrics, int64_t wall_us);
// {"event":"result","state":…,"exit_code":…,"run_dir":…}; "val/loss", "sample" and
// "missing_records" where there are any.
std::string ResultJson(const proto::JobResult& result);

std::string_view JobStateName(proto::JobState state);  // "RUNNING"
// A JSON string literal; bytes that are no UTF-8 become U+FFFD.
std::string JsonText(std::string_view text);

}  // namespace troupe
