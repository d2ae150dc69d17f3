// AttentionMasks: what the queries of a pass see of keys: causal, within documents where sequences
// pack several. Ranges are written into the pass's workspace; the next call overwrites them.
//
// Thread: the compute stream's.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "actors/model/unit_site.h"

namespace troupe {

// A call of the attention kernels; it borrows the ranges.
struct MaskedAttention {
  AttentionShape shape{};
  int64_t num_pairs = 0;  // visible (query, key) pairs of all sequences
};

// Some queries of each sequence; the others see nothing.
struct QueryWindow {
  int64_t first = 0;
  int64_t end = 0;
};

class AttentionMasks {
 public:
  explicit AttentionMasks(const UnitSite& site);

  // Whole sequences on both sides. `document_starts`: (sequences · S), or empty.
  MaskedAttention OfSequences(const Pass& pass, std::span<const int32_t> document_starts) const;
  // The queries of this rank and a block of keys, by their positions in each sequence, ascending.
  // `document_starts`: of the queries (T), or empty.
  MaskedAttention OfBlock(const Pass& pass, std::span<const int32_t> queries,
                          std::span<const int32_t> keys, std::span<const int32_t> document_starts,
                          QueryWindow window) const;

  const AttentionShape& shape() const { return shape_; }  // without a mask

 private:
  AttentionShape shape_;
  std::optional<TensorSlot> first_key_, end_key_;
};

// Of the pass's tokens (T); empty where sequences pack no documents.
std::span<const int32_t> DocumentStartsOf(const Pass& pass);

}  // namespace troupe
