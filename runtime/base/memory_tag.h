// What memory is for. The plan predicts by these tags, the ledger measures by them, so that both
// stand side by side under the same words.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace troupe {

enum class MemoryTag : uint8_t { kParams, kGrads, kOptimizer, kActivations, kComm, kWorkspace };
inline constexpr int kNumMemoryTags = 6;

constexpr std::string_view MemoryTagName(MemoryTag tag) {
  constexpr std::array<std::string_view, kNumMemoryTags> kNames = {
      "params", "grads", "optimizer", "activations", "comm", "workspace"};
  return kNames[static_cast<size_t>(tag)];
}

}  // namespace troupe
