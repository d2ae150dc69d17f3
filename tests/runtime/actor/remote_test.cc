#include "runtime/actor/remote.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cstring>
#include <memory>
#include <vector>

#include "runtime/actor/actor.h"
#include "runtime/sim/virtual_clock.h"
#include "runtime/transport/inproc/inproc_transport.h"

namespace troupe {
namespace {

constexpr uint32_t kIndex = 3;
constexpr uint16_t kChannel = 9;

struct Probe {
  static constexpr std::string_view kMessageName = "test.Probe";
  int64_t number = 0;
};
struct Block {
  static constexpr std::string_view kMessageName = "test.Block";
  int64_t number = 0;
};
struct Stranger {
  static constexpr std::string_view kMessageName = "test.Stranger";
  int64_t number = 0;
};

class Receiver : public Actor<Receiver, Probe, WithBulk<Block>> {
 public:
  Receiver(std::vector<std::string>& log, std::vector<WithBulk<Block>>& kept)
      : log_(log), kept_(kept) {}
  Status On(Probe probe) {
    log_.push_back("probe " + std::to_string(probe.number));
    return {};
  }
  Status On(WithBulk<Block> block) {
    log_.push_back("block " + std::to_string(block.message.number));
    kept_.push_back(std::move(block));
    return {};
  }

 private:
  std::vector<std::string>& log_;
  std::vector<WithBulk<Block>>& kept_;
};

struct RankRouterTest : ::testing::Test {
  struct End {
    std::unique_ptr<Transport> transport{};
    Scheduler scheduler;
    std::unique_ptr<RankRouter> router{};
    explicit End(Clock& clock) : scheduler({.clock = &clock}) {}
  };

  RankRouterTest() {
    for (int rank = 0; rank < 2; ++rank) {
      End& end = *ends[rank];
      end.transport = network.NewTransport(Rank(rank));
      CHECK(end.transport->Connect(Rank(1 - rank), fmt::format("inproc:{}", 1 - rank)).ok());
      end.router = std::make_unique<RankRouter>(
          end.scheduler, *end.transport,
          RankRouter::Options{
              .self = Rank(rank),
              .job = JobId(17),
              .epoch = Epoch(2),
              .on_peer_down = [this](Rank peer, const Error&) { lost.push_back(peer); },
              .on_credit = [this](Rank, uint16_t) { ++credits; },
              .on_drop =
                  [this](DropCause cause, const Envelope&, const Error& error) {
                    causes.push_back(cause);
                    sentences.push_back(error.message);
                  }});
    }
    receiver =
        ends[1]->scheduler.Spawn<Receiver>({.name = "receiver", .mailbox_bound = 8}, log, kept);
    ends[1]->router->Register<Probe, WithBulk<Block>>(kIndex, receiver);
  }
  ~RankRouterTest() override { kept.clear(); }

  void Run() {
    for (int pass = 0; pass < 4; ++pass) {
      for (auto& end : ends) end->scheduler.RunUntilIdle();
    }
  }
  RankRouter& router(int rank) { return *ends[rank]->router; }
  RemoteRef<Probe, WithBulk<Block>> remote(int from) {
    return router(from).Remote<Probe, WithBulk<Block>>(Rank(1), kIndex);
  }
  // A well-formed Probe as the transport would hand it up.
  Envelope ProbeEnvelope() {
    Envelope envelope;
    envelope.type_id = WireTypeId<Probe>();
    envelope.job = 17;
    envelope.epoch = 2;
    envelope.destination_actor = kIndex;
    return envelope;
  }
  void Feed(const Envelope& envelope, size_t payload_bytes = sizeof(Probe)) {
    const std::vector<std::byte> payload(payload_bytes);
    router(1).Deliver({.envelope = envelope, .payload = payload, .bulk = {}});
    Run();
  }

