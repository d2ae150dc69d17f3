// A hop of ring attention as wire messages, sentences and spans say it. Pure.
#pragma once

#include <string>
#include <vector>

#include "actors/messages.h"
#include "actors/model/kv_ring.h"
#include "runtime/base/ids.h"
#include "runtime/trace/span.h"
#include "runtime/transport/envelope.h"

namespace troupe {

// M: KvBlock, KvGradientBlock.
template <typename M>
M MessageOf(const KvHop& hop, const TensorDescriptor& tensor) {
  return {.step = hop.step,
          .microbatch = hop.microbatch,
          .layer = hop.layer,
          .hop = static_cast<int16_t>(hop.hop),
          .origin = static_cast<int16_t>(hop.origin),
          .phase = static_cast<uint32_t>(hop.phase),
          .tensor = tensor};
}
// The message's phase is one of KvPhase.
template <typename M>
KvHop HopOf(KvKind kind, const M& message) {
  return {.kind = kind,
          .phase = static_cast<KvPhase>(message.phase),
          .step = message.step,
          .microbatch = message.microbatch,
          .layer = message.layer,
          .hop = message.hop,
          .origin = message.origin};
}

// "attention of layer 3, microbatch 2"
std::string PassInWords(const KvHop& hop);
// "block of hop 1", "gradient of hop 1"
std::string BlockInWords(const KvHop& hop);
// "attention of layer 3, microbatch 2: block of hop 1 from rank 0 to rank 1"
std::string HopInWords(const KvHop& hop, Rank from, Rank to);

// Named by its block: "keys and values of rank 2, hop 1, layer 3, forward". `ranks`: the group's.
// Category, times and flows are the caller's.
SpanRecord SpanOf(const KvHop& hop, const std::vector<Rank>& ranks, Rank self);
// All that two ranks must agree on: "hop 1 with keys and values of rank 0 for the forward of layer
// 3, microbatch 2, step 5, 4096 bytes, (16, 128) bfloat16". Any hop and tensor that may come.
std::string BlockIdentity(const KvHop& hop, const TensorDescriptor& tensor, int64_t num_bytes,
                          const std::vector<Rank>& ranks);

}  // namespace troupe
