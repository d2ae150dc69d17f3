// Attention over whole sequences by plain loops in float64, with a mask that is asked for each
// pair: what every way to share sequences is held against.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "actors/plan/layer_spec.h"

namespace troupe::testing {

struct DenseAttention {
  LayerAttention heads{};
  int64_t num_sequences = 1;
  int64_t seq_len = 1;
  std::vector<int32_t> document_starts{};  // (tokens), or empty

  int64_t q() const { return heads.num_heads * heads.head_dim; }
  int64_t columns() const { return q() + 2 * heads.num_kv_heads * heads.head_dim; }
  int64_t tokens() const { return num_sequences * seq_len; }
  bool Sees(int64_t sequence, int64_t query, int64_t key) const {
    if (key > query) return false;
    return document_starts.empty() ||
           key >= document_starts[static_cast<size_t>(sequence * seq_len + query)];
  }
};

struct DenseResult {
  std::vector<double> out{};   // (tokens, q)
  std::vector<double> dqkv{};  // (tokens, q + 2k)
};

// qkv (tokens, q + 2k), dout (tokens, q), sequences one behind the other.
inline DenseResult Dense(const DenseAttention& a, const std::vector<double>& qkv,
                         const std::vector<double>& dout) {
  const int64_t d = a.heads.head_dim, of_kv = a.heads.num_heads / a.heads.num_kv_heads;
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  DenseResult result{.out = std::vector<double>(static_cast<size_t>(a.tokens() * a.q())),
                     .dqkv = std::vector<double>(qkv.size())};
  std::vector<double> p(static_cast<size_t>(a.seq_len));
  for (int64_t sequence = 0; sequence < a.num_sequences; ++sequence) {
    for (int64_t head = 0; head < a.heads.num_heads; ++head) {
      const int64_t key_column = a.q() + head / of_kv * d;
      const int64_t value_column = key_column + a.heads.num_kv_heads * d;
      const auto at = [&](int64_t position, int64_t column) {
        return static_cast<size_t>((sequence * a.seq_len + position) * a.columns() + column);
      };
      for (int64_t i = 0; i < a.seq_len; ++i) {
        double most = -INFINITY, sum = 0;
        for (int64_t j = 0; j <= i; ++j) {
          double& score = p[static_cast<size_t>(j)];
          score = -INFINITY;
          if (!a.Sees(sequence, i, j)) continue;
          score = 0;
          for (int64_t c = 0; c < d; ++c) {
            score += scale * qkv[at(i, head * d + c)] * qkv[at(j, key_column + c)];
          }
          most = std::max(most, score);
        }
        for (int64_t j = 0; j <= i; ++j) {
          p[static_cast<size_t>(j)] = std::exp(p[static_cast<size_t>(j)] - most);
          sum += p[static_cast<size_t>(j)];
        }
        const auto out_at = static_cast<size_t>((sequence * a.seq_len + i) * a.q() + head * d);
        double delta = 0;
        for (int64_t c = 0; c < d; ++c) {
          double& out = result.out[out_at + static_cast<size_t>(c)];
          for (int64_t j = 0; j <= i; ++j) {
            out += p[static_cast<size_t>(j)] / sum * qkv[at(j, value_column + c)];
          }
          delta += out * dout[out_at + static_cast<size_t>(c)];
        }
        for (int64_t j = 0; j <= i; ++j) {
          const double weight = p[static_cast<size_t>(j)] / sum;
          if (weight == 0) continue;
          double dp = 0;
          for (int64_t c = 0; c < d; ++c) {
            dp += dout[out_at + static_cast<size_t>(c)] * qkv[at(j, value_column + c)];
          }
          const double ds = weight * (dp - delta) * scale;
          for (int64_t c = 0; c < d; ++c) {
            result.dqkv[at(j, value_column + c)] += weight * dout[out_at + static_cast<size_t>(c)];
            result.dqkv[at(i, head * d + c)] += ds * qkv[at(j, key_column + c)];
            result.dqkv[at(j, key_column + c)] += ds * qkv[at(i, head * d + c)];
          }
        }
      }
    }
  }
  return result;
}

}  // namespace troupe::testing
