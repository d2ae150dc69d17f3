#include "actors/model/workspaces.h"

#include <utility>

#include "runtime/base/check.h"

namespace troupe {

Workspaces::Workspaces(int count, int64_t num_bytes, MemoryLedger& ledger)
    : count_(count), workspaces_(std::make_unique<Workspace[]>(static_cast<size_t>(count))) {
  for (int i = 0; i < count; ++i) {
    workspaces_[static_cast<size_t>(i)].memory = Buffer(ledger, MemoryTag::kWorkspace, num_bytes);
  }
}

Workspaces::Lease Workspaces::Take() {
  for (int i = 0; i < count_; ++i) {
    Workspace& workspace = workspaces_[static_cast<size_t>(i)];
    if (!workspace.taken.exchange(true, std::memory_order_acquire)) {
      return {workspace.memory.data(), &workspace.taken};
    }
  }
  CHECK(false, "a stage has more than {} passes open", count_);
  return {nullptr, nullptr};
}

Workspaces::Lease::Lease(Lease&& other) noexcept
    : data_(other.data_), taken_(std::exchange(other.taken_, nullptr)) {}

Workspaces::Lease::~Lease() {
  if (taken_ != nullptr) taken_->store(false, std::memory_order_release);
}

}  // namespace troupe
