// Times of a pipeline's actions by stage and kind, as a file: costs.json of a run's directory, and
// what users write for `troupe schedule --costs`. Pure.
//
//   {"unit": "ms", "link_latency": 0.05,
//    "stages": [{"forward": 1.5, "backward_input": 1.6, "backward_weight": 1.2}, …]}
//
// Stages in the model's order, times for one microbatch in one unit of the user's choice; "unit"
// (only shown), "link_latency" (one hop between ranks) and "step" (which one was measured) may be
// left out. A stage has both halves of its backward, or "backward" as a whole, or all three; where
// its parameters are gathered from several ranks and its gradients summed over them, "unshard" and
// "reduce_grad" may say what one gather and one sum of the whole stage take. The same as
// comma-separated values, without unit and latency, columns in any order:
//
//   forward,backward_input,backward_weight
//   1.5,1.6,1.2
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"

namespace troupe {

inline constexpr int64_t kCostsFileBytesMax = int64_t{4} << 20;
inline constexpr size_t kCostsFileStagesMax = 16384;
inline constexpr double kCostMax = 1e12;

struct StageTimes {
  double forward = 0;
  std::optional<double> backward_input{};  // given together with backward_weight
  std::optional<double> backward_weight{};
  std::optional<double> backward{};  // measured as a whole
  std::optional<double> unshard{};   // of the whole stage, not of a microbatch
  std::optional<double> reduce_grad{};

  bool operator==(const StageTimes&) const = default;
};

struct CostsFile {
  std::string unit{};  // at most 16 bytes, printable
  double link_latency = 0;
  int64_t step = 0;                  // 0: not told
  std::vector<StageTimes> stages{};  // at least one

  bool operator==(const CostsFile&) const = default;
};

// JSON where the text begins with '{', else comma-separated values. kCorrupt, one sentence that
// begins with `path` and says where. Every time is finite, 0 to kCostMax, and some time is above 0.
Result<CostsFile> ParseCostsFile(std::string_view text, const std::string& path);

// As JSON, one stage a line, ending in a newline.
std::string CostsFileJson(const CostsFile& costs);

}  // namespace troupe
