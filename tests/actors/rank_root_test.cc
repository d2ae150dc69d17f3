// Whole ranks in one process, told what to do by the orders that a host agent passes on: real
// models, tokens and checkpoints over the inproc transport.
#include "actors/rank_root.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "runtime/transport/inproc/inproc_transport.h"
#include "tests/support/patience.h"
#include "tests/support/rank_stages.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_rank.h"

namespace troupe {
namespace {

using ::testing::AllOf;
using testing::DrivenUntil;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using testing::TestRank;

// What one rank said.
struct Said {
  std::vector<proto::StepMetrics> metrics{};
  std::vector<proto::CheckpointCommitted> checkpoints{};
  std::vector<std::string> happened{};
  proto::Waits waits{};
  std::vector<proto::StepMemory> step_memory{};
  std::optional<proto::Hello> hello{};
  std::optional<proto::Ready> ready{};
  std::vector<proto::Finished> finished{};
  bool left = false;

  void Hear(const proto::FromRank& news) {
    if (news.has_hello()) hello = news.hello();
    if (news.has_ready()) ready = news.ready();
    if (news.has_metrics()) metrics.push_back(news.metrics());
    if (news.has_checkpoint()) checkpoints.push_back(news.checkpoint());
    if (news.has_happening()) happened.push_back(news.happening().text());
    if (news.has_waits()) waits = news.waits();
    if (news.has_step_memory()) step_memory.push_back(news.step_memory());
    if (news.has_finished()) finished.push_back(news.finished());
  }
};

proto::ToRank Peers(const proto::Peers& peers) {
  proto::ToRank order;
  *order.mutable_peers() = peers;
  return order;
}
proto::ToRank Begin() {
  proto::ToRank order;
  order.mutable_begin();
  return order;
}
proto::ToRank Cancel() {
  proto::ToRank order;
  order.mutable_cancel()->set_checkpoint(true);
  return order;
}
proto::ToRank ShutDown() {
  proto::ToRank order;
  order.mutable_shut_down();
  return order;
}
proto::ToRank Leave() {
  proto::ToRank order;
  order.mutable_leave();
  return order;
}

class RankRootTest : public ::testing::Test {
 protected:
  // A job of `pp` ranks whose spec the test may still change.
  void Make(int pp) {
    spec_ = testing::SmallSpec({.pp = pp});
    spec_.mutable_model()->set_vocab_size(256);
    std::string text;
    for (int i = 0; i < 3000; ++i) text.push_back(static_cast<char>('a' + i * i % 23));
    spec_.mutable_data()->set_train(folder_.Write("text.txt", text));
    spec_.mutable_optimizer()->add_betas(0.9);
    spec_.mutable_optimizer()->add_betas(0.95);
    spec_.mutable_optimizer()->set_eps(1e-8);
    spec_.mutable_optimizer()->set_grad_clip(0.5);
    spec_.mutable_train()->set_steps(4);
    ranks_.clear();
    said_.assign(static_cast<size_t>(pp), {});
    network_ = std::make_unique<InprocNetwork>();
    for (int rank = 0; rank < pp; ++rank) {
      ranks_.push_back(std::make_unique<TestRank>());
      Said& said = said_[static_cast<size_t>(rank)];
      RankSeams seams = testing::SeamsOfTest(
          ranks_.back()->scheduler(), [&said](const proto::FromRank& news) { said.Hear(news); });
      seams.new_transport = [this](const TransportNeeds& needs) {
        return Result<std::unique_ptr<Transport>>(network_->NewTransport(needs.self));
      };
      seams.leave = [&said] { said.left = true; };
      seams.more_output_buffers = 4;  // the receiver reads them where they are
      if (adjust_) adjust_(seams);
      ranks_.back()->Start(std::move(seams));
    }
  }

