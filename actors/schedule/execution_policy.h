// How a rank's executor may depart from the order of its list. Part of a job's plan; read by the
// next-action function, and through it by executor and simulator alike. Pure values.
#pragma once

#include <cstdint>
#include <string_view>

#include "runtime/base/result.h"

namespace troupe {

// In every mode a stage runs its Forwards, its input gradients and each part of its weight
// gradients in the list's order of microbatches, so that sums keep their bits.
enum class ExecutorMode : uint8_t {
  kStrict,   // the head of the list, or nothing
  kGuided,   // the head where it can start, else a later weight gradient fills the gap; with slack
             // also a later input gradient, and a Forward within the memory that the slack allows
  kFreeRun,  // no list: whatever is ready, input gradients first, Forwards within a memory limit
};
std::string_view ExecutorModeName(ExecutorMode mode);  // "strict", "guided", "free-run"
Result<ExecutorMode> ParseExecutorMode(std::string_view name);

// An overlapped pair of actions.
enum class PairMode : uint8_t {
  kEager,  // ordinary actions: neither waits for the other's input, each sends when it ends
  kFused,  // starts when all its inputs are here, sends all outputs at its end
};
std::string_view PairModeName(PairMode mode);  // "eager", "fused"
Result<PairMode> ParsePairMode(std::string_view name);

inline constexpr int kOpenActionsMax = 4;

// Activations are counted in microbatches of a rank's whole share of the model.
struct ExecutionPolicy {
  ExecutorMode mode = ExecutorMode::kStrict;
  // Guided: how far a Forward that jumps the queue may take the rank above its list's own peak.
  // 0: only weight gradients jump.
  double activation_slack = 0;
  // Free-run: most activations that a rank holds, at least 1.
  double activation_limit = 0;
  PairMode pairs = PairMode::kEager;
  // Most actions that a rank has started and not ended, each with a workspace of its own: above 1
  // where actions wait in their middle for other ranks of a group, or for weights that are
  // gathered. While all of them wait, the other action of an overlapped pair may start, and in
  // guided and free-run a weight gradient.
  int open_actions = 1;  // at most kOpenActionsMax

  bool operator==(const ExecutionPolicy&) const = default;
};

}  // namespace troupe
