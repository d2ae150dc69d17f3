#include "actors/rank_ring.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/actors/ring_world.h"
#include "tests/support/answering_stage.h"
#include "tests/support/idle_stage.h"
#include "tests/support/in_process_job.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::PassEnd;
using testing::PassTask;
using testing::RingPass;
using testing::RingWorld;

using SimWorld = RingWorld<SimWorldNetwork>;

template <typename Network>
class RankRingTest : public ::testing::Test {};
using Networks = ::testing::Types<InprocWorldNetwork, SimWorldNetwork, UcxWorldNetwork>;
TYPED_TEST_SUITE(RankRingTest, Networks);

// Layers of microbatches as a rank runs them.
std::vector<RingPass> Forwards(int num_microbatches, int num_layers) {
  std::vector<RingPass> passes;
  for (int32_t microbatch = 0; microbatch < num_microbatches; ++microbatch) {
    for (int32_t layer = 0; layer < num_layers; ++layer) {
      passes.push_back({.microbatch = microbatch, .layer = layer});
    }
  }
  return passes;
}
// Each after what it computes again.
std::vector<RingPass> Backwards(int num_microbatches, int num_layers) {
  std::vector<RingPass> passes;
  for (int32_t microbatch = 0; microbatch < num_microbatches; ++microbatch) {
    for (int32_t layer = num_layers - 1; layer >= 0; --layer) {
      for (const KvPhase phase : {KvPhase::kRecompute, KvPhase::kBackward}) {
        passes.push_back({.phase = phase, .microbatch = microbatch, .layer = layer});
      }
    }
  }
  return passes;
}

TYPED_TEST(RankRingTest, EveryBlockComesToEveryRankAndEveryGradientHome) {
  for (const int size : {2, 3, 4}) {
    RingWorld<TypeParam> world(size);
    world.LaunchAll(Forwards(2, 3));
    ASSERT_TRUE(world.UntilAllEnded());
    world.LaunchAll(Backwards(2, 3));
    ASSERT_TRUE(world.UntilAllEnded());
    world.ExpectAllWell();
    const int64_t hops = int64_t{3} * 2 * 3 * (size - 1);
    const int64_t gradient_hops = int64_t{2} * 3 * size;
    const int64_t block_bytes = static_cast<int64_t>(RingPass{}.elements * sizeof(float));
    for (int rank = 0; rank < size; ++rank) {
      EXPECT_THAT(world.ring(rank).Sent(),
                  ElementsAre(CommunicationVolume{Axis::kCp, "kv_hop", hops, hops * block_bytes},
                              CommunicationVolume{Axis::kCp, "kv_gradient_hop", gradient_hops,
                                                  gradient_hops * block_bytes}));
    }
  }
}

// A Forward and a backward of a rank are open at once.
TYPED_TEST(RankRingTest, LanesGoOnBesideOneAnother) {
  for (const int size : {2, 3, 4}) {
    RingWorld<TypeParam> world(size);
    world.LaunchAll(Forwards(4, 3));
    world.LaunchAll(Backwards(4, 3));
    ASSERT_TRUE(world.UntilAllEnded());
    world.ExpectAllWell();
  }
}

// What a rank sends before the next one is there waits in its slots.
TYPED_TEST(RankRingTest, RanksComeWhenTheyCome) {
  for (const int size : {2, 3, 4}) {
    RingWorld<TypeParam> world(size);
    for (int rank = 0; rank < size; ++rank) {
      world.Launch(rank, Backwards(3, 2));
      world.Settle();
      world.Launch(rank, Forwards(3, 2));
      world.Settle();
    }
    ASSERT_TRUE(world.UntilAllEnded());
    world.ExpectAllWell();
  }
}

TYPED_TEST(RankRingTest, OutsideTrainingStepsNothingIsCounted) {
  RingWorld<TypeParam> world(2);
  for (int rank = 0; rank < 2; ++rank) world.traffic(rank).in_training_step = false;
  world.LaunchAll(Forwards(1, 1));
  ASSERT_TRUE(world.UntilAllEnded());
  EXPECT_TRUE(world.ring(0).Sent().empty());
}

