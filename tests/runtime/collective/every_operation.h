// One run through all operations of a group, the same at every member whatever the backend: what it
// leaves at each must be the same bytes.
#pragma once

#include <numeric>
#include <string>
#include <vector>

#include "runtime/collective/group.h"
#include "tests/runtime/collective/tensor.h"

namespace troupe {

inline constexpr int64_t kOperationCounts[] = {0, 1, 7, 1000, 2503};

// Of ranks on two hosts, the first half on one.
inline void SumAlongARing(GroupSpec& spec) {
  spec.sums = SumAlgorithm::kRing;
  for (size_t i = 0; i < spec.ranks.size(); ++i)
    spec.hosts.push_back(i < spec.ranks.size() / 2 ? 0 : 1);
}

// Appends to *left what a member has read: `count` elements of each operation.
inline Task<Status> RunSums(Group& group, DType dtype, int64_t count, std::string* left) {
  const int size = group.size();
  const auto self = static_cast<size_t>(group.index());
  auto data = RandomOnes(dtype, count, size);
  auto scattered = RandomOnes(dtype, count * size, size);
  Tensor part(dtype, count);
  Tensor reduced(dtype, count);
  CO_RETURN_IF_ERROR(co_await group.Reduce(data[self].elements(), reduced.elements(), size - 1));
  CO_RETURN_IF_ERROR(co_await group.AllReduce(data[self].elements()));
  CO_RETURN_IF_ERROR(co_await group.ReduceScatter(scattered[self].elements(), part.elements()));
  *left += data[self].Bytes() + part.Bytes();
  if (group.index() == size - 1) *left += reduced.Bytes();
  co_return Status{};
}

inline Task<Status> RunCopies(Group& group, DType dtype, int64_t count, std::string* left) {
  const int size = group.size();
  const auto self = static_cast<size_t>(group.index());
  auto data = RandomOnes(dtype, count, size);
  Tensor gathered(dtype, count * size);
  Tensor shifted(dtype, count);
  Tensor exchanged(dtype, count * size);
  const std::vector<int64_t> counts(static_cast<size_t>(size), count);
  CO_RETURN_IF_ERROR(co_await group.AllGather(data[self].elements(), gathered.elements()));
  CO_RETURN_IF_ERROR(co_await group.Shift(data[self].elements(), shifted.elements(), 1));
  CO_RETURN_IF_ERROR(
      co_await group.AllToAll(gathered.elements(), counts, exchanged.elements(), counts));
  CO_RETURN_IF_ERROR(co_await group.Broadcast(data[self].elements(), 0));
  *left += gathered.Bytes() + shifted.Bytes() + exchanged.Bytes() + data[self].Bytes();
  co_return co_await group.Barrier();
}

inline Task<Status> RunEveryOperation(Group& group, std::string* left) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kInt64}) {
    for (const int64_t count : kOperationCounts) {
      CO_RETURN_IF_ERROR(co_await RunSums(group, dtype, count, left));
      CO_RETURN_IF_ERROR(co_await RunCopies(group, dtype, count, left));
    }
  }
  co_return Status{};
}

}  // namespace troupe
