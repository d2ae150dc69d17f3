// Worlds whose ranks read each other's tensors in place, as workers of one host.
#pragma once

#include "tests/runtime/collective/router_world.h"
#include "tests/runtime/collective/tensor.h"

namespace troupe {

template <typename Network>
struct SharingNetwork : Network {
  const MemoryLedger* lends = &testing::TensorLedger();
};

// Tensors that are made while it lives are shared.
template <typename Network>
class SharedWorld : public RouterWorld<SharingNetwork<Network>> {
 public:
  explicit SharedWorld(int size) : RouterWorld<SharingNetwork<Network>>(size) {
    testing::shared_tensors = true;
  }
  SharedWorld(const SharedWorld&) = delete;
  SharedWorld& operator=(const SharedWorld&) = delete;
  ~SharedWorld() { testing::shared_tensors = false; }
};

}  // namespace troupe
