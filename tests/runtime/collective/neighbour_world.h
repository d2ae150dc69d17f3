// Worlds whose groups sum from neighbour to neighbour.
#pragma once

#include <memory>
#include <utility>

#include "runtime/collective/group.h"

namespace troupe {

template <typename World, SumAlgorithm kAlgorithm>
struct NeighbourWorld : World {
  static constexpr SumAlgorithm kSums = kAlgorithm;
  using World::World;
  std::unique_ptr<Group> Open(GroupSpec spec, uint16_t channel) {
    spec.sums = kAlgorithm;
    return World::Open(std::move(spec), channel);
  }
};

}  // namespace troupe