  void Tell(int rank, proto::ToRank order) {
    ranks_[static_cast<size_t>(rank)]->root().Take(std::move(order));
  }
  void TellAll(const proto::ToRank& order) {
    for (int rank = 0; rank < size(); ++rank) Tell(rank, order);
  }
  void Start(int rank, int world_size = 0) {
    proto::ToRank order;
    proto::StartRank& start = *order.mutable_start();
    start.set_job(1);
    start.set_epoch(1);
    start.set_rank(rank);
    start.set_world_size(world_size > 0 ? world_size : size());
    *start.mutable_spec() = spec_;
    start.set_run_directory(folder_ / "run");
    start.set_resume_from(resume_from_);
    Tell(rank, std::move(order));
  }
  proto::Peers Introduction() const {
    proto::Peers peers;
    for (int rank = 0; rank < size(); ++rank) {
      auto* peer = peers.add_peers();
      peer->set_rank(rank);
      peer->set_address(said_[static_cast<size_t>(rank)].hello->transport_address());
    }
    return peers;
  }
  // Until every rank is ready.
  void GetReady() {
    for (int rank = 0; rank < size(); ++rank) Start(rank);
    TellAll(Peers(Introduction()));
    ASSERT_TRUE(Until([this] {
      return std::ranges::all_of(said_, [](const Said& said) { return said.ready.has_value(); });
    }));
  }
  template <typename Done>
  bool Until(Done done) {
    return DrivenUntil(done, [this] {
      for (auto& rank : ranks_) rank->scheduler().RunUntilIdle();
    });
  }
  // What rank `rank` says at its end.
  proto::Finished End(int rank) {
    EXPECT_TRUE(Until([&] { return !said_[static_cast<size_t>(rank)].finished.empty(); }));
    EXPECT_EQ(said_[static_cast<size_t>(rank)].finished.size(), 1U);
    return said_[static_cast<size_t>(rank)].finished.front();
  }
  int size() const { return static_cast<int>(ranks_.size()); }

  // From the first order to the last; the digests of all parameters.
  std::map<int, uint64_t> Train() {
    GetReady();
    Tell(0, Begin());
    std::map<int, uint64_t> digests;
    const auto add = [&digests](const proto::Finished& finished) {
      EXPECT_EQ(finished.error(), "");
      for (const proto::ParameterDigest& digest : finished.parameter_digests()) {
        EXPECT_TRUE(digests.emplace(digest.parameter(), digest.sum()).second) << "it has one owner";
      }
    };
    add(End(0));
    TellAll(ShutDown());
    for (int rank = 1; rank < size(); ++rank) add(End(rank));
    TellAll(Leave());
    for (const Said& said : said_) {
      EXPECT_TRUE(said.left);
      EXPECT_EQ(said.finished.size(), 1U);
    }
    return digests;
  }

