#include "actors/kv_hop.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/tensor_view.h"

namespace troupe {
namespace {

std::string ContentInWords(const KvHop& hop, const std::vector<Rank>& ranks) {
  const bool known = hop.origin >= 0 && hop.origin < static_cast<int32_t>(ranks.size());
  return fmt::format("{}keys and values of {}",
                     hop.kind == KvKind::kGradients ? "gradient of " : "",
                     known ? fmt::format("rank {}", ranks[static_cast<size_t>(hop.origin)])
                           : fmt::format("place {}", hop.origin));
}

}  // namespace

std::string PassInWords(const KvHop& hop) {
  std::string words = fmt::format("attention of layer {}", hop.layer);
  if (hop.microbatch >= 0) words += fmt::format(", microbatch {}", hop.microbatch);
  return words;
}

std::string BlockInWords(const KvHop& hop) {
  return fmt::format("{} of hop {}", hop.kind == KvKind::kGradients ? "gradient" : "block",
                     hop.hop);
}

std::string HopInWords(const KvHop& hop, Rank from, Rank to) {
  return fmt::format("{}: {} from rank {} to rank {}", PassInWords(hop), BlockInWords(hop), from,
                     to);
}

SpanRecord SpanOf(const KvHop& hop, const std::vector<Rank>& ranks, Rank self) {
  SpanRecord span;
  span.name = InternTraceName(fmt::format("{}, hop {}, layer {}, {}", ContentInWords(hop, ranks),
                                          hop.hop, hop.layer, PhaseName(hop.phase)));
  span.rank = self.value;
  span.microbatch = hop.microbatch;
  span.step = static_cast<int32_t>(hop.step);
  return span;
}

std::string BlockIdentity(const KvHop& hop, const TensorDescriptor& tensor, int64_t num_bytes,
                          const std::vector<Rank>& ranks) {
  return fmt::format(
      "hop {} with {} for the {} of layer {}, microbatch {}, step {}, {} bytes, "
      "({}, {}) {}",
      hop.hop, ContentInWords(hop, ranks), PhaseName(hop.phase), hop.layer, hop.microbatch,
      hop.step, num_bytes, tensor.shape[0], tensor.shape[1],
      DTypeName(static_cast<DType>(tensor.dtype)));
}

}  // namespace troupe