TEST(RankRing, TheSameSeedGivesTheSameTimes) {
  const auto run = [] {
    SimWorld world(3);
    world.LaunchAll(Forwards(3, 2));
    world.LaunchAll(Backwards(3, 2));
    EXPECT_TRUE(world.UntilAllEnded());
    world.ExpectAllWell();
    return world.now_ns();
  };
  EXPECT_EQ(run(), run());
}

// Between two hops: the others' open passes end, each in a sentence with the hop that it waits for.
TYPED_TEST(RankRingTest, ALostMemberEndsThePassOfEveryOther) {
  RingWorld<TypeParam> world(3);
  world.Launch(0, {{.microbatch = 2, .layer = 7}});
  world.Launch(2, {{.microbatch = 2, .layer = 7}});
  // Rank 0 has the block of rank 2, and waits for that of rank 1.
  ASSERT_TRUE(world.Until([&] {
    return world.ring(0).OpenHopInWords(Rank(2)) ==
           "attention of layer 7, microbatch 2: block of hop 2 from rank 2 to rank 0";
  }));
  EXPECT_EQ(world.ring(0).OpenHopInWords(Rank(1)), "attention of layer 7, microbatch 2, hop 2");
  EXPECT_EQ(world.ring(0).OpenHopInWords(Rank(5)), "");
  EXPECT_EQ(world.ring(1).OpenHopInWords(Rank(0)), "");
  world.Kill(1);
  ASSERT_TRUE(world.UntilAllEnded());
  const std::string sentences[] = {
      "rank 0, attention of layer 7, microbatch 2: ",
      "rank 2, attention of layer 7, microbatch 2: block of hop 1 from rank 1 to rank 2: "};
  for (size_t i = 0; i < 2; ++i) {
    const Status& status = world.ends()[i].status;
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ErrorCode::kPeerDown);
    EXPECT_THAT(status.error().message, HasSubstr(sentences[i]));
  }
  EXPECT_EQ(world.ring(0).OpenHopInWords(Rank(2)), "");
}