  const testing::TemporaryFolder folder_{};
  std::function<void(RankSeams&)> adjust_{};
  proto::JobSpec spec_{};
  std::string resume_from_{};
  std::unique_ptr<InprocNetwork> network_{};
  std::vector<Said> said_{};
  std::vector<std::unique_ptr<TestRank>> ranks_{};
};

TEST_F(RankRootTest, OneRankAndTwoTrainToTheSameBits) {
  Make(1);
  const auto one = Train();
  const auto steps = said_[0].metrics;
  ASSERT_EQ(steps.size(), 4U);
  EXPECT_LT(steps[3].loss(), steps[0].loss());
  ASSERT_EQ(said_[0].checkpoints.size(), 1U) << "at the end";
  EXPECT_EQ(said_[0].finished[0].checkpoint(), said_[0].checkpoints[0].directory());
  Make(2);
  EXPECT_EQ(Train(), one);
  ASSERT_EQ(said_[0].metrics.size(), 4U);
  for (size_t step = 0; step < 4; ++step) {
    EXPECT_EQ(said_[0].metrics[step].loss(), steps[step].loss());
    EXPECT_EQ(said_[0].metrics[step].grad_norm(), steps[step].grad_norm());
  }
  EXPECT_TRUE(said_[1].metrics.empty()) << "rank 0 speaks for the job";
  for (const Said& said : said_) {
    const proto::CommunicationReport& sent = said.finished[0].communication();
    EXPECT_EQ(sent.steps(), 4);
    ASSERT_GT(sent.rows_size(), 0);
    EXPECT_EQ(sent.rows(0).measured_bytes(), 4 * sent.rows(0).predicted_bytes());
  }
  EXPECT_EQ(said_[1].ready->lanes(0).lane(), "inproc");
}

// How many microbatches the rank keeps after each action that changes it, by its list.
std::vector<int64_t> KeptInTurn(const Schedule& schedule, int rank) {
  std::vector<int64_t> kept = {0};
  for (const Action& action : schedule.ranks[static_cast<size_t>(rank)]) {
    if (action.kind == ActionKind::kForward) kept.push_back(kept.back() + 1);
    const bool ends =
        action.kind == ActionKind::kBackward ||
        (action.kind == ActionKind::kBackwardWeight && action.part + 1 == action.num_parts);
    if (ends) kept.push_back(kept.back() - 1);
  }
  return kept;
}

// A traced step's memory rises and falls as the rank's list says, up to what the plan says.
TEST_F(RankRootTest, MemoryOfATracedStepIsItsSchedulesCourse) {
  constexpr auto kActivations = static_cast<int>(MemoryTag::kActivations);
  for (const char* schedule : {"1f1b", "gpipe", "zb-h1"}) {
    Make(2);
    spec_.mutable_parallelism()->set_schedule(schedule);
    spec_.mutable_log()->mutable_trace()->set_first(2);
    spec_.mutable_log()->mutable_trace()->set_steps(2);
    Train();
    const auto plan = MakeJobPlan(spec_);
    ASSERT_TRUE(plan.ok()) << plan.error().message;
    for (int rank = 0; rank < 2; ++rank) {
      SCOPED_TRACE(fmt::format("{}, rank {}", schedule, rank));
      const auto& told = said_[static_cast<size_t>(rank)].step_memory;
      ASSERT_EQ(told.size(), 2U) << "the steps that the trace covers";
      const MemoryPrediction predicted = plan->MemoryOf(Rank(rank), ThisVectorIsa());
      const int64_t stash_bytes = StashLayoutOf(plan->ShapeOf(StageId(rank))).num_bytes;
      for (int i = 0; i < 2; ++i) {
        const proto::StepMemory& step = told[static_cast<size_t>(i)];
        EXPECT_EQ(step.step(), 2 + i);
        EXPECT_EQ(step.tags(kActivations), "activations");
        EXPECT_EQ(step.predicted_bytes(),
                  std::accumulate(predicted.begin(), predicted.end(), int64_t{0}));
        EXPECT_LE(step.samples_size(), static_cast<int>(MemoryCourse::kSamplesMax));
        EXPECT_EQ(step.samples(0).time_ns(), 0);
        std::vector<int64_t> kept;
        int64_t peak = 0;
        for (const auto& sample : step.samples()) {
          const int64_t used = sample.used_bytes(kActivations);
          EXPECT_LE(
              std::accumulate(sample.used_bytes().begin(), sample.used_bytes().end(), int64_t{0}),
              sample.allocated_bytes());
          EXPECT_EQ(used % stash_bytes, 0);
          peak = std::max(peak, used);
          if (kept.empty() || kept.back() != used / stash_bytes) kept.push_back(used / stash_bytes);
        }
        EXPECT_EQ(kept, KeptInTurn(plan->train, rank));
        EXPECT_EQ(kept.back(), 0) << "nothing is kept at the step's end";
        EXPECT_EQ(peak, predicted[kActivations]);
        EXPECT_GE(step.samples(step.samples_size() - 1).allocated_bytes(), peak)
            << "but it stays allocated for the next";
      }
    }
  }
}

// A global batch for each of `batches`, in plain order; the one of a number below 0 is dots alone.
// Every sample begins with a dot, so the last label of a batch is the same whatever follows.
std::string TextOf(const std::vector<int>& batches, const proto::Batch& batch) {
  std::string text;
  for (const int number : batches) {
    for (int sample = 0; sample < batch.global_batch_size(); ++sample) {
      text.push_back('.');
      for (int i = 1; i < batch.seq_len(); ++i) {
        text.push_back(number < 0 ? '.' : static_cast<char>('a' + (7 * number + sample * i) % 26));
      }
    }
  }
  return text + ".";
}

TEST_F(RankRootTest, ASkippedStepLeavesWhatARunWithoutItHas) {
  const auto make = [this](int pp, const std::vector<int>& batches) {
    Make(pp);
    const auto steps = static_cast<int>(batches.size());
    spec_.mutable_data()->set_train(folder_.Write("dots.txt", TextOf(batches, spec_.batch())));
    spec_.mutable_data()->set_shuffle(false);
    spec_.mutable_data()->set_ignore_label('.');
    spec_.mutable_lr_scheduler()->set_name("constant");
    spec_.mutable_train()->set_steps(steps);
  };
  constexpr int64_t kLabels = 16 * 5;  // of a batch, that count
  make(1, {1, 2, 3});
  const auto without = Train();
  const auto steps = said_[0].metrics;
  ASSERT_EQ(steps.size(), 3U);
  EXPECT_EQ(steps[2].tokens(), 3 * kLabels);

  make(2, {1, -1, 2, 3});
  EXPECT_EQ(Train(), without);
  const auto& metrics = said_[0].metrics;
  ASSERT_EQ(metrics.size(), 4U);
  for (const size_t step : {0, 2, 3}) {
    const proto::StepMetrics& expected = steps[step == 0 ? 0 : step - 1];
    EXPECT_EQ(metrics[step].loss(), expected.loss());
    EXPECT_EQ(metrics[step].grad_norm(), expected.grad_norm());
    EXPECT_EQ(metrics[step].tokens(), expected.tokens());
  }
  EXPECT_FALSE(metrics[1].has_loss());
  EXPECT_EQ(metrics[1].tokens(), kLabels);
  EXPECT_THAT(said_[0].happened,
              ::testing::Contains("step 2 has no label that counts (data.ignore_label = 46): "
                                  "skipped, no update"));

  // Stopped after the skipped step, the optimizer still knows its age.
  make(1, {1, -1, 2, 3});
  spec_.mutable_train()->set_stop_after(2);
  EXPECT_NE(Train(), without);
  resume_from_ = said_[0].checkpoints.at(0).directory();
  make(2, {1, -1, 2, 3});
  EXPECT_EQ(Train(), without);
  ASSERT_EQ(said_[0].metrics.size(), 2U);
  EXPECT_EQ(said_[0].metrics[1].loss(), steps[2].loss());
  EXPECT_EQ(said_[0].metrics[1].tokens(), 3 * kLabels);
}

TEST_F(RankRootTest, AnOrderOutOfItsPlaceEndsTheJobInASentence) {
  const auto refused = [this](int rank) {
    const proto::Finished finished = End(rank);
    EXPECT_EQ(finished.error_code(), static_cast<int>(ErrorCode::kFailed) + 1);
    return finished.error();
  };
  Make(1);
  Tell(0, Begin());
  EXPECT_EQ(refused(0), "Begin came to a rank that waits for its start");
  Make(1);
  Tell(0, Peers({}));
  EXPECT_EQ(refused(0), "Peers came to a rank that waits for its start");
  Make(1);
  Start(0);
  Start(0);
  EXPECT_EQ(refused(0), "StartRank came to a rank that waits for its peers");
  Make(1);
  Start(0);
  Tell(0, Cancel());
  EXPECT_EQ(refused(0), "Cancel came to a rank that waits for its peers");
  Make(2);
  GetReady();
  Tell(1, Begin());
  EXPECT_EQ(refused(1), "Begin came to rank 1: it is rank 0's");
  Tell(1, Peers({}));
  Tell(1, Begin());
  ranks_[1]->scheduler().RunUntilIdle();
  EXPECT_EQ(said_[1].finished.size(), 1U) << "what crosses its end changes nothing";
  Make(1);
  GetReady();
  Tell(0, Begin());
  Tell(0, Begin());
  EXPECT_EQ(refused(0), "Begin came to a rank that trains");
}

TEST_F(RankRootTest, APlanThatCannotBeIsRefusedByName) {
  Make(1);
  spec_.mutable_batch()->set_global_batch_size(7);
  Start(0);
  EXPECT_THAT(End(0).error(), HasSubstr("batch.global_batch_size = 7"));
  EXPECT_FALSE(said_[0].hello.has_value());
  Make(2);
  Start(0, /*world_size=*/3);
  Start(1, /*world_size=*/3);
  TellAll(Peers(Introduction()));
  EXPECT_EQ(End(0).error(), "the plan has 2 ranks, the job was given 3");
  EXPECT_EQ(End(1).error(), "the plan has 2 ranks, the job was given 3");
}

TEST_F(RankRootTest, WhatCannotBeLoadedIsNamed) {
  Make(1);
  spec_.mutable_data()->set_train(folder_ / "nowhere.txt");
  Start(0);
  TellAll(Peers(Introduction()));
  EXPECT_THAT(End(0).error(), HasSubstr("nowhere.txt"));
  EXPECT_FALSE(said_[0].ready.has_value());
}

// Whoever asks is told, and it is said when its deadline has passed.
TEST_F(RankRootTest, WorkThatDoesNotEndIsAWaitOfItsRank) {
  std::promise<void> gate;
  adjust_ = [&](RankSeams& seams) {
    seams.new_stream = [&scheduler = seams.scheduler] {
      return Result<std::unique_ptr<Stream>>(std::make_unique<ThreadStream>(scheduler, "compute"));
    };
    seams.load = [open = gate.get_future().share()](FileSystem& files,
                                                    const proto::StartRank& start,
                                                    const JobPlan& plan, MemoryLedger& ledger) {
      open.wait();
      return LoadRankHere(files, start, plan, ledger);
    };
  };
  Make(1);
  spec_.mutable_resources()->set_hang_seconds(1);
  Start(0);
  TellAll(Peers(Introduction()));
  EXPECT_TRUE(Until([this] { return said_[0].happened.size() >= 2; }));
  EXPECT_THAT(said_[0].happened,
              ::testing::UnorderedElementsAre(
                  "rank 0: start: weights and tokens from files: deadline 500 ms passed",
                  HasSubstr("rank 0: the end of its work from its compute stream: deadline 500 ms "
                            "passed")));
  proto::ToRank order;
  order.mutable_status();
  Tell(0, std::move(order));
  ASSERT_EQ(said_[0].waits.edges_size(), 2);
  for (const proto::WaitEdge& edge : said_[0].waits.edges()) {
    EXPECT_GE(edge.waited_ms(), 500);
    EXPECT_EQ(edge.from_ranks_size(), 0) << "no rank owes it";
  }
  gate.set_value();
  EXPECT_TRUE(Until([this] { return said_[0].ready.has_value(); }));
}

TEST_F(RankRootTest, WhoWaitsForAnotherRankNamesIt) {
  Make(2);
  GetReady();
  Tell(0, Begin());
  for (int i = 0; i < 5; ++i) ranks_[0]->scheduler().RunUntilIdle();  // the other stands still
  proto::ToRank order;
  order.mutable_status();
  Tell(0, std::move(order));
  std::map<std::string, std::vector<int>> owing;
  for (const proto::WaitEdge& edge : said_[0].waits.edges()) {
    owing[edge.waiter()] = {edge.from_ranks().begin(), edge.from_ranks().end()};
  }
  EXPECT_THAT(owing["schedule"], ::testing::ElementsAre(0, 1));
  EXPECT_THAT(owing["rank 0"], ::testing::ElementsAre(1));
}

TEST_F(RankRootTest, ALostPeerIsNamed) {
  Make(2);
  spec_.mutable_train()->set_steps(1'000'000);
  GetReady();
  Tell(0, Begin());
  ASSERT_TRUE(Until([this] { return said_[0].metrics.size() >= 2; }));
  network_->Kill(Rank(1));
  const proto::Finished finished = End(0);
  EXPECT_EQ(finished.error_code(), static_cast<int>(ErrorCode::kPeerDown) + 1);
  EXPECT_EQ(finished.lost_peer(), 1);
  EXPECT_THAT(finished.error(), HasSubstr("rank 1"));
}

TEST_F(RankRootTest, ACancelEndsAfterTheOpenStepWithACheckpoint) {
  Make(2);
  spec_.mutable_train()->set_steps(1'000'000);
  GetReady();
  Tell(0, Begin());
  ASSERT_TRUE(Until([this] { return said_[0].metrics.size() >= 2; }));
  Tell(0, Cancel());
  const proto::Finished finished = End(0);
  EXPECT_TRUE(finished.cancelled());
  EXPECT_EQ(finished.last_step(), said_[0].metrics.back().step());
  EXPECT_THAT(finished.checkpoint(), EndsWith(CheckpointFolderName(finished.last_step())));
  TellAll(ShutDown());
  EXPECT_EQ(End(1).error(), "");
}

TEST_F(RankRootTest, ARankThatIsShutDownEarlySaysSo) {
  Make(2);
  GetReady();
  TellAll(ShutDown());
  for (const int rank : {0, 1}) {
    const proto::Finished finished = End(rank);
    EXPECT_EQ(finished.error(), "");
    EXPECT_GT(finished.parameter_digests_size(), 0);
  }
}

}  // namespace
}  // namespace troupe
