// Pooled memory for what the message path allocates: coroutine frames and message nodes. Free
// lists per thread and size class; no atomics. A block freed by another thread than its allocator
// joins the freeing thread's list, so a list is capped and the excess goes back to the heap.
//
// Thread: any; every thread sees only its own lists.
#pragma once

#include <cstddef>
#include <new>

namespace troupe {

namespace pool_internal {

inline constexpr size_t kGranuleBytes = 64;
inline constexpr size_t kNumClasses = 32;  // up to 2 KiB; larger blocks come from the heap
inline constexpr int kMaxBlocksPerClass = 1024;

struct FreeBlock {
  FreeBlock* next;
};

// Trivially destructible on purpose: a static object may free a block after the thread's other
// thread-locals are gone, and then `closed` sends it to the heap.
struct FreeLists {
  FreeBlock* head[kNumClasses];
  int count[kNumClasses];
  bool open;
  bool closed;
};
inline constinit thread_local FreeLists free_lists{};

// Registers the release of this thread's lists at its end.
void OpenFreeLists();

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kPooled = false;  // the sanitizer sees use after free only without reuse
#else
inline constexpr bool kPooled = true;
#endif

}  // namespace pool_internal

inline void* PoolAllocate(size_t num_bytes) {
  namespace pool = pool_internal;
  const size_t index = (num_bytes - 1) / pool::kGranuleBytes;
  if (!pool::kPooled || index >= pool::kNumClasses) return ::operator new(num_bytes);
  auto& lists = pool::free_lists;
  if (auto* block = lists.head[index]) [[likely]] {
    lists.head[index] = block->next;
    --lists.count[index];
    return block;
  }
  return ::operator new((index + 1) * pool::kGranuleBytes);
}

inline void PoolFree(void* memory, size_t num_bytes) {
  namespace pool = pool_internal;
  const size_t index = (num_bytes - 1) / pool::kGranuleBytes;
  auto& lists = pool::free_lists;
  if (!pool::kPooled || index >= pool::kNumClasses || lists.closed ||
      lists.count[index] >= pool::kMaxBlocksPerClass) {
    ::operator delete(memory);
    return;
  }
  if (!lists.open) [[unlikely]]
    pool::OpenFreeLists();
  auto* block = static_cast<pool::FreeBlock*>(memory);
  block->next = lists.head[index];
  lists.head[index] = block;
  ++lists.count[index];
}

// Base of a class whose objects live in the pool. The most derived class must be the one deleted.
struct Pooled {
  static void* operator new(size_t num_bytes) { return PoolAllocate(num_bytes); }
  static void operator delete(void* memory, size_t num_bytes) { PoolFree(memory, num_bytes); }
};

}  // namespace troupe
