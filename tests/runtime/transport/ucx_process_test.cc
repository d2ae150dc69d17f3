// Two processes: order, bulk, and every way in which a peer may leave.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <xxhash.h>

#include <chrono>
#include <cstring>
#include <map>
#include <optional>
#include <random>
#include <vector>

#include "runtime/transport/ucx/ucx_transport.h"
#include "tests/runtime/transport/ucx_child.h"
#include "tests/support/patience.h"

namespace troupe {
namespace {

using Clock = std::chrono::steady_clock;
using testing::DrivenUntil;
constexpr int kSlots = 4;
constexpr int64_t kSlotBytes = 4 << 20;

struct Answer {
  Envelope envelope{};
  std::vector<std::byte> payload{};
};

// This process is rank 0, the child rank 1. The parameter is the child's UCX_TLS. Nobody waits long
// enough to find a peer lost by its silence: what is noticed here is noticed otherwise.
class UcxProcessTest : public ::testing::TestWithParam<const char*> {
 protected:
  explicit UcxProcessTest(int silence_ms = 600'000) : silence_ms_(silence_ms) {}

  void SetUp() override {
    auto made = UcxTransport::Create(
        {.self = Rank(0), .heartbeat_ms = 20, .silence_ms = silence_ms_}, ledger_);
    ASSERT_TRUE(made.ok()) << made.error().message;
    transport_ = *std::move(made);
    transport_->SetHandlers(
        {.on_message =
             [this](Delivery d) {
               answers_.push_back({d.envelope, {d.payload.begin(), d.payload.end()}});
             },
         .on_peer_down =
             [this](Rank, Error cause) {
               ++downs_;
               why_ = cause.message;
             },
         .on_credit = {}});
    const std::string address = child_.Exchange(transport_->LocalAddress());
    ASSERT_TRUE(transport_->Connect(Rank(1), address).ok());
    for (const uint16_t channel : {1, 2, 3}) transport_->SetCredits(Rank(1), channel, kSlots);
  }

  Status SendText(const std::string& text, uint16_t channel = 0) {
    Envelope envelope;
    envelope.channel = channel;
    return transport_->Send(Rank(1), envelope, std::as_bytes(std::span(text)));
  }
  template <typename Enough>
  bool Until(Enough enough) {
    return DrivenUntil(enough, [this] { transport_->Progress(); });
  }
  // As a scheduler that has nothing to do.
  template <typename Enough>
  bool SleepUntil(Enough enough) {
    pollfd wait{transport_->EventFd(), POLLIN, 0};
    return DrivenUntil(enough, [&] {
      if (transport_->Progress() == 0 && transport_->Arm()) {
        poll(&wait, 1, 1000);
        ++sleeps_;
      }
    });
  }
  void Greet() {
    ASSERT_TRUE(SendText("hello").ok());
    ASSERT_TRUE(Until([&] { return !answers_.empty(); }));
    answers_.clear();
  }

  const int silence_ms_;
  MemoryLedger ledger_{};
  UcxChild child_{TROUPE_ECHO_RANK, GetParam()};
  std::unique_ptr<Transport> transport_{};
  std::vector<Answer> answers_{};
  int downs_ = 0;
  int sleeps_ = 0;
  std::string why_{};
};

TEST_P(UcxProcessTest, TheLaneIsWhatBothHave) {
  Greet();
  EXPECT_EQ(transport_->LaneTo(Rank(1)), GetParam() == nullptr ? Lane::kSharedMemory : Lane::kTcp);
}

TEST_P(UcxProcessTest, EveryChannelKeepsItsOrderAndItsBytes) {
  Greet();
  std::mt19937 random(7);
  std::vector<std::byte> bytes(kSlotBytes);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  std::map<uint32_t, uint64_t> owed;  // flow id -> hash of what was sent
  std::map<uint16_t, uint32_t> last_asked;
  for (uint32_t id = 1; id <= 400; ++id) {
    Envelope envelope;
    envelope.channel = static_cast<uint16_t>(random() % 4);
    envelope.flow_id = id;
    const size_t size = size_t{1} << (random() % 23);
    const size_t start = random() % (bytes.size() - size + 1);
    const auto part = std::span(bytes).subspan(start, size);
    if (envelope.channel == 0 || random() % 4 == 0) {
      const auto text = part.first(std::min<size_t>(size, 100'000));
      ASSERT_TRUE(transport_->Send(Rank(1), envelope, text).ok());
      owed[id] = XXH64(text.data(), text.size(), 0);
      continue;
    }
    ASSERT_TRUE(Until([&] { return transport_->Credits(Rank(1), envelope.channel) > 0; }));
    ASSERT_TRUE(transport_->SendBulk(Rank(1), envelope, {}, part, [] {}).ok());
    owed[id] = XXH64(part.data(), part.size(), 0);
  }
  ASSERT_TRUE(Until([&] { return answers_.size() == 400; })) << answers_.size();
  for (const Answer& answer : answers_) {
    const uint32_t id = answer.envelope.flow_id;
    EXPECT_EQ(answer.envelope.step, 0) << "out of order at rank 1: " << id;
    EXPECT_GT(id, std::exchange(last_asked[answer.envelope.channel], id));
    uint64_t got = XXH64(answer.payload.data(), answer.payload.size(), 0);
    if (answer.payload.size() == sizeof(got) && got != owed[id]) {
      std::memcpy(&got, answer.payload.data(), sizeof(got));
    }
    EXPECT_EQ(got, owed[id]) << id;
  }
  auto& ucx = dynamic_cast<UcxTransport&>(*transport_);
  EXPECT_EQ(ucx.dropped(), 0);
  EXPECT_EQ(ucx.NumInPlace(Rank(1)) > 0, GetParam() == nullptr);
}

TEST_P(UcxProcessTest, ASleeperIsWokenByMessages) {
  Greet();
  for (size_t i = 1; i <= 20; ++i) {
    usleep(2000);
    ASSERT_TRUE(SendText("wake").ok());
    ASSERT_TRUE(SleepUntil([&] { return answers_.size() == i; }));
  }
  EXPECT_EQ(downs_, 0);
}

TEST_P(UcxProcessTest, AKilledPeerIsNoticedWhileIdle) {
  Greet();
  ASSERT_TRUE(SleepUntil([&] { return sleeps_ > 3; }));
  child_.Signal(SIGKILL);
  ASSERT_TRUE(SleepUntil([&] { return downs_ > 0; }));
  EXPECT_EQ(SendText("late").error().code, ErrorCode::kPeerDown);
}

TEST_P(UcxProcessTest, AKilledPeerIsNoticedWhileSendingSmallMessages) {
  Greet();
  child_.Signal(SIGKILL);
  EXPECT_TRUE(DrivenUntil([&] { return downs_ > 0; },
                          [&] {
                            const Status sent = SendText("into the void");
                            const bool full =
                                !sent.ok() && sent.error().code == ErrorCode::kResourceExhausted;
                            if (full) usleep(1000);
                            transport_->Progress();
                          }));
  EXPECT_EQ(downs_, 1);
}

TEST_P(UcxProcessTest, AKilledPeerGivesBackTheBulk) {
  Greet();
  child_.Signal(SIGSTOP);
  const std::vector<std::byte> bytes(kSlotBytes);
  int done = 0;
  for (int i = 0; i < kSlots; ++i) {
    Envelope envelope;
    envelope.channel = 2;
    ASSERT_TRUE(transport_->SendBulk(Rank(1), envelope, {}, bytes, [&] { ++done; }).ok());
  }
  child_.Signal(SIGKILL);
  ASSERT_TRUE(Until([&] { return downs_ == 1; }));
  EXPECT_EQ(done, kSlots);  // T2
}

// Killed while the ranks connect: told as any lost peer, not as an error of ours.
TEST_P(UcxProcessTest, APeerThatEndedBeforeConnectIsLost) {
  UcxChild other(TROUPE_ECHO_RANK, GetParam());
  auto made = UcxTransport::Create({.self = Rank(0), .heartbeat_ms = 20}, ledger_);
  ASSERT_TRUE(made.ok());
  std::optional<Rank> lost;
  (*made)->SetHandlers(
      {.on_message = [](Delivery) {}, .on_peer_down = [&](Rank peer, Error) { lost = peer; }});
  const std::string address = other.Exchange((*made)->LocalAddress());
  other.Signal(SIGKILL);
  const Status connected = (*made)->Connect(Rank(1), address);
  ASSERT_TRUE(connected.ok()) << connected.error().message;
  EXPECT_TRUE(DrivenUntil([&] { return lost.has_value(); }, [&] { (*made)->Progress(); }));
  EXPECT_EQ(lost, Rank(1));
  Envelope envelope;
  EXPECT_EQ((*made)->Send(Rank(1), envelope, {}).error().code, ErrorCode::kPeerDown);
}

class UcxSilenceTest : public UcxProcessTest {
 protected:
  static constexpr int kSilenceMs = 3000;
  UcxSilenceTest() : UcxProcessTest(kSilenceMs) {}
};

TEST_P(UcxSilenceTest, AStoppedPeerIsNoticed) {
  Greet();
  child_.Signal(SIGSTOP);
  const auto start = Clock::now();
  ASSERT_TRUE(SleepUntil([&] { return downs_ > 0; }));
  EXPECT_GT(Clock::now() - start, std::chrono::milliseconds(kSilenceMs - 100)) << why_;
  EXPECT_NE(why_.find("silent"), std::string::npos) << why_;
  child_.Signal(SIGCONT);
  answers_.clear();
  usleep(50'000);
  for (int i = 0; i < 1000; ++i) transport_->Progress();
  EXPECT_TRUE(answers_.empty());  // T2
  EXPECT_EQ(downs_, 1);
}

TEST_P(UcxSilenceTest, ARankThatDidNotRunBlamesNobody) {
  Greet();
  usleep((kSilenceMs + 1000) * 1000);
  ASSERT_TRUE(SendText("still there?").ok());
  ASSERT_TRUE(Until([&] { return !answers_.empty(); }));
  EXPECT_EQ(downs_, 0) << why_;
}

TEST_P(UcxProcessTest, AKilledPeerLeavesNoSharedMemory) {
  const auto before = SharedMemoryNames();
  {
    UcxChild other(TROUPE_ECHO_RANK, GetParam());
    MemoryLedger ledger;
    auto made = UcxTransport::Create({.self = Rank(0)}, ledger);
    ASSERT_TRUE(made.ok());
    ASSERT_TRUE((*made)->Connect(Rank(1), other.Exchange((*made)->LocalAddress())).ok());
    for (int i = 0; i < 10'000; ++i) (*made)->Progress();
    other.Signal(SIGKILL);
  }
  EXPECT_THAT(LeftSince(before), ::testing::IsEmpty());
}

std::string LaneName(const ::testing::TestParamInfo<const char*>& info) {
  return info.param == nullptr ? "SharedMemory" : "Tcp";
}
INSTANTIATE_TEST_SUITE_P(Lane, UcxProcessTest, ::testing::Values(nullptr, "tcp,self"), LaneName);
INSTANTIATE_TEST_SUITE_P(Lane, UcxSilenceTest, ::testing::Values(nullptr, "tcp,self"), LaneName);

}  // namespace
}  // namespace troupe
