#include "runtime/sim/sim_transport.h"

#include "runtime/sim/sim_driver.h"
#include "tests/runtime/transport/conformance.h"

namespace troupe {
namespace {

// For the conformance suite, which knows no virtual time: a microsecond passes whenever it touches
// an end.
struct SimPair {
  SimPair() {
    CHECK(transports[0]->Connect(Rank(1), transports[1]->LocalAddress()).ok());
    CHECK(transports[1]->Connect(Rank(0), transports[0]->LocalAddress()).ok());
  }
  Transport& at(int rank) {
    clock.AdvanceTo(clock.NowNs() + 1000);
    return *transports[rank];
  }
  void Kill(int rank) { network.Kill(Rank(rank)); }

  VirtualClock clock{};
  SimNetwork network{clock, {.seed = 7}};
  std::unique_ptr<Transport> transports[2] = {network.NewTransport(Rank(0)),
                                              network.NewTransport(Rank(1))};
};

INSTANTIATE_TYPED_TEST_SUITE_P(Sim, TransportConformance, SimPair);

// Two ranks and what rank 1 received, with its times.
struct SimLinkTest : ::testing::Test {
  void Open(uint64_t seed) {
    network.emplace(clock, SimNetworkOptions{.seed = seed, .detection_ms = 100});
    for (int rank = 0; rank < 2; ++rank) ends[rank] = network->NewTransport(Rank(rank));
    for (int rank = 0; rank < 2; ++rank) {
      CHECK(ends[rank]->Connect(Rank(1 - rank), fmt::format("sim:{}", 1 - rank)).ok());
      ends[rank]->SetHandlers(
          {.on_message =
               [this](const Delivery& d) {
                 got.emplace_back(reinterpret_cast<const char*>(d.payload.data()),
                                  d.payload.size());
                 at_ns.push_back(clock.NowNs());
               },
           .on_peer_down = [this, rank](Rank, const Error&) { downs[rank] = clock.NowNs(); },
           .on_credit = nullptr});
      driver.Add([this, rank] { return ends[rank]->Progress(); }, nullptr);
    }
    driver.Add(nullptr, [this] { return network->NextEventNs(); });
  }
  void Send(const std::string& text) {
    ASSERT_TRUE(ends[0]->Send(Rank(1), {}, std::as_bytes(std::span(text))).ok());
  }
  void RunToTheEnd() {
    while (driver.Step()) {
    }
  }
  VirtualClock clock{};
  SimDriver driver{clock, 1};
  std::optional<SimNetwork> network{};
  std::unique_ptr<Transport> ends[2]{};
  std::vector<std::string> got{};
  std::vector<int64_t> at_ns{};
  int64_t downs[2] = {-1, -1};
};

TEST_F(SimLinkTest, LatencyIsWithinItsBoundsAndKeepsTheOrder) {
  Open(3);
  for (int i = 0; i < 100; ++i) Send(std::to_string(i));
  RunToTheEnd();
  ASSERT_EQ(got.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(got[static_cast<size_t>(i)], std::to_string(i));
  EXPECT_GE(at_ns.front(), 2'000);
  EXPECT_LE(at_ns.back(), 51'000);
  EXPECT_LT(at_ns.front(), at_ns.back());
}

TEST_F(SimLinkTest, ALinkHealedInTimeIsOnlyLate) {
  Open(3);
  Send("before");  // under way when the link is cut
  network->Cut(Rank(0), Rank(1));
  Send("during");
  driver.At(90'000'000, [this] { network->Heal(Rank(0), Rank(1)); });
  RunToTheEnd();
  EXPECT_EQ(got, (std::vector<std::string>{"before", "during"}));
  EXPECT_GE(at_ns[0], 90'000'000);
  EXPECT_EQ(downs[0], -1);
  EXPECT_EQ(downs[1], -1);
}

TEST_F(SimLinkTest, ALinkCutForTooLongIsDeadAtBothEnds) {
  Open(3);
  network->Cut(Rank(0), Rank(1));
  Send("lost");
  driver.At(150'000'000, [this] { network->Heal(Rank(0), Rank(1)); });
  RunToTheEnd();
  EXPECT_TRUE(got.empty());
  EXPECT_EQ(downs[0], 100'000'000);
  EXPECT_EQ(downs[1], 100'000'000);
}

TEST_F(SimLinkTest, ABulkIsTheReceiversOwnOnceItArrived) {
  Open(3);
  Bulk held;
  ends[1]->SetHandlers({.on_message = [&](Delivery d) { held = std::move(d.bulk); },
                        .on_peer_down = nullptr,
                        .on_credit = nullptr});
  ASSERT_TRUE(ends[1]->PostSlots(Rank(0), 5, 1, 16).ok());
  ends[0]->SetCredits(Rank(1), 5, 1);
  std::vector<std::byte> bytes(16, std::byte{1});
  Envelope envelope;
  envelope.channel = 5;
  bool done = false;
  ASSERT_TRUE(ends[0]->SendBulk(Rank(1), envelope, {}, bytes, [&] { done = true; }).ok());
  RunToTheEnd();
  ASSERT_TRUE(done);
  std::ranges::fill(bytes, std::byte{2});
  ASSERT_EQ(held.bytes().size(), 16u);
  EXPECT_EQ(held.bytes()[0], std::byte{1});
  EXPECT_EQ(ends[0]->Credits(Rank(1), 5), 0);
  held.Release();
  RunToTheEnd();
  EXPECT_EQ(ends[0]->Credits(Rank(1), 5), 1);
}

// The same seed gives the same times, another seed others.
TEST(SimSeed, DecidesEverything) {
  const auto times = [](uint64_t seed) {
    VirtualClock clock;
    SimNetwork network(clock, {.seed = seed});
    auto a = network.NewTransport(Rank(0));
    auto b = network.NewTransport(Rank(1));
    CHECK(a->Connect(Rank(1), "sim:1").ok());
    std::vector<int64_t> at;
    b->SetHandlers({.on_message = [&](const Delivery&) { at.push_back(clock.NowNs()); },
                    .on_peer_down = nullptr,
                    .on_credit = nullptr});
    for (int i = 0; i < 20; ++i) {
      CHECK(a->Send(Rank(1), {}, {}).ok());
      clock.AdvanceTo(std::max(network.NextEventNs(), clock.NowNs()));
      b->Progress();
    }
    return at;
  };
  EXPECT_EQ(times(1), times(1));
  EXPECT_NE(times(1), times(2));
}

}  // namespace
}  // namespace troupe
