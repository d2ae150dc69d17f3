#include "actors/plan/microbatch.h"

#include <utility>

#include "runtime/base/check.h"

namespace troupe {
namespace {

// The same `count` columns of each row.
std::vector<int32_t> Columns(std::span<const int32_t> rows, const BatchArithmetic& batch,
                             int64_t first) {
  const auto row = static_cast<size_t>(batch.seq_len + 1);
  std::vector<int32_t> columns;
  columns.reserve(static_cast<size_t>(batch.tokens_per_microbatch()));
  for (size_t begin = static_cast<size_t>(first); begin < rows.size(); begin += row) {
    const auto of_row = rows.subspan(begin, static_cast<size_t>(batch.seq_len));
    columns.insert(columns.end(), of_row.begin(), of_row.end());
  }
  return columns;
}

}  // namespace

MicrobatchFields FieldsOf(const ModelSpec& model, const StageLayout& layout) {
  MicrobatchFields fields;
  for (const int unit : UnitsOf(model, layout)) {
    for (const LayerTensor& tensor : model.unit(unit).tensors) {
      if (tensor.life != TensorLife::kBatch) continue;
      fields.tokens |= tensor.name == kTokensTensor;
      fields.labels |= tensor.name == kLabelsTensor;
      fields.positions |= tensor.name == kPositionsTensor;
    }
  }
  return fields;
}

TokenPositions PositionsOfSequences(const BatchArithmetic& batch) {
  auto positions = std::make_shared<std::vector<int32_t>>();
  positions->reserve(static_cast<size_t>(batch.tokens_per_microbatch()));
  for (int64_t row = 0; row < batch.micro_batch_size; ++row) {
    for (int64_t t = 0; t < batch.seq_len; ++t) positions->push_back(static_cast<int32_t>(t));
  }
  return positions;
}

Microbatch MicrobatchOf(std::span<const int32_t> rows, const BatchArithmetic& batch,
                        const MicrobatchFields& fields, TokenPositions positions) {
  CHECK(static_cast<int64_t>(rows.size()) == batch.micro_batch_size * (batch.seq_len + 1),
        "a microbatch has {} tokens instead of {} rows of {}", rows.size(), batch.micro_batch_size,
        batch.seq_len + 1);
  Microbatch microbatch;
  if (fields.tokens) microbatch.tokens = Columns(rows, batch, 0);
  if (fields.labels) microbatch.labels = Columns(rows, batch, 1);
  if (fields.positions) microbatch.positions = std::move(positions);
  return microbatch;
}

}  // namespace troupe
