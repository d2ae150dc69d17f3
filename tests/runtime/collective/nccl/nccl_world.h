// Ranks of one process with NCCL groups over the stand-in library: what the conformance suite runs
// on. Every member of a group has a device and a CUDA stream of its own; bootstrap groups are
// inproc.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/collective/nccl/nccl_group.h"
#include "runtime/collective/nccl/nccl_library.h"
#include "tests/runtime/collective/nccl/nccl_stand_in.h"
#include "tests/runtime/collective/router_world.h"

namespace troupe {

inline const NcclLibrary& StandInLibrary() {
  static const NcclLibrary library = [] {
    auto loaded =
        NcclLibrary::Load({.nccl = TROUPE_NCCL_STAND_IN, .cuda_runtime = TROUPE_NCCL_STAND_IN});
    CHECK(loaded.ok(), "{}", loaded.error().message);
    return *loaded;
  }();
  return library;
}

// Adds as the groups of tests do.
inline void StandInSum(ncclDataType_t type, void* out, const std::vector<const void*>& inputs,
                       size_t count) {
  const DType dtype = type == ncclFloat32    ? DType::kFloat32
                      : type == ncclBfloat16 ? DType::kBFloat16
                      : type == ncclFloat16  ? DType::kFloat16
                      : type == ncclInt32    ? DType::kInt32
                                             : DType::kInt64;
  OrderedSumOf(dtype)(out, inputs.data(), static_cast<int>(inputs.size()),
                      static_cast<int64_t>(count));
}

class NcclWorld : public RouterWorld<InprocWorldNetwork> {
 public:
  explicit NcclWorld(int size) : RouterWorld(size) {
    nccl_stand_in::Reset(StandInSum);
    nccl_stand_in::SetNumInProgress(2);
  }

  std::unique_ptr<Group> Open(const GroupSpec& spec, uint16_t channel) {
    const int rank = spec.self.value;
    auto group = std::make_unique<NcclGroup>(scheduler(rank), StandInLibrary(),
                                             RouterWorld::Open(spec, channel),
                                             NcclOptions{.device = one_device ? 0 : rank,
                                                         .stream = nccl_stand_in::NewStream(rank),
                                                         .completion = completion});
    if (spec.self == spec.ranks.front()) opening_.clear();
    opening_.push_back(group.get());
    if (spec.self == spec.ranks.back()) {
      CHECK(Until([this] {
        return std::ranges::all_of(
            opening_, [](const NcclGroup* g) { return g->ready() || g->broken().has_value(); });
      }));
    }
    return group;
  }

  NcclCompletion completion = NcclCompletion::kFinished;
  bool one_device = false;

 private:
  std::vector<const NcclGroup*> opening_{};  // its members, as far as they are made
};

}  // namespace troupe
