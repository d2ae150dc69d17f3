// How far apart the slots of a channel lie in the memory that two processes share. The transport
// lays them out by it and the memory model counts them by it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace troupe {

inline constexpr int64_t kSlotAlignmentBytes = 4096;

inline constexpr int64_t SlotStrideBytes(int64_t slot_bytes) {
  const int64_t pages = (slot_bytes + kSlotAlignmentBytes - 1) / kSlotAlignmentBytes;
  return std::max<int64_t>(pages, 1) * kSlotAlignmentBytes;
}

}  // namespace troupe
