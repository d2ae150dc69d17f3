// Buffers for bytes under way: taken for a block, back when the transport is done with it, which
// may be after their owner has gone.
//
// Thread: one. The ledger outlives the pool.
//   P1. Steady state allocates nothing; as many buffers stay as were ever out at once.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "runtime/memory/buffer.h"

namespace troupe {

class StagingPool : public std::enable_shared_from_this<StagingPool> {
 public:
  StagingPool(MemoryLedger& ledger, int64_t buffer_bytes)
      : ledger_(ledger), buffer_bytes_(buffer_bytes) {}

  struct Staged {
    std::span<const std::byte> bytes;
    std::function<void()> done;  // called once: gives the buffer back
  };
  // `num_bytes`, at most a buffer, that fill(std::byte*) writes.
  template <typename Filler>
  Staged Fill(size_t num_bytes, Filler fill) {
    if (num_bytes == 0) return {{}, [] {}};
    if (free_.empty()) {
      buffers_.emplace_back(ledger_, MemoryTag::kComm, buffer_bytes_);
      free_.push_back(&buffers_.back());
    }
    Buffer* buffer = std::exchange(free_.back(), nullptr);
    free_.pop_back();
    fill(buffer->data());
    return {{buffer->data(), num_bytes},
            [pool = shared_from_this(), buffer] { pool->free_.push_back(buffer); }};
  }

 private:
  MemoryLedger& ledger_;
  const int64_t buffer_bytes_;
  std::deque<Buffer> buffers_{};
  std::vector<Buffer*> free_{};
};

}  // namespace troupe