  VirtualClock clock{};
  InprocNetwork network{};
  std::vector<std::string> log{};
  std::vector<WithBulk<Block>> kept{};
  std::vector<DropCause> causes{};
  std::vector<std::string> sentences{};
  std::vector<Rank> lost{};
  int credits = 0;
  std::unique_ptr<End> ends[2] = {std::make_unique<End>(clock), std::make_unique<End>(clock)};
  Receiver::SelfRef receiver{};
};

TEST_F(RankRouterTest, MessagesReachTheActorInOrder) {
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(remote(0).Send(Probe{i}).ok());
  EXPECT_TRUE(log.empty());
  Run();
  EXPECT_EQ(log, (std::vector<std::string>{"probe 0", "probe 1", "probe 2", "probe 3", "probe 4"}));
  EXPECT_EQ(router(1).delivered(), 5);
  EXPECT_EQ(router(1).dropped_total(), 0);
}

TEST_F(RankRouterTest, AMessageToOneselfIsALocalOne) {
  ASSERT_TRUE(remote(1).Send(Probe{1}).ok());
  std::vector<std::byte> bytes(64, std::byte{7});
  int done = 0;
  ASSERT_TRUE(remote(1).SendBulk(Block{2}, bytes, [&] { ++done; }, {.channel = kChannel}).ok());
  EXPECT_TRUE(log.empty()) << "Send ran the receiver";
  Run();
  EXPECT_EQ(log, (std::vector<std::string>{"probe 1", "block 2"}));
  ASSERT_EQ(kept.size(), 1u);
  EXPECT_EQ(kept[0].bulk.bytes().data(), bytes.data()) << "bulk to oneself was copied";
  EXPECT_EQ(done, 0);
  kept.clear();
  EXPECT_EQ(done, 1);
}

TEST_F(RankRouterTest, BulkArrivesWithItsEnvelopeAndReturnsItsCredit) {
  ASSERT_TRUE(ends[1]->transport->PostSlots(Rank(0), kChannel, 1, 64).ok());
  ends[0]->transport->SetCredits(Rank(1), kChannel, 1);
  std::vector<std::byte> bytes(64);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 3);
  int done = 0;
  const Postmark postmark{
      .channel = kChannel, .step = 812, .microbatch = 17, .stage = 2, .flow_id = 99};
  ASSERT_TRUE(remote(0)
                  .SendBulk(
                      Block{5}, bytes, [&] { ++done; }, postmark)
                  .ok());
  const Status refused = remote(0).SendBulk(
      Block{6}, bytes, [&] { ++done; }, postmark);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  Run();
  ASSERT_EQ(kept.size(), 1u);
  EXPECT_EQ(kept[0].message.number, 5);
  ASSERT_EQ(kept[0].bulk.bytes().size(), bytes.size());
  EXPECT_EQ(std::memcmp(kept[0].bulk.bytes().data(), bytes.data(), bytes.size()), 0);
  EXPECT_EQ(kept[0].envelope.step, 812);
  EXPECT_EQ(kept[0].envelope.microbatch, 17);
  EXPECT_EQ(kept[0].envelope.stage, 2);
  EXPECT_EQ(kept[0].envelope.flow_id, 99u);
  EXPECT_EQ(credits, 0);
  kept.clear();
  Run();
  EXPECT_EQ(credits, 1);
  EXPECT_EQ(done, 1);
}

TEST_F(RankRouterTest, ALostPeerIsReported) {
  network.Kill(Rank(1));
  Run();
  EXPECT_EQ(lost, (std::vector<Rank>{Rank(1)}));
  EXPECT_FALSE(remote(0).Send(Probe{1}).ok());
}

TEST_F(RankRouterTest, EveryDropHasItsCause) {
  Envelope envelope = ProbeEnvelope();
  envelope.magic = 0;
  Feed(envelope);
  envelope = ProbeEnvelope();
  envelope.header_version = Envelope::kHeaderVersion + 1;
  Feed(envelope);
  EXPECT_EQ(causes, std::vector<DropCause>(2, DropCause::kMalformed));

  envelope = ProbeEnvelope();
  envelope.epoch = 1;
  Feed(envelope);
  EXPECT_EQ(causes.back(), DropCause::kWrongEpoch);
  EXPECT_EQ(sentences.back(),
            "message from rank 0 to actor 3: job 17 epoch 1, this rank is at job 17 epoch 2");
  envelope = ProbeEnvelope();
  envelope.job = 16;
  Feed(envelope);
  EXPECT_EQ(causes.back(), DropCause::kWrongEpoch);

  envelope = ProbeEnvelope();
  envelope.destination_actor = 4;
  Feed(envelope);
  EXPECT_EQ(causes.back(), DropCause::kUnknownActor);

  envelope = ProbeEnvelope();
  envelope.destination_incarnation = 2;
  Feed(envelope);
  EXPECT_EQ(causes.back(), DropCause::kStale);

  envelope = ProbeEnvelope();
  envelope.type_id = WireTypeId<Stranger>();
  Feed(envelope);
  EXPECT_EQ(causes.back(), DropCause::kUnknownType);
  EXPECT_THAT(sentences.back(), ::testing::HasSubstr("receiver: it takes no message of type"));

  for (const size_t wrong : {sizeof(Probe) - 1, sizeof(Probe) + 1}) {
    Feed(ProbeEnvelope(), wrong);
    EXPECT_EQ(causes.back(), DropCause::kBadPayload);
  }

  EXPECT_TRUE(log.empty());
  EXPECT_EQ(router(1).dropped_total(), static_cast<int64_t>(causes.size()));
  Feed(ProbeEnvelope());
  EXPECT_EQ(log.size(), 1u) << "the well-formed one must come through";
}

TEST_F(RankRouterTest, BulkBesideAMessageWithoutBulkIsDroppedAndLetGo) {
  bool released = false;
  std::vector<std::byte> bytes(8);
  const std::vector<std::byte> payload(sizeof(Probe));
  router(1).Deliver({.envelope = ProbeEnvelope(), .payload = payload, .bulk = Bulk(bytes, [&] {
                                                                        released = true;
                                                                      })});
  EXPECT_EQ(router(1).dropped(DropCause::kUnexpectedBulk), 1);
  EXPECT_TRUE(released) << "a dropped message kept its slot";
}

TEST_F(RankRouterTest, AFullMailboxDropsAndLetsTheSlotGo) {
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(receiver.Send(Probe{i}).ok());
  bool released = false;
  std::vector<std::byte> bytes(8);
  const std::vector<std::byte> payload(sizeof(Block));
  Envelope envelope = ProbeEnvelope();
  envelope.type_id = WireTypeId<Block>();
  router(1).Deliver(
      {.envelope = envelope, .payload = payload, .bulk = Bulk(bytes, [&] { released = true; })});
  EXPECT_EQ(causes, (std::vector<DropCause>{DropCause::kMailboxFull}));
  EXPECT_TRUE(released);
}

TEST_F(RankRouterTest, AnEndedActorIsStale) {
  ends[1]->scheduler.End(receiver);
  ASSERT_TRUE(remote(0).Send(Probe{1}).ok());
  Run();
  EXPECT_EQ(causes, (std::vector<DropCause>{DropCause::kStale}));
  router(1).Unregister(kIndex);
  ASSERT_TRUE(remote(0).Send(Probe{1}).ok());
  Run();
  EXPECT_EQ(causes.back(), DropCause::kUnknownActor);
}

TEST_F(RankRouterTest, AnOldEpochsSenderIsDroppedAfterTheEpochMovedOn) {
  router(1).SetEpoch(Epoch(3));
  ASSERT_TRUE(remote(0).Send(Probe{1}).ok());
  Run();
  EXPECT_EQ(causes, (std::vector<DropCause>{DropCause::kWrongEpoch}));
  router(0).SetEpoch(Epoch(3));
  ASSERT_TRUE(remote(0).Send(Probe{2}).ok());
  Run();
  EXPECT_EQ(log, (std::vector<std::string>{"probe 2"}));
}

TEST_F(RankRouterTest, ARefToLocalAndRemoteLooksTheSame) {
  const Ref<Probe> local(receiver);
  const Ref<Probe> far(remote(0));
  EXPECT_TRUE(local.local());
  EXPECT_FALSE(far.local());
  ASSERT_TRUE(far.Send(Probe{1}).ok());
  Run();
  ASSERT_TRUE(local.Send(Probe{2}).ok());
  Run();
  EXPECT_EQ(log, (std::vector<std::string>{"probe 1", "probe 2"}));
  EXPECT_EQ((RemoteRef<Probe>().Send(Probe{}).error().code), ErrorCode::kNotFound);
}

TEST_F(RankRouterTest, DropCausesHaveNames) {
  std::vector<std::string_view> names;
  for (int i = 0; i < kNumDropCauses; ++i) {
    names.push_back(DropCauseName(static_cast<DropCause>(i)));
  }
  EXPECT_THAT(names, ::testing::Each(::testing::Ne("?")));
  EXPECT_THAT(names, ::testing::Contains("wrong epoch"));
}

// Any bytes as an envelope, any payload: a drop with a cause or a delivery, never more.
TEST_F(RankRouterTest, HostileBytesNeverDoHarm) {
  rc::check("random envelopes and payloads", [this] {
    Envelope envelope = ProbeEnvelope();
    auto* bytes = reinterpret_cast<unsigned char*>(&envelope);
    const int flips = *rc::gen::inRange(0, 8);
    for (int i = 0; i < flips; ++i) {
      bytes[*rc::gen::inRange<size_t>(0, sizeof(envelope))] =
          static_cast<unsigned char>(*rc::gen::inRange(0, 256));
    }
    const auto payload = *rc::gen::container<std::vector<uint8_t>>(rc::gen::arbitrary<uint8_t>());
    const int64_t before = router(1).delivered() + router(1).dropped_total();
    router(1).Deliver(
        {.envelope = envelope, .payload = std::as_bytes(std::span(payload)), .bulk = {}});
    Run();
    RC_ASSERT(router(1).delivered() + router(1).dropped_total() == before + 1);
  });
}

}  // namespace
}  // namespace troupe
