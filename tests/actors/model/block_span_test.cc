#include "actors/model/block_span.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "runtime/trace/span.h"

namespace troupe {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

// The second of three ranks.
class Ring final : public KvRing {
 public:
  int num_ranks() const override { return 3; }
  int index() const override { return 1; }
  const Clock& clock() const override { return SystemClock(); }
  void Expect(const KvHop&, int64_t, KvArrival&) override {}
  void Send(const KvHop&, std::span<const std::byte>, KvDeparture&) override {}
  void Let(const KvHop&, int64_t) override {}
};

std::vector<SpanRecord> Drained() {
  std::vector<SpanRecord> spans;
  (void)DrainTrace([&spans](const SpanRecord& span) { spans.push_back(span); });
  return spans;
}

AttentionWork WorkOfStepTwo() {
  proto::TraceWindow window;
  window.set_first(2);
  window.set_steps(1);
  return {.trace = TraceWindow(window, /*first_step=*/1),
          .self = Rank(5),
          .ranks = {Rank(4), Rank(5), Rank(6)}};
}

TEST(BlockSpan, NamesWhoseBlockItIsAndTheHopThatBroughtIt) {
  Ring ring;
  AttentionWork work = WorkOfStepTwo();
  const Pass pass{.microbatch = 1, .number = 3, .step = 2, .ring = &ring, .work = &work};
  (void)Drained();
  { const BlockSpan own(pass, KvPhase::kForward, 7, 0); }
  { const BlockSpan last(pass, KvPhase::kBackward, 8, 2); }
  const std::vector<SpanRecord> spans = Drained();
  ASSERT_THAT(spans, SizeIs(2));
  EXPECT_EQ(TraceName(spans[0].name), "attention block of rank 5, hop 0, layer 7, forward");
  EXPECT_EQ(TraceName(spans[1].name), "attention block of rank 6, hop 2, layer 8, backward");
  for (const SpanRecord& span : spans) {
    EXPECT_EQ(span.category, SpanCategory::kCompute);
    EXPECT_EQ(span.rank, 5);
    EXPECT_EQ(span.microbatch, 3);
    EXPECT_EQ(span.step, 2);
    EXPECT_LE(span.start_ns, span.end_ns);
  }
}

TEST(BlockSpan, StepsThatAreNotTracedLeaveNone) {
  Ring ring;
  AttentionWork work = WorkOfStepTwo();
  (void)Drained();
  const Pass later{.step = 3, .ring = &ring, .work = &work};
  { const BlockSpan block(later, KvPhase::kForward, 7, 0); }
  const Pass uncounted{.step = 2, .ring = &ring};
  { const BlockSpan block(uncounted, KvPhase::kForward, 7, 0); }
  EXPECT_THAT(Drained(), IsEmpty());
}

}  // namespace
}  // namespace troupe
