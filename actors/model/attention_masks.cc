#include "actors/model/attention_masks.h"

#include "actors/plan/sequence_layout.h"
#include "runtime/base/check.h"

namespace troupe {
namespace {

// The first `count` of them.
std::span<int32_t> NumbersIn(const Pass& pass, const std::optional<TensorSlot>& slot,
                             int64_t count) {
  CHECK(slot.has_value(), "attention with ranges has no place for them");
  const TensorView numbers = slot->In(pass.workspace);
  return std::span(numbers.as<int32_t>(), static_cast<size_t>(numbers.rows()))
      .first(static_cast<size_t>(count));
}

std::span<int32_t> OfSequence(std::span<int32_t> numbers, int64_t sequence, int64_t length) {
  return numbers.subspan(static_cast<size_t>(sequence * length), static_cast<size_t>(length));
}

// Leaves no key to queries outside the window, and returns how many pairs that takes away. Ends do
// not fall from a query to the next.
int64_t Close(std::span<int32_t> first_key, std::span<int32_t> end_key, QueryWindow window) {
  int64_t closed = 0;
  for (size_t i = 0; i < first_key.size(); ++i) {
    const auto query = static_cast<int64_t>(i);
    if (query >= window.first && query < window.end) continue;
    closed += end_key[i] - first_key[i];
    const int32_t before = i == 0 ? 0 : end_key[i - 1];
    first_key[i] = end_key[i] = query < window.first ? 0 : before;
  }
  return closed;
}

}  // namespace

std::span<const int32_t> DocumentStartsOf(const Pass& pass) {
  if (pass.document_starts.empty()) return {};
  return {pass.document_starts.as<int32_t>(), static_cast<size_t>(pass.document_starts.rows())};
}

AttentionMasks::AttentionMasks(const UnitSite& site)
    : shape_(ShapeOf(*site.spec.attention, site.batch)),
      first_key_(site.WorkspaceIfAny("first_key")),
      end_key_(site.WorkspaceIfAny("end_key")) {}

MaskedAttention AttentionMasks::OfSequences(const Pass& pass,
                                            std::span<const int32_t> document_starts) const {
  MaskedAttention masked{.shape = shape_};
  const int64_t sequences = shape_.num_sequences, length = shape_.query_len;
  if (document_starts.empty()) {
    masked.shape.mask = AttentionMask::kCausal;
    masked.num_pairs = sequences * (length * (length + 1) / 2);
    return masked;
  }
  const std::span<int32_t> first = NumbersIn(pass, first_key_, sequences * length);
  const std::span<int32_t> end = NumbersIn(pass, end_key_, sequences * length);
  for (size_t i = 0; i < first.size(); ++i) {
    first[i] = document_starts[i];
    end[i] = static_cast<int32_t>(static_cast<int64_t>(i) % length) + 1;
    masked.num_pairs += end[i] - first[i];
  }
  masked.shape.mask = AttentionMask::kRanges;
  masked.shape.first_key = first;
  masked.shape.end_key = end;
  return masked;
}

MaskedAttention AttentionMasks::OfBlock(const Pass& pass, std::span<const int32_t> queries,
                                        std::span<const int32_t> keys,
                                        std::span<const int32_t> document_starts,
                                        QueryWindow window) const {
  MaskedAttention masked{.shape = shape_};
  const int64_t sequences = shape_.num_sequences, length = shape_.query_len;
  const bool all = window.first == 0 && window.end == length;
  if (document_starts.empty() && queries.data() == keys.data() && all) {
    masked.shape.mask = AttentionMask::kCausal;
    masked.num_pairs = sequences * (length * (length + 1) / 2);
    return masked;
  }
  // Without documents all sequences are alike.
  const int64_t written = document_starts.empty() ? 1 : sequences;
  const std::span<int32_t> first = NumbersIn(pass, first_key_, written * length);
  const std::span<int32_t> end = NumbersIn(pass, end_key_, written * length);
  for (int64_t sequence = 0; sequence < written; ++sequence) {
    const auto starts =
        document_starts.empty()
            ? document_starts
            : document_starts.subspan(static_cast<size_t>(sequence * length), queries.size());
    const auto of_first = OfSequence(first, sequence, length);
    const auto of_end = OfSequence(end, sequence, length);
    masked.num_pairs += WriteCausalRanges(queries, keys, starts, of_first, of_end);
    if (!all) masked.num_pairs -= Close(of_first, of_end, window);
  }
  if (document_starts.empty()) masked.num_pairs *= sequences;
  masked.shape.mask = AttentionMask::kRanges;
  masked.shape.first_key = first;
  masked.shape.end_key = end;
  return masked;
}

}  // namespace troupe
