#include "actors/schedule/execution_policy.h"

#include <array>
#include <string>

namespace troupe {
namespace {

constexpr std::array<std::string_view, 3> kModes = {"strict", "guided", "free-run"};
constexpr std::array<std::string_view, 2> kPairs = {"eager", "fused"};

template <size_t N>
int IndexOf(const std::array<std::string_view, N>& names, std::string_view name) {
  std::string hyphened(name);
  for (char& c : hyphened) c = c == '_' ? '-' : c;
  for (size_t i = 0; i < N; ++i) {
    if (names[i] == hyphened) return static_cast<int>(i);
  }
  return -1;
}

}  // namespace

std::string_view ExecutorModeName(ExecutorMode mode) { return kModes[static_cast<size_t>(mode)]; }

Result<ExecutorMode> ParseExecutorMode(std::string_view name) {
  const int index = IndexOf(kModes, name);
  if (index < 0) {
    return MakeError(ErrorCode::kInvalidSpec, "executor '{}': use strict, guided or free-run",
                     name);
  }
  return static_cast<ExecutorMode>(index);
}

std::string_view PairModeName(PairMode mode) { return kPairs[static_cast<size_t>(mode)]; }

Result<PairMode> ParsePairMode(std::string_view name) {
  const int index = IndexOf(kPairs, name);
  if (index < 0) {
    return MakeError(ErrorCode::kInvalidSpec, "pairs '{}': use eager or fused", name);
  }
  return static_cast<PairMode>(index);
}

}  // namespace troupe
