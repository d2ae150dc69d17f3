// What a microbatch says of its tokens, beside the activations that the pipeline moves. The data
// loader of a rank makes it, and nothing works it out again: what a stage reads of it comes with
// the batch. Pure.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "actors/plan/batch_arithmetic.h"
#include "actors/plan/layer_spec.h"
#include "actors/plan/stage_partition.h"

namespace troupe {

struct MicrobatchFields {
  bool tokens = false;
  bool labels = false;
  bool positions = false;

  bool any_of_file() const { return tokens || labels; }
  MicrobatchFields& operator|=(const MicrobatchFields& other) {
    tokens |= other.tokens;
    labels |= other.labels;
    positions |= other.positions;
    return *this;
  }
  bool operator==(const MicrobatchFields&) const = default;
};
// What the units of a stage read: their tensors of the batch (TensorLife::kBatch).
MicrobatchFields FieldsOf(const ModelSpec& model, const StageLayout& layout);

using TokenPositions = std::shared_ptr<const std::vector<int32_t>>;

// (T) each, or empty where no stage of the rank reads it. All three are in one order.
struct Microbatch {
  std::vector<int32_t> tokens{};
  std::vector<int32_t> labels{};  // what follows each token, or kIgnoredLabel
  // Each token's in its sequence, or in its document where a sequence packs several; any number
  // below seq_len. Immutable, so that microbatches of one pattern share them.
  TokenPositions positions{};
};
using SharedMicrobatch = std::shared_ptr<const Microbatch>;

// Of rows that are whole sequences: 0 .. seq_len - 1 in each.
TokenPositions PositionsOfSequences(const BatchArithmetic& batch);

// `rows`: micro_batch_size sequences of seq_len + 1 tokens, so that labels are the tokens shifted
// by one. Takes of them what `fields` says; `positions` as they are.
Microbatch MicrobatchOf(std::span<const int32_t> rows, const BatchArithmetic& batch,
                        const MicrobatchFields& fields, TokenPositions positions);

}  // namespace troupe
