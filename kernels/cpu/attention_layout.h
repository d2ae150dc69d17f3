// How the vector bodies cut attention into blocks, and where the pieces of its workspace lie for
// one key head: what the bodies take and what AttentionWorkspaceBytes promises.
#pragma once

#include <cstdint>

namespace troupe {

// Scores are formed for kAttentionQueries of one head by kAttentionKeys: whole tiles at every
// vector width. A block of keys is laid out once for a chunk of queries of all heads of the group,
// which has kAttentionRows rows or a little more.
constexpr int64_t kAttentionQueries = 48;
constexpr int64_t kAttentionKeys = 192;
constexpr int64_t kAttentionRows = 768;

// `Place` is float*, or int64_t for offsets in floats.
template <typename Place>
struct AttentionScratch {
  int64_t positions;  // queries of each head in a chunk
  int64_t stride;     // floats of a row of head_dim
  // A chunk's rows, head by head; total has 16 partial sums a row.
  Place query, output_grad, result, total, max, delta;
  // A block of keys: columns in panels where scores are formed, rows in panels where they are
  // summed over. `values` are rows in forward, columns in backward.
  Place keys_t, values, keys;
  Place score, dscore;   // one block of queries by one of keys
  Place dkeys, dvalues;  // all keys
  Place end;
};

// These emit no symbol (vector_bodies.h, B2).
__attribute__((always_inline)) constexpr int64_t AttentionRoundedUp(int64_t count, int64_t block) {
  return (count + block - 1) / block * block;
}

template <typename Place>
__attribute__((always_inline)) constexpr AttentionScratch<Place> AttentionScratchFrom(
    Place first, int64_t key_len, int64_t head_dim, int64_t group) {
  AttentionScratch<Place> s{};
  s.positions = AttentionRoundedUp((kAttentionRows + group - 1) / group, kAttentionQueries);
  s.stride = AttentionRoundedUp(head_dim, 32);
  const int64_t rows = s.positions * group;
  const int64_t keys = kAttentionKeys * s.stride;
  const int64_t scores = kAttentionQueries * kAttentionKeys;
  const int64_t head = AttentionRoundedUp(key_len, kAttentionKeys) * s.stride;
  s.query = first;
  s.output_grad = s.query + rows * s.stride;
  s.result = s.output_grad + rows * s.stride;
  s.total = s.result + rows * s.stride;
  s.max = s.total + rows * 16;
  s.delta = s.max + rows;
  s.keys_t = s.delta + rows;
  s.values = s.keys_t + keys;
  s.keys = s.values + keys;
  s.score = s.keys + keys;
  s.dscore = s.score + scores;
  s.dkeys = s.dscore + scores;
  s.dvalues = s.dkeys + head;
  s.end = s.dvalues + head;
  return s;
}

}  // namespace troupe
