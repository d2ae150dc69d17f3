// What the ops with a workspace share: its pieces, and what is said of one that is too small.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "kernels/exec.h"

namespace troupe {

constexpr int64_t AlignedBytes(int64_t num_bytes) { return (num_bytes + 63) / 64 * 64; }

// A workspace of fewer than `num_bytes` ends the process. what() is the op with its shape:
// "AttentionForward of 2 sequences, …".
template <typename What>
void CheckWorkspace(std::span<const std::byte> workspace, int64_t num_bytes, What&& what) {
  const auto size = static_cast<int64_t>(workspace.size());
  if (size >= num_bytes) [[likely]] {
    return;
  }
  const std::string message = what() + ": a workspace of " + std::to_string(size) +
                              " bytes, where it takes " + std::to_string(num_bytes);
  KernelCheckFailed("workspace is large enough", __FILE__, __LINE__, message.c_str());
}

// Aligned pieces off the front of a workspace that was checked to hold them.
class WorkspacePieces {
 public:
  explicit WorkspacePieces(std::span<std::byte> workspace) : rest_(workspace) {}

  void* Take(int64_t num_bytes) {
    void* piece = rest_.data();
    rest_ = rest_.subspan(static_cast<size_t>(AlignedBytes(num_bytes)));
    return piece;
  }
  std::span<std::byte> rest() const { return rest_; }

 private:
  std::span<std::byte> rest_;
};

}  // namespace troupe
