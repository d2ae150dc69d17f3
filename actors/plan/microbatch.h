// What a microbatch says of its tokens, beside the activations that the pipeline moves. The data
// loader of a rank makes it, and nothing works it out again: what a stage reads of it comes with
// the batch. Pure.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
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
  bool document_starts = false;

  bool any_of_file() const { return tokens || labels || document_starts; }
  MicrobatchFields& operator|=(const MicrobatchFields& other) {
    tokens |= other.tokens;
    labels |= other.labels;
    positions |= other.positions;
    document_starts |= other.document_starts;
    return *this;
  }
  bool operator==(const MicrobatchFields&) const = default;
};
// What the units of a stage read: their tensors of the batch (TensorLife::kBatch); document starts
// only where sequences pack documents.
MicrobatchFields FieldsOf(const ModelSpec& model, const StageLayout& layout,
                          const BatchArithmetic& batch);

// In place of a label that does not count: it has neither loss nor gradient. kernels/ calls it
// kIgnoredLabel.
inline constexpr int32_t kNoLabel = -1;

// Tokens that mean something to the loader.
struct SpecialTokens {
  std::optional<int32_t> ignore_label{};  // does not count as a label (data.ignore_label)
  // Ends its document and is of it; what follows it does not count (data.document_separator).
  std::optional<int32_t> document_separator{};
};

using TokenPositions = std::shared_ptr<const std::vector<int32_t>>;

// (T) each, or empty where no stage of the rank reads it. All are in one order: of each sequence
// the rank's positions (SequenceLayout).
struct Microbatch {
  std::vector<int32_t> tokens{};
  std::vector<int32_t> labels{};  // what follows each token, or kNoLabel
  // Each token's in its sequence, through documents too. Immutable: microbatches share them.
  TokenPositions positions{};
  // Where the document of each token begins, as a position in its sequence.
  std::vector<int32_t> document_starts{};
};
using SharedMicrobatch = std::shared_ptr<const Microbatch>;

// (T): of each sequence the positions of the rank at `context_rank` along cp.
TokenPositions PositionsOfSequences(const BatchArithmetic& batch, int context_rank = 0);

// `rows`: micro_batch_size sequences of seq_len + 1 tokens, so that labels are the tokens shifted
// by one, whoever has the next one. Takes of them what `fields` says, at `positions`.
Microbatch MicrobatchOf(std::span<const int32_t> rows, const BatchArithmetic& batch,
                        const MicrobatchFields& fields, TokenPositions positions,
                        const SpecialTokens& special = {});

}  // namespace troupe
