// The blocks of a pass on their way round: what is expected, sent and let go, and how errors end.
#include "actors/model/kv_round.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/actor/stream.h"
#include "runtime/actor/stream_wait.h"
#include "tests/runtime/actor/manual_clock.h"

namespace troupe {
namespace {

using Log = std::vector<std::string>;

// Says what it is asked; the test lets things happen.
class LoggedRing final : public KvRing {
 public:
  int num_ranks() const override { return 3; }
  int index() const override { return 1; }
  const Clock& clock() const override { return time; }
  void Expect(const KvHop& hop, int64_t num_bytes, KvArrival& arrival) override {
    log.push_back(fmt::format("expect {} of {}, {} bytes", hop.hop, hop.origin, num_bytes));
    arrivals.push_back(&arrival);
  }
  void Send(const KvHop& hop, std::span<const std::byte> block, KvDeparture& departure) override {
    log.push_back(
        fmt::format("send {} of {}, {}", hop.hop, hop.origin, std::to_integer<int>(block.front())));
    departures.push_back(&departure);
  }
  void Let(const KvHop& hop, int64_t idle_ns) override {
    log.push_back(fmt::format("let {} of {}{}", hop.hop, hop.origin,
                              idle_ns > 0 ? fmt::format(", idle {} ms", idle_ns / 1'000'000) : ""));
  }

  ManualClock time{};
  Log log{};
  std::vector<KvArrival*> arrivals{};
  std::vector<KvDeparture*> departures{};
};

class KvRoundTest : public ::testing::Test {
 protected:
  // Bytes of a number that says whose block it is.
  static std::vector<std::byte> Block(int number) {
    return std::vector<std::byte>(2 * 3 * 4, static_cast<std::byte>(number));
  }
  Task<Status> Pass(int num_hops) {
    KvRound round(ring_, {.layer = 7}, DType::kFloat32, 2, 3);
    TensorView block(own_.data(), DType::kFloat32, {2, 3});
    for (int hop = 1; hop <= num_hops; ++hop) {
      co_await OnScheduler([&] { round.Exchange(block); });
      CO_ASSIGN_OR_RETURN(block, co_await round.Here());
    }
    co_await OnScheduler([&] { round.LetAll(); });
    co_return Status{};
  }
  void Launch(int num_hops) {
    stream_.LaunchTask(scope_, Pass(num_hops),
                       [this](const WorkTime&, Status status) { end_ = std::move(status); });
    scheduler_.RunUntilIdle();
  }
  void Arrive(size_t at, std::vector<std::byte>& block, Status status = {}) {
    ring_.arrivals.at(at)->block = block;
    ring_.arrivals.at(at)->status = std::move(status);
    ring_.arrivals.at(at)->here.Set();
    scheduler_.RunUntilIdle();
  }
  void Gone(size_t at, Status status = {}) {
    ring_.departures.at(at)->status = std::move(status);
    ring_.departures.at(at)->gone.Set();
    scheduler_.RunUntilIdle();
  }

  LoggedRing ring_{};
  std::vector<std::byte> own_ = Block(1), first_ = Block(10), second_ = Block(20);
  std::optional<Status> end_{};
  Scheduler scheduler_{{.spin_us = 0}};
  InlineStream stream_{scheduler_};
  StreamScope scope_{stream_};
};

TEST_F(KvRoundTest, SendsOnWhatCameAndLetsItGoAfterwards) {
  Launch(2);
  EXPECT_EQ(ring_.log, (Log{"expect 1 of 0, 24 bytes", "send 1 of 1, 1"}));
  ring_.time.AdvanceMs(3);
  Arrive(0, first_);
  EXPECT_EQ(ring_.log.size(), 2u) << "what was sent has not gone";
  ring_.time.AdvanceMs(4);
  Gone(0);
  EXPECT_EQ(ring_.log.size(), 4u);
  EXPECT_EQ(ring_.log[2], "expect 2 of 2, 24 bytes") << "beside the first, which is still in use";
  EXPECT_EQ(ring_.log[3], "send 2 of 0, 10");
  Gone(1);
  EXPECT_FALSE(end_.has_value());
  ring_.time.AdvanceMs(5);
  Arrive(1, second_);
  ASSERT_TRUE(end_.has_value() && end_->ok());
  ASSERT_EQ(ring_.log.size(), 6u);
  EXPECT_EQ(ring_.log[4], "let 1 of 0, idle 7 ms");
  EXPECT_EQ(ring_.log[5], "let 2 of 2, idle 5 ms");
}

TEST_F(KvRoundTest, AnErrorEndsThePassWhenTheRingIsDoneWithIt) {
  const Status lost = MakeError(ErrorCode::kPeerDown, "rank 0 is lost");
  Launch(2);
  Arrive(0, first_, lost);
  EXPECT_FALSE(end_.has_value()) << "the ring still refers to what is sent";
  Gone(0);
  ASSERT_TRUE(end_.has_value() && !end_->ok());
  EXPECT_EQ(end_->error().message, "rank 0 is lost");
}

TEST_F(KvRoundTest, SoDoesABlockThatCannotBeSent) {
  Launch(2);
  Gone(0, MakeError(ErrorCode::kPeerDown, "rank 2 is lost"));
  Arrive(0, first_);
  ASSERT_TRUE(end_.has_value() && !end_->ok());
  EXPECT_EQ(end_->error().message, "rank 2 is lost");
}

TEST_F(KvRoundTest, ABlockOfAnotherSizeIsABrokenInvariant) {
  KvRound round(ring_, {}, DType::kFloat32, 2, 4);
  EXPECT_DEATH(round.Exchange(TensorView(own_.data(), DType::kFloat32, {2, 3})),
               "a block of 24 bytes, not of 32");
}

}  // namespace
}  // namespace troupe