TEST(RankRing, ABlockThatComesTooLateIsToldOfAndEndsThePass) {
  SimWorld world(2, {.tell_ms = 2, .end_ms = 4});
  std::vector<std::string> told;
  world.scheduler(0).waits().SetOnDeadline(
      [&told](const WaitRecord&, const std::string& sentence) { told.push_back(sentence); });
  world.Stop(1);
  const PassEnd& end = world.Launch(0, {{.step = 9, .microbatch = 2, .layer = 3}});
  std::vector<WaitRecord> waits;
  ASSERT_TRUE(world.Until([&] {
    waits = world.scheduler(0).waits().Snapshot();
    return waits.size() == 1;
  }));
  EXPECT_EQ(waits[0].waiter, "rank 0");
  EXPECT_EQ(waits[0].owed, "microbatch 2 attention of layer 3: block of hop 1");
  EXPECT_EQ(waits[0].from, "rank 1");
  EXPECT_EQ(waits[0].step, 9);
  EXPECT_THAT(waits[0].from_ranks, ElementsAre(1));
  ASSERT_TRUE(world.UntilAllEnded());
  const std::string sentence =
      "rank 0: microbatch 2 attention of layer 3: block of hop 1 from rank 1: deadline ";
  EXPECT_THAT(told, ElementsAre(sentence + "2 ms passed in step 9"));
  EXPECT_EQ(end.status.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(end.status.error().message, sentence + "4 ms passed in step 9");
}

TEST(RankRing, WithoutAGroupThereIsNone) {
  InprocNetwork network;
  const auto transport = network.NewTransport(Rank(0));
  Scheduler scheduler;
  RankRouter router(scheduler, *transport, {.self = Rank(0)});
  MemoryLedger ledger;
  RankRing ring(router, {}, {}, ledger, nullptr);
  ASSERT_TRUE(ring.Open().ok());
  EXPECT_EQ(ring.ring(), nullptr);
  EXPECT_TRUE(ring.Sent().empty());
  EXPECT_EQ(ring.OpenHopInWords(Rank(1)), "");
  ring.OnPeerDown(Rank(1), {});
}

// ---- in ranks as they are
// ------------------------------------------------------------------------

// A stage of which each layer's pass goes round the ring, and nothing else.
class RingStage : public testing::AnsweringStage<RingStage> {
 public:
  RingStage(const RankPlace& place, StageId stage)
      : AnsweringStage(place, stage), scope_(place.stream) {}

  using AnsweringStage::On;
  Status On(const RunAction& run) {
    auto answer = std::make_shared<ActionDone>(AnswerTo(run));
    if (OutputOf(plan().train, run.action)) {
      const int64_t boundary =
          BoundaryBytes(plan().batch, plan().config.hidden_size, plan().widths);
      answer->output = Buffer(ledger_, MemoryTag::kActivations, boundary);
    }
    auto end = std::make_shared<PassEnd>();
    place().stream.LaunchTask(scope_, PassTask::Run(*place().ring.ring(), PassesOf(run), *end),
                              [this, answer, end](const WorkTime&, Status status) {
                                answer->status = std::move(status);
                                if (!end->wrong.empty())
                                  answer->status = MakeError(ErrorCode::kFailed, "{}", end->wrong);
                                (void)executor().Send(std::move(*answer));
                              });
    return {};
  }
  Status On(CollectVote collect) {  // one of those with the same weights
    if (plan().mesh.ReplicaOf(place().rank) == 0) return AnsweringStage::On(collect);
    return executor().Send(StageVote{.stage = stage(), .round = collect.round});
  }

 private:
  std::vector<RingPass> PassesOf(const RunAction& run) const {
    const StageLayout& layout = plan().stages[static_cast<size_t>(stage().value)];
    const bool trains = run.mode == proto::STEP_MODE_TRAIN;
    std::vector<RingPass> passes;
    for (int32_t layer = layout.first_layer; layer < layout.first_layer + layout.num_layers;
         ++layer) {
      passes.push_back({.phase = run.action.kind == ActionKind::kForward ? KvPhase::kForward
                                                                         : KvPhase::kBackward,
                        .step = run.step,
                        .microbatch = trains ? run.action.microbatch.value : -1,
                        .layer = layer,
                        .elements = static_cast<size_t>(plan().batch.tokens_per_microbatch() * 2 *
                                                        plan().config.key_value_size())});
    }
    return passes;
  }

  MemoryLedger ledger_{};
  const StreamScope scope_;
};

testing::InProcessJobOptions PairsOfRanks(int num_ranks) {
  testing::InProcessJobOptions options{.num_ranks = 2, .num_microbatches = 3};
  options.config = ModelConfig{.hidden_size = 8,
                               .intermediate_size = 8,
                               .num_hidden_layers = 5,
                               .num_attention_heads = 2,
                               .num_key_value_heads = 1,
                               .head_dim = 4,
                               .vocab_size = 10};
  options.batch = BatchArithmetic{.global_batch_size = 3,
                                  .seq_len = 4 * num_ranks,
                                  .num_microbatches = 3,
                                  .context = {.num_ranks = num_ranks}};
  options.steps = {.steps = 4, .evaluate_every = 2, .evaluate_rounds = 1};
  options.trace.set_first(1);  // step 2 is evaluated, too
  options.trace.set_steps(1);
  return options;
}

SpawnedStage NewRingStage(const RankPlace& place, StageId stage) {
  return place.scheduler.Spawn<RingStage>({}, place, stage);
}
SpawnedLoader NewIdleLoader(const RankPlace& place) {
  return place.scheduler.Spawn<testing::IdleLoader>({});
}

// With evaluations between the steps, which the report leaves out.
TEST(RankRing, AJobsStagesSendWhatThePlanSays) {
  for (const int num_ranks : {2, 3, 4}) {
    testing::InProcessJob job(PairsOfRanks(num_ranks), NewRingStage, NewIdleLoader);
    job.Run();
    EXPECT_THAT(job.errors, ElementsAre());
    ASSERT_TRUE(job.ended);
    EXPECT_EQ(job.end_step, 4);
    EXPECT_EQ(job.evaluations.size(), 2u);
    for (int rank = 0; rank < 2 * num_ranks; ++rank) {
      const proto::CommunicationReport report = job.Communication(rank);
      int rows = 0;
      for (const auto& row : report.rows()) {
        if (row.axis() != "cp") continue;
        ++rows;
        EXPECT_GT(row.measured_count(), 0);
        EXPECT_EQ(row.measured_count(), report.steps() * row.predicted_count());
        EXPECT_EQ(row.measured_bytes(), report.steps() * row.predicted_bytes());
      }
      EXPECT_EQ(rows, 2);
      EXPECT_TRUE(report.has_attention());
      EXPECT_GT(report.attention().under_way_ns(), 0);
    }
  }
}

TEST(RankRing, HopsOfATracedStepAreArrowsToTheNextRank) {
  DrainTrace([](const SpanRecord&) {});  // of other jobs of this process
  testing::InProcessJob job(PairsOfRanks(3), NewRingStage, NewIdleLoader);
  job.Run();
  ASSERT_THAT(job.errors, ElementsAre());
  std::map<uint32_t, const proto::Span*> sent;
  int num_received = 0;
  for (const proto::Span& span : job.spans) {
    if (span.name().find("keys and values") != std::string::npos && span.flow_out() != 0) {
      sent[span.flow_out()] = &span;
      EXPECT_EQ(span.step(), 1);
    }
  }
  for (const proto::Span& span : job.spans) {
    if (span.name().find("keys and values") == std::string::npos || span.flow_in() == 0) continue;
    ++num_received;
    ASSERT_TRUE(sent.contains(span.flow_in()));
    EXPECT_EQ(span.name(), sent[span.flow_in()]->name());
    EXPECT_GE(span.start_ns(), sent[span.flow_in()]->start_ns());
  }
  // Five layers, three microbatches; three ranks, each with two hops forward, two and three back.
  // The spans of the ranks of one process come through whichever of them drains them first.
  EXPECT_EQ(num_received, 5 * 3 * 3 * 7);
  EXPECT_EQ(sent.size(), 5u * 3 * 3 * 7);
}

// Never ends what it is asked for.
class StuckStage : public testing::AnsweringStage<StuckStage> {
 public:
  using AnsweringStage::AnsweringStage;
  using AnsweringStage::On;
  Status On(const RunAction&) { return {}; }
};

TEST(RankRing, ARankThatLosesAMemberInAPassSaysWhichHopItWaitsFor) {
  InprocNetwork network;
  testing::InProcessJobOptions options = PairsOfRanks(2);
  options.new_transport = [&network](Rank rank) { return network.NewTransport(rank); };
  testing::InProcessJob job(
      options,
      [](const RankPlace& place, StageId stage) -> SpawnedStage {
        if (place.rank != Rank(1)) return NewRingStage(place, stage);
        return place.scheduler.Spawn<StuckStage>({}, place, stage);
      },
      NewIdleLoader);
  bool killed = false;
  job.after_pass = [&] {
    const auto waits = job.scheduler(0).waits().Snapshot();
    const bool waits_for_hop = std::ranges::any_of(waits, [](const WaitRecord& wait) {
      return wait.owed == "microbatch 0 attention of layer 0: block of hop 1";
    });
    if (waits_for_hop && !std::exchange(killed, true)) network.Kill(Rank(1));
  };
  job.Run();
  ASSERT_TRUE(killed);
  EXPECT_THAT(job.errors,
              ::testing::Contains("attention of layer 0, microbatch 0: block of hop 1 from rank 1 "
                                  "to rank 0: rank 1 was lost"));
}

}  // namespace
}  // namespace troupe
