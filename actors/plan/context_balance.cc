#include "actors/plan/context_balance.h"

#include <algorithm>
#include <numeric>

#include "runtime/base/check.h"

namespace troupe {
namespace {

double Sum(const std::vector<double>& hops) {
  return std::accumulate(hops.begin(), hops.end(), 0.0);
}

}  // namespace

std::vector<int64_t> PairsOfRank(const ContextParallel& context, int index, int64_t seq_len) {
  if (context.method == ContextMethod::kUlysses) return {seq_len * (seq_len + 1) / 2};
  std::vector<int64_t> pairs;
  for (int hop = 0; hop < context.num_ranks; ++hop) {
    const int origin = OriginAfter(context.num_ranks, index, hop);
    pairs.push_back(VisiblePairs(context, index, origin, seq_len));
  }
  return pairs;
}

HopWork PairsByHop(const ContextParallel& context, int64_t seq_len) {
  HopWork work;
  for (int rank = 0; rank < context.num_ranks; ++rank) {
    const std::vector<int64_t> pairs = PairsOfRank(context, rank, seq_len);
    work.emplace_back(pairs.begin(), pairs.end());
  }
  return work;
}

double CriticalPath(ContextMethod method, const HopWork& work) {
  if (work.empty()) return 0;
  if (method != ContextMethod::kRing) {
    double most = 0;
    for (const std::vector<double>& hops : work) most = std::max(most, Sum(hops));
    return most;
  }
  double path = 0;
  for (size_t hop = 0; hop < work.front().size(); ++hop) {
    double most = 0;
    for (const std::vector<double>& hops : work) {
      CHECK(hops.size() == work.front().size(), "ranks have as many hops");
      most = std::max(most, hops[hop]);
    }
    path += most;
  }
  return path;
}

double BalanceOf(ContextMethod method, const HopWork& work) {
  return BalanceOfGroups(method, std::span(&work, 1));
}

double BalanceOfGroups(ContextMethod method, std::span<const HopWork> groups) {
  double all = 0;
  double path = 0;
  for (const HopWork& work : groups) {
    for (const std::vector<double>& hops : work) all += Sum(hops);
    path += static_cast<double>(work.size()) * CriticalPath(method, work);
  }
  return path > 0 ? all / path : 1;
}

}  // namespace troupe
