// Where the pieces of attention's workspace lie, for one key head: what the vector bodies take and
// what AttentionWorkspaceBytes promises.
#pragma once

#include <cstdint>

namespace troupe {

// Offsets in floats. Keys lie in columns (transposed) where scores are formed, in rows where they
// are summed over.
struct AttentionLayout {
  int64_t query_block, key_block;                // queries and keys of one block
  int64_t key_stride;                            // floats between transposed rows
  int64_t keys_t, values, keys, dkeys, dvalues;  // whole head; backward has values transposed
  int64_t query, result, output_grad, score, dscore, max, total, delta;  // a block of queries
  int64_t num_floats;
};

// Emits no symbol (vector_bodies.h, B2). `lanes` as in CpuCapabilities.
__attribute__((always_inline)) constexpr AttentionLayout AttentionLayoutOf(int lanes,
                                                                           int64_t key_len,
                                                                           int64_t head_dim) {
  AttentionLayout l{};
  l.query_block = lanes == 16 ? 32 : 36;  // whole tiles
  l.key_block = 128;
  l.key_stride = (key_len + 15) / 16 * 16;
  const int64_t head = l.key_stride * head_dim;
  const int64_t queries = (l.query_block * head_dim + 15) / 16 * 16;
  l.values = l.keys_t + head;
  l.keys = l.values + head;
  l.dkeys = l.keys + head;
  l.dvalues = l.dkeys + head;
  l.query = l.dvalues + head;
  l.result = l.query + queries;
  l.output_grad = l.result + queries;
  l.score = l.output_grad + queries;
  l.dscore = l.score + l.query_block * l.key_block;
  l.max = l.dscore + l.query_block * l.key_block;
  l.total = l.max + l.query_block;
  l.delta = l.total + l.query_block;
  l.num_floats = l.delta + l.query_block;
  return l;
}

}  // namespace troupe
