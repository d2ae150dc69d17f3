#include "runtime/actor/pool.h"

namespace troupe::pool_internal {
namespace {

struct ListCloser {
  ~ListCloser() {
    free_lists.closed = true;
    for (FreeBlock*& head : free_lists.head) {
      while (head != nullptr) {
        FreeBlock* block = head;
        head = block->next;
        ::operator delete(block);
      }
    }
  }
};

}  // namespace

void OpenFreeLists() {
  static thread_local ListCloser closer;
  (void)closer;
  free_lists.open = true;
}

}  // namespace troupe::pool_internal
