// Workspaces: the memory that the passes of a stage work in: one for each action that may be open.
//
// Thread: Take on the compute stream's. A lease ends there too, or on the scheduler's, where a task
// that waits is destroyed.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "runtime/memory/buffer.h"

namespace troupe {

class Workspaces {
 public:
  Workspaces(int count, int64_t num_bytes, MemoryLedger& ledger);

  // A workspace of the holder's own. Ends before the Workspaces.
  class Lease {
   public:
    Lease(Lease&& other) noexcept;
    Lease& operator=(Lease&&) = delete;
    ~Lease();
    std::byte* data() const { return data_; }

   private:
    friend class Workspaces;
    Lease(std::byte* data, std::atomic<bool>* taken) : data_(data), taken_(taken) {}
    std::byte* data_;
    std::atomic<bool>* taken_;  // null once moved from
  };
  // That no more are taken than there are is the plan's promise.
  Lease Take();

 private:
  struct Workspace {
    Buffer memory{};
    std::atomic<bool> taken{false};
  };
  const int count_;
  const std::unique_ptr<Workspace[]> workspaces_;
};

}  // namespace troupe
