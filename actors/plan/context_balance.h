// How evenly a sequence layout shares the work of attention among the ranks of a context-parallel
// group. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "actors/plan/sequence_layout.h"

namespace troupe {

// work[rank][hop]: visible (query, key) pairs, or times. Hop 0 is a rank's own block.
using HopWork = std::vector<std::vector<double>>;

// By hop, visible pairs of one sequence that is one document (VisiblePairs) of rank `index`, of
// every head alike; with kUlysses, where a rank has whole sequences of its heads, all in one hop.
std::vector<int64_t> PairsOfRank(const ContextParallel& context, int index, int64_t seq_len);
// Of every rank.
HopWork PairsByHop(const ContextParallel& context, int64_t seq_len);

// What the slowest rank takes: with kRing every hop waits for all ranks, as a block comes from the
// neighbour that worked beside it; with the other methods ranks meet only at the end.
double CriticalPath(ContextMethod method, const HopWork& work);

// An equal share of all the work over the critical path: 1 where no rank ever waits.
//   ring, causal:  contiguous (N c + 1) / ((2 N - 1) c + 1);  striped (N c + 1) / (N (c + 1));
//                  zigzag 1
// 1 where there is no work.
double BalanceOf(ContextMethod method, const HopWork& work);
// Of groups that share sequences of their own: the sums of both over all groups.
double BalanceOfGroups(ContextMethod method, std::span<const HopWork> groups);

}  // namespace troupe
