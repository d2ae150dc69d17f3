#include "actors/model/gathered_memory.h"

#include <algorithm>
#include <utility>

namespace troupe {

Buffer GatheredMemory::Take(MemoryTag tag, int64_t num_bytes, int64_t layout) {
  OfTag& of = Of(tag);
  const auto found = std::find_if(of.idle.rbegin(), of.idle.rend(), [&](const Idle& idle) {
    return idle.layout == layout && idle.buffer.num_bytes() == num_bytes;
  });
  if (found != of.idle.rend()) {
    Buffer buffer = std::move(found->buffer);
    of.idle.erase(std::next(found).base());
    buffer.SetIdle(false);
    return buffer;
  }
  const int64_t most_bytes = most_bytes_[static_cast<size_t>(tag)];
  while (!of.idle.empty() && of.allocated_bytes + num_bytes > most_bytes) {
    of.allocated_bytes -= of.idle.front().buffer.num_bytes();
    of.idle.pop_front();
  }
  of.allocated_bytes += num_bytes;
  return Buffer(ledger_, tag, num_bytes);
}

void GatheredMemory::Return(Buffer buffer, int64_t layout) {
  if (buffer.empty()) return;
  buffer.SetIdle(true);
  OfTag& of = Of(buffer.tag());
  of.idle.push_back({std::move(buffer), layout});
}

}  // namespace troupe
