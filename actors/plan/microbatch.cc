#include "actors/plan/microbatch.h"

#include <utility>

#include "runtime/base/check.h"

namespace troupe {
namespace {

// Of each position of a sequence, where its document begins.
std::vector<int32_t> DocumentStarts(std::span<const int32_t> sequence,
                                    std::optional<int32_t> separator) {
  std::vector<int32_t> starts;
  starts.reserve(sequence.size());
  int32_t start = 0;
  for (const int32_t token : sequence) {
    starts.push_back(start);
    if (token == separator) start = static_cast<int32_t>(starts.size());
  }
  return starts;
}

int32_t LabelAt(std::span<const int32_t> row, size_t position, const SpecialTokens& special) {
  const int32_t label = row[position + 1];
  const bool counts = row[position] != special.document_separator && label != special.ignore_label;
  return counts ? label : kNoLabel;
}

}  // namespace

MicrobatchFields FieldsOf(const ModelSpec& model, const StageLayout& layout,
                          const BatchArithmetic& batch) {
  MicrobatchFields fields;
  for (const int unit : UnitsOf(model, layout)) {
    for (const LayerTensor& tensor : model.unit(unit).tensors) {
      if (tensor.life != TensorLife::kBatch) continue;
      fields.tokens |= tensor.name == kTokensTensor;
      fields.labels |= tensor.name == kLabelsTensor;
      fields.positions |= tensor.name == kPositionsTensor;
      fields.document_starts |= batch.packs_documents && tensor.name == kDocumentStartsTensor;
    }
  }
  return fields;
}

TokenPositions PositionsOfSequences(const BatchArithmetic& batch, int context_rank) {
  const std::vector<int32_t> of_sequence = PositionsOf(batch.context, context_rank, batch.seq_len);
  auto positions = std::make_shared<std::vector<int32_t>>();
  positions->reserve(static_cast<size_t>(batch.tokens_per_microbatch()));
  for (int64_t row = 0; row < batch.micro_batch_size; ++row) {
    positions->insert(positions->end(), of_sequence.begin(), of_sequence.end());
  }
  return positions;
}

Microbatch MicrobatchOf(std::span<const int32_t> rows, const BatchArithmetic& batch,
                        const MicrobatchFields& fields, TokenPositions positions,
                        const SpecialTokens& special) {
  const auto row_length = static_cast<size_t>(batch.seq_len + 1);
  CHECK(rows.size() == static_cast<size_t>(batch.micro_batch_size) * row_length,
        "a microbatch has {} tokens instead of {} rows of {}", rows.size(), batch.micro_batch_size,
        row_length);
  CHECK(std::ssize(*positions) == batch.tokens_per_microbatch(), "{} positions of {} tokens",
        positions->size(), batch.tokens_per_microbatch());
  Microbatch microbatch;
  if (fields.tokens) microbatch.tokens.reserve(positions->size());
  if (fields.labels) microbatch.labels.reserve(positions->size());
  if (fields.document_starts) microbatch.document_starts.reserve(positions->size());
  const auto local_length = static_cast<size_t>(batch.local_seq_len());
  for (size_t i = 0; i < static_cast<size_t>(batch.micro_batch_size); ++i) {
    const auto row = rows.subspan(i * row_length, row_length);
    const auto here = std::span(*positions).subspan(i * local_length, local_length);
    std::vector<int32_t> starts;
    if (fields.document_starts) {
      starts = DocumentStarts(row.first(row_length - 1), special.document_separator);
    }
    for (const int32_t position : here) {
      const auto at = static_cast<size_t>(position);
      if (fields.tokens) microbatch.tokens.push_back(row[at]);
      if (fields.labels) microbatch.labels.push_back(LabelAt(row, at, special));
      if (fields.document_starts) microbatch.document_starts.push_back(starts[at]);
    }
  }
  if (fields.positions) microbatch.positions = std::move(positions);
  return microbatch;
}

}  // namespace troupe
