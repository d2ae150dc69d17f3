#include "actors/kv_hop.h"

#include <gtest/gtest.h>

#include <vector>

#include "actors/action_inputs.h"
#include "kernels/tensor_view.h"

namespace troupe {
namespace {

const KvHop kHop{
    .phase = KvPhase::kRecompute, .step = 5, .microbatch = 2, .layer = 3, .hop = 1, .origin = 0};
const std::vector<Rank> kRanks = {Rank(4), Rank(6)};

KvHop OfGradients(KvHop hop) {
  hop.kind = KvKind::kGradients;
  hop.phase = KvPhase::kBackward;
  return hop;
}

TEST(KvHop, MessagesSayAllOfIt) {
  const TensorDescriptor tensor{.dtype = 2, .num_bytes = 7};
  const auto block = MessageOf<KvBlock>(kHop, tensor);
  EXPECT_EQ(HopOf(KvKind::kKeysValues, block), kHop);
  EXPECT_TRUE(SameTensor(block.tensor, tensor));
  const KvHop gradients = OfGradients(kHop);
  EXPECT_EQ(HopOf(KvKind::kGradients, MessageOf<KvGradientBlock>(gradients, tensor)), gradients);
}

TEST(KvHop, SentencesNameLayerMicrobatchHopAndRanks) {
  EXPECT_EQ(HopInWords(kHop, Rank(4), Rank(6)),
            "attention of layer 3, microbatch 2: block of hop 1 from rank 4 to rank 6");
  KvHop untrained = OfGradients(kHop);
  untrained.microbatch = -1;
  EXPECT_EQ(HopInWords(untrained, Rank(4), Rank(6)),
            "attention of layer 3: gradient of hop 1 from rank 4 to rank 6");
}

TEST(KvHop, BlocksAreNamedByWhoseTheyAre) {
  const TensorDescriptor tensor{.dtype = static_cast<uint8_t>(DType::kBFloat16),
                                .rank = 2,
                                .shape = {8, 4, 0, 0},
                                .num_bytes = 64};
  EXPECT_EQ(BlockIdentity(kHop, tensor, 60, kRanks),
            "hop 1 with keys and values of rank 4 for the recomputation of layer 3, microbatch 2, "
            "step 5, 60 bytes, (8, 4) bfloat16");
  KvHop strange = OfGradients(kHop);
  strange.origin = -1;
  EXPECT_EQ(BlockIdentity(strange, {.dtype = 200}, 0, kRanks),
            "hop 1 with gradient of keys and values of place -1 for the backward of layer 3, "
            "microbatch 2, step 5, 0 bytes, (0, 0) ?");
  const SpanRecord span = SpanOf(OfGradients(kHop), kRanks, Rank(6));
  EXPECT_EQ(TraceName(span.name),
            "gradient of keys and values of rank 4, hop 1, layer 3, backward");
  EXPECT_EQ(span.rank, 6);
  EXPECT_EQ(span.microbatch, 2);
  EXPECT_EQ(span.step, 5);
}

}  // namespace
}  // namespace troupe
