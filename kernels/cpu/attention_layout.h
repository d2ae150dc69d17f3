// Where the pieces of attention's workspace lie, for one key head: what the vector bodies take and
// what AttentionWorkspaceBytes promises.
#pragma once

#include <cstdint>

namespace troupe {

// Queries and keys of one block.
struct AttentionBlocks {
  int64_t queries, keys;
};

// `Place` is float*, or int64_t for offsets in floats. Keys lie in columns (transposed) where
// scores are formed, in rows where they are summed over.
template <typename Place>
struct AttentionScratch {
  int64_t key_stride;                          // floats between transposed rows
  Place keys_t, values, keys, dkeys, dvalues;  // whole head; backward has values transposed
  Place query, result, output_grad, score, dscore, max, total, delta;  // a block of queries
  Place end;
};

// These two emit no symbol (vector_bodies.h, B2). `lanes` as in CpuCapabilities.
__attribute__((always_inline)) constexpr AttentionBlocks AttentionBlocksOf(int lanes) {
  return {.queries = lanes == 16 ? 32 : 36, .keys = 128};  // whole tiles
}

template <typename Place>
__attribute__((always_inline)) constexpr AttentionScratch<Place> AttentionScratchFrom(
    Place first, int lanes, int64_t key_len, int64_t head_dim) {
  const AttentionBlocks block = AttentionBlocksOf(lanes);
  AttentionScratch<Place> s{};
  s.key_stride = (key_len + 15) / 16 * 16;
  const int64_t head = s.key_stride * head_dim;
  const int64_t queries = (block.queries * head_dim + 15) / 16 * 16;
  s.keys_t = first;
  s.values = s.keys_t + head;
  s.keys = s.values + head;
  s.dkeys = s.keys + head;
  s.dvalues = s.dkeys + head;
  s.query = s.dvalues + head;
  s.result = s.query + queries;
  s.output_grad = s.result + queries;
  s.score = s.output_grad + queries;
  s.dscore = s.score + block.queries * block.keys;
  s.max = s.dscore + block.queries * block.keys;
  s.total = s.max + block.queries;
  s.delta = s.total + block.queries;
  s.end = s.delta + block.queries;
  return s;
}

}  // namespace troupe
