#include "actors/plan/sequence_layout.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace troupe {

std::string_view SequenceLayoutName(SequenceLayout layout) {
  switch (layout) {
    case SequenceLayout::kContiguous:
      return "contiguous";
    case SequenceLayout::kStriped:
      return "striped";
    case SequenceLayout::kZigzag:
      return "zigzag";
  }
  return "";
}

std::string_view ContextMethodName(ContextMethod method) {
  switch (method) {
    case ContextMethod::kRing:
      return "ring";
    case ContextMethod::kAllGather:
      return "all_gather";
    case ContextMethod::kUlysses:
      return "ulysses";
  }
  return "";
}

namespace {

// Positions of a rank; those of a half of them with kZigzag.
int64_t LocalLength(const ContextParallel& context, int64_t seq_len) {
  const int64_t count = seq_len / context.num_ranks;
  CHECK(count * context.num_ranks == seq_len, "{} ranks share {} positions", context.num_ranks,
        seq_len);
  return count;
}
int64_t HalfLength(const ContextParallel& context, int64_t seq_len) {
  const int64_t count = LocalLength(context, seq_len);
  CHECK(count % 2 == 0, "zigzag halves a rank's {} positions", count);
  return count / 2;
}

}  // namespace

std::vector<int32_t> PositionsOf(const ContextParallel& context, int index, int64_t seq_len) {
  const int64_t n = context.num_ranks;
  CHECK(index >= 0 && index < n, "rank {} of {}", index, n);
  const int64_t count = LocalLength(context, seq_len);
  std::vector<int32_t> positions;
  positions.reserve(static_cast<size_t>(count));
  const auto run = [&positions](int64_t first, int64_t length, int64_t step = 1) {
    for (int64_t i = 0; i < length; ++i) {
      positions.push_back(static_cast<int32_t>(first + i * step));
    }
  };
  if (!context.shared()) {
    run(0, count);
    return positions;
  }
  switch (context.layout) {
    case SequenceLayout::kContiguous:
      run(index * count, count);
      break;
    case SequenceLayout::kStriped:
      run(index, count, n);
      break;
    case SequenceLayout::kZigzag: {
      const int64_t half = HalfLength(context, seq_len);
      run(index * half, half);
      run((2 * n - 1 - index) * half, half);
      break;
    }
  }
  return positions;
}

SequencePlace PlaceOf(const ContextParallel& context, int64_t position, int64_t seq_len) {
  CHECK(position >= 0 && position < seq_len, "position {} of {}", position, seq_len);
  const int64_t n = context.num_ranks;
  if (!context.shared()) return {.row = position};
  const auto place = [](int64_t index, int64_t row) {
    return SequencePlace{static_cast<int>(index), row};
  };
  switch (context.layout) {
    case SequenceLayout::kContiguous: {
      const int64_t count = LocalLength(context, seq_len);
      return place(position / count, position % count);
    }
    case SequenceLayout::kStriped:
      return place(position % n, position / n);
    case SequenceLayout::kZigzag: {
      const int64_t half = HalfLength(context, seq_len);
      const int64_t chunk = position / half;
      const int64_t row = position % half;
      return chunk < n ? place(chunk, row) : place(2 * n - 1 - chunk, half + row);
    }
  }
  return {};
}

KeyRanges CausalRanges(std::span<const int32_t> queries, std::span<const int32_t> keys,
                       std::span<const int32_t> document_starts) {
  KeyRanges ranges{.first_key = std::vector<int32_t>(queries.size()),
                   .end_key = std::vector<int32_t>(queries.size())};
  ranges.num_pairs =
      WriteCausalRanges(queries, keys, document_starts, ranges.first_key, ranges.end_key);
  return ranges;
}

int64_t WriteCausalRanges(std::span<const int32_t> queries, std::span<const int32_t> keys,
                          std::span<const int32_t> document_starts, std::span<int32_t> first_key,
                          std::span<int32_t> end_key) {
  size_t first = 0;
  size_t end = 0;
  int64_t num_pairs = 0;
  for (size_t i = 0; i < queries.size(); ++i) {
    while (end < keys.size() && keys[end] <= queries[i]) ++end;
    if (!document_starts.empty()) {
      while (first < keys.size() && keys[first] < document_starts[i]) ++first;
    }
    const size_t begin = std::min(first, end);
    first_key[i] = static_cast<int32_t>(begin);
    end_key[i] = static_cast<int32_t>(end);
    num_pairs += static_cast<int64_t>(end - begin);
  }
  return num_pairs;
}

int64_t VisiblePairs(const ContextParallel& context, int queries, int keys, int64_t seq_len) {
  const int64_t c = seq_len / context.num_ranks;
  if (queries == keys) return c * (c + 1) / 2;
  switch (context.layout) {
    case SequenceLayout::kContiguous:
      return keys < queries ? c * c : 0;
    case SequenceLayout::kStriped:
      return keys < queries ? c * (c + 1) / 2 : c * (c - 1) / 2;
    case SequenceLayout::kZigzag:
      return c * c / 2;
  }
  return 0;
}

int OriginAfter(int num_ranks, int index, int hop) {
  return (index - hop % num_ranks + num_ranks) % num_ranks;
}

}  // namespace troupe
