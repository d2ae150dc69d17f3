// Which positions of a sequence each rank of a context-parallel group has, and what its queries see
// of another's keys (facts: Liu et al. 2023, ring attention; Brandon et al. 2023, striped; zigzag
// pairs an early chunk with a late one). Pure.
//
// N ranks, S positions, c = S / N of a rank. A rank's positions ascend in every layout, so what a
// query sees of a block is a run of its keys.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace troupe {

enum class SequenceLayout : uint8_t {
  kContiguous,  // [r c, (r + 1) c)
  kStriped,     // i N + r
  kZigzag,      // chunks r and 2 N - 1 - r of 2 N
};
std::string_view SequenceLayoutName(SequenceLayout layout);  // "zigzag"

// How queries meet the keys of other ranks.
enum class ContextMethod : uint8_t {
  kRing,       // blocks of keys and values go round, hop by hop
  kAllGather,  // all of them come together before a layer's attention
  kUlysses,    // heads are exchanged for positions (Jacobs et al. 2023)
};
std::string_view ContextMethodName(ContextMethod method);  // "all_gather"

struct ContextParallel {
  int32_t num_ranks = 1;
  ContextMethod method = ContextMethod::kRing;
  SequenceLayout layout = SequenceLayout::kZigzag;

  bool shared() const { return num_ranks > 1; }
  bool operator==(const ContextParallel&) const = default;
};

// Of rank `index`, ascending. S is a multiple of N, with kZigzag of 2 N.
std::vector<int32_t> PositionsOf(const ContextParallel& context, int index, int64_t seq_len);

// Where a position is: PositionsOf(context, index, S)[row].
struct SequencePlace {
  int index = 0;    // of the rank
  int64_t row = 0;  // among its positions
  bool operator==(const SequencePlace&) const = default;
};
SequencePlace PlaceOf(const ContextParallel& context, int64_t position, int64_t seq_len);

// Of each query the keys [first_key, end_key) of a block; neither falls from a query to the next.
struct KeyRanges {
  std::vector<int32_t> first_key{};
  std::vector<int32_t> end_key{};
  int64_t num_pairs = 0;  // visible (query, key) pairs
};
// Causal: keys at or before the query's position. Positions ascend. `document_starts`: of each
// query the position at which its document begins, before which it sees nothing; empty: at 0.
KeyRanges CausalRanges(std::span<const int32_t> queries, std::span<const int32_t> keys,
                       std::span<const int32_t> document_starts = {});
// The same where they are to lie, a number for each query; returns num_pairs.
int64_t WriteCausalRanges(std::span<const int32_t> queries, std::span<const int32_t> keys,
                          std::span<const int32_t> document_starts, std::span<int32_t> first_key,
                          std::span<int32_t> end_key);

// Visible pairs of the queries of rank `queries` with the keys of rank `keys` in one sequence that
// is one document, by closed form:
//                keys' rank = own    before own            after own
//   contiguous   c (c + 1) / 2       c^2                   0
//   striped      c (c + 1) / 2       c (c + 1) / 2         c (c - 1) / 2
//   zigzag       c (c + 1) / 2       all queries x the     the second half of the queries x
//                                    first half: c^2 / 2   all keys: c^2 / 2
int64_t VisiblePairs(const ContextParallel& context, int queries, int keys, int64_t seq_len);

// Whose block rank `index` works on after `hop` hops: (index - hop) mod N.
int OriginAfter(int num_ranks, int index, int hop);

}  // namespace troupe
