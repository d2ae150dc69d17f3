#include "actors/model/sibling_sums.h"

#include <numeric>
#include <utility>
#include <vector>

#include "actors/model/group_elements.h"
#include "actors/plan/gradient_piece.h"

namespace troupe {
namespace {

TensorView PartOf(TensorView gradients, const ElementRun& run) {
  auto* data = static_cast<std::byte*>(gradients.data());
  return {data + run.first * DTypeBytes(gradients.dtype()), gradients.dtype(), {run.count}};
}

}  // namespace

TensorView SiblingSums::OwnRun(TensorView gradients, std::span<const int64_t> counts) const {
  const auto own = counts.begin() + place_.owner;
  return PartOf(gradients, {std::accumulate(counts.begin(), own, int64_t{0}), *own});
}

Task<Status> SiblingSums::Whole(TensorView gradients, GroupPurpose purpose) {
  co_return co_await groups_.all->AllReduce(ElementsOf(gradients), purpose);
}

Task<Status> SiblingSums::Shard(TensorView gradients, std::span<const int64_t> counts,
                                GroupPurpose purpose) {
  if (groups_.replicas == nullptr) co_return co_await FirstHalf(gradients, counts, purpose);
  const auto ended = std::make_shared<StreamEvent>();
  const auto former = std::exchange(last_, ended);
  Status status = co_await FirstHalf(gradients, counts, purpose);
  if (former) co_await *former;
  if (status.ok()) status = co_await SecondHalf(gradients, counts, purpose);
  co_await OnScheduler([&] { ended->Set(); });
  co_return status;
}

Task<Status> SiblingSums::FirstHalf(TensorView gradients, std::span<const int64_t> counts,
                                    GroupPurpose purpose) {
  if (groups_.replicas == nullptr || !groups_.in_order) {
    co_return co_await groups_.owners->ReduceScatter(
        ElementsOf(gradients), ElementsOf(OwnRun(gradients, counts)), counts, purpose);
  }
  const std::vector<ElementRun> shares = MemberShares(counts, place_);
  const TensorView own = PartOf(gradients, shares[static_cast<size_t>(MemberOf(place_))]);
  co_return co_await groups_.all->ReduceScatter(ElementsOf(gradients), ElementsOf(own), shares,
                                                purpose);
}

Task<Status> SiblingSums::SecondHalf(TensorView gradients, std::span<const int64_t> counts,
                                     GroupPurpose purpose) {
  const TensorView run = OwnRun(gradients, counts);
  if (!groups_.in_order) co_return co_await groups_.replicas->AllReduce(ElementsOf(run), purpose);
  const std::vector<int64_t> shares = ReplicaCounts(run.num_elements(), place_.num_replicas);
  const auto share = shares.begin() + place_.replica;
  const TensorView own = PartOf(run, {std::accumulate(shares.begin(), share, int64_t{0}), *share});
  co_return co_await groups_.replicas->AllGather(ElementsOf(own), ElementsOf(run), shares, purpose);
}

}  // namespace troupe
