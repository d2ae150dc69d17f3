#include "runtime/transport/ucx/ucx_transport.h"

#include <unistd.h>

#include <cstdio>
#include <functional>
#include <random>

#include "runtime/memory/shared_region.h"
#include "runtime/transport/ucx/ucx_frame.h"
#include "runtime/transport/ucx/ucx_worker.h"
#include "tests/runtime/transport/conformance.h"
#include "tests/runtime/transport/ucx_child.h"

namespace troupe {
namespace {

std::unique_ptr<Transport> NewTransport(Rank rank, MemoryLedger& ledger, int silence_ms = 600'000) {
  auto transport =
      UcxTransport::Create({.self = rank, .heartbeat_ms = 20, .silence_ms = silence_ms}, ledger);
  CHECK(transport.ok(), "{}", transport.error().message);
  return *std::move(transport);
}

// Two transports of one process, each with a worker of its own.
struct UcxPair {
  explicit UcxPair(int silence_ms = 2000) : silence_ms(silence_ms) {
    CHECK(transports[0]->Connect(Rank(1), transports[1]->LocalAddress()).ok());
    CHECK(transports[1]->Connect(Rank(0), transports[0]->LocalAddress()).ok());
  }
  Transport& at(int rank) { return *transports[rank]; }
  void Kill(int rank) { transports[rank]->Close(0); }

  const int silence_ms;  // after which a killed one is lost
  MemoryLedger ledger{};
  std::unique_ptr<Transport> transports[2] = {NewTransport(Rank(0), ledger, silence_ms),
                                              NewTransport(Rank(1), ledger, silence_ms)};
};

INSTANTIATE_TYPED_TEST_SUITE_P(Ucx, TransportConformance, UcxPair);

TEST(UcxTransport, AnAddressThatIsNoneIsRefused) {
  MemoryLedger ledger;
  const auto transport = NewTransport(Rank(0), ledger);
  EXPECT_FALSE(transport->Connect(Rank(1), "").ok());
}

TEST(UcxTransport, RanksOfAHostShareMemory) {
  UcxPair pair;
  EXPECT_EQ(pair.at(0).LaneTo(Rank(1)), Lane::kSharedMemory)
      << dynamic_cast<UcxTransport&>(pair.at(0)).DeviceTo(Rank(1));
}

TEST(UcxTransport, LeavesNoSharedMemoryBehind) {
  const auto before = SharedMemoryNames();
  { UcxPair pair; }
  EXPECT_THAT(LeftSince(before), ::testing::IsEmpty());
}

// A foreign process that knows the address and speaks UCX, but not the truth.
class Stranger {
 public:
  explicit Stranger(const std::string& address) {
    auto worker = UcxWorker::Create();
    CHECK(worker.ok(), "{}", worker.error().message);
    worker_ = *std::move(worker);
    const auto parsed = ParseAddress(address);
    CHECK(parsed.ok());
    const auto ignore = [](void*, ucp_ep_h, ucs_status_t) {};
    auto endpoint = worker_.Connect(parsed->worker, ignore, nullptr);
    CHECK(endpoint.ok(), "{}", endpoint.error().message);
    endpoint_ = *endpoint;
  }

  void Say(FrameId id, std::string_view header, std::string_view data, uint32_t flags,
           Transport& victim) {
    ucp_request_param_t param{};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = flags;
    const ucs_status_ptr_t request =
        ucp_am_send_nbx(endpoint_, static_cast<unsigned>(id), header.data(), header.size(),
                        data.data(), data.size(), &param);
    const auto progress = [&] {
      ucp_worker_progress(worker_.get());
      victim.Progress();
    };
    if (UCS_PTR_IS_PTR(request)) {
      CHECK(testing::DrivenUntil(
          [&] { return ucp_request_check_status(request) != UCS_INPROGRESS; }, progress));
      ucp_request_free(request);
    }
    for (int pass = 0; pass < 20; ++pass) progress();
  }

 private:
  UcxWorker worker_{};
  ucp_ep_h endpoint_ = nullptr;
};

std::string BytesOf(const auto& plain) {
  return {reinterpret_cast<const char*>(&plain), sizeof(plain)};
}

// As rank 1 would say it, with the nonce that its address tells everybody.
Envelope EnvelopeOfRank1(const Transport& rank1, uint64_t sequence) {
  Envelope envelope;
  envelope.source_rank = 1;
  envelope.channel = 5;
  envelope.sequence = sequence;
  envelope.payload_checksum = PayloadChecksum({});
  envelope.nonce = ParseAddress(rank1.LocalAddress())->nonce;
  return envelope;
}

class HostileFrames : public ::testing::Test {
 protected:
  HostileFrames() {
    pair_.at(0).SetHandlers({.on_message = [this](Delivery d) { held_.push_back(std::move(d)); },
                             .on_peer_down = [this](Rank, Error) { ++downs_; },
                             .on_credit = {}});
    CHECK(pair_.at(0).PostSlots(Rank(1), 5, 2, 100'000).ok());
  }
  int64_t dropped() { return dynamic_cast<UcxTransport&>(pair_.at(0)).dropped(); }
  void Say(FrameId id, std::string_view header, std::string_view data, uint32_t flags = 0) {
    stranger_.Say(id, header, data, flags, pair_.at(0));
  }

  bool Until(const std::function<bool()>& enough) {
    return testing::DrivenUntil(enough, [this] {
      pair_.at(1).Progress();
      pair_.at(0).Progress();
    });
  }

  UcxPair pair_{/*silence_ms=*/600'000};
  std::vector<Delivery> held_{};
  int downs_ = 0;
  Stranger stranger_{pair_.at(0).LocalAddress()};
};

TEST_F(HostileFrames, NoiseIsDroppedAndCounted) {
  std::mt19937 random(3);
  constexpr int kFrames = 600;
  for (int i = 0; i < kFrames; ++i) {
    const auto id = static_cast<FrameId>(1 + random() % 3);
    std::string header(random() % 300, '\0');
    std::string data(random() % (i % 10 == 0 ? 100'000 : 400), '\0');
    for (char& byte : header) byte = static_cast<char>(random());
    for (char& byte : data) byte = static_cast<char>(random());
    const uint32_t flags = random() % 2 == 0 ? 0 : UCP_AM_SEND_FLAG_EAGER;
    Say(id, header, data, flags);
  }
  EXPECT_EQ(dropped(), kFrames);
  EXPECT_TRUE(held_.empty());
  EXPECT_EQ(downs_, 0);
  ASSERT_TRUE(pair_.at(1).Send(Rank(0), {}, {}).ok());
  EXPECT_TRUE(Until([&] { return !held_.empty(); }));
  EXPECT_EQ(held_.size(), 1u);  // the link of the honest peer stays
}

TEST_F(HostileFrames, BulkWithoutAFreeSlotIsDropped) {
  const auto bulk = [&](uint64_t sequence, uint32_t slot, size_t says, size_t sends) {
    Envelope envelope = EnvelopeOfRank1(pair_.at(1), sequence);
    envelope.num_bulk = 1;
    envelope.bulk_bytes = says;
    envelope.slot = slot;
    Say(FrameId::kBulk, BytesOf(envelope), std::string(sends, 'x'));
  };
  bulk(1, 0, 50'000, 50'000);
  ASSERT_EQ(held_.size(), 1u);  // as rank 1 would: this is what the others spoil
  EXPECT_EQ(dropped(), 0);
  bulk(2, 0, 10, 10);            // in use
  bulk(2, 2, 10, 10);            // no such slot
  bulk(2, 0xffffffff, 10, 10);   // no such slot
  bulk(2, 1, 10, 20);            // longer than it says
  bulk(2, 1, 90'000, 20);        // shorter than it says
  bulk(2, 1, 100'001, 100'001);  // longer than the slot
  bulk(1, 1, 10, 10);            // said already
  EXPECT_EQ(dropped(), 7);
  EXPECT_EQ(held_.size(), 1u);
}

// A message may come before its rank is connected, so 1,024 of invented ranks are kept and no more;
// bulk, which nobody posted slots for, never is.
TEST_F(HostileFrames, InventedRanksAndChannelsLeaveLittleBehind) {
  constexpr int kInvented = 1500;
  constexpr int kKept = 1024;
  const auto say = [&](uint32_t rank, uint16_t channel, uint64_t sequence, uint16_t num_bulk) {
    Envelope envelope = EnvelopeOfRank1(pair_.at(1), sequence);
    envelope.source_rank = rank;
    envelope.channel = channel;
    envelope.num_bulk = num_bulk;
    const FrameId id = num_bulk > 0 ? FrameId::kBulk : FrameId::kMessage;
    num_bulk > 0 ? Say(id, BytesOf(envelope), "") : Say(id, "", BytesOf(envelope));
  };
  for (int i = 0; i < 10; ++i) {
    say(100 + i, 5, 1, 1);  // bulk of a rank that is not there
    say(100 + i, 5, 0, 0);  // no message has number 0
    say(1, 50 + i, 1, 1);   // bulk for a channel without slots
    say(1, 50 + i, 0, 0);
  }
  EXPECT_EQ(dropped(), 40);
  for (int i = 0; i < kInvented; ++i) say(100 + i, 5, 1, 0);
  EXPECT_EQ(dropped(), 40 + kInvented - kKept);
  EXPECT_TRUE(held_.empty());
  ASSERT_TRUE(pair_.at(1).Send(Rank(0), {}, {}).ok());
  EXPECT_TRUE(Until([&] { return !held_.empty(); }));
  EXPECT_EQ(held_.size(), 1u) << "a rank that is connected is heard";
  EXPECT_EQ(downs_, 0);
}

TEST_F(HostileFrames, AnotherLifeOfARankIsNotHeard) {
  Envelope envelope = EnvelopeOfRank1(pair_.at(1), 1);
  envelope.nonce ^= 1;
  Say(FrameId::kMessage, "", BytesOf(envelope));
  EXPECT_EQ(dropped(), 1);
  EXPECT_TRUE(held_.empty());
}

TEST_F(HostileFrames, SlotsThatNobodyMayTouchAreNotMapped) {
  LinkFrame slots{.kind = LinkFrameKind::kSlots,
                  .channel = 5,
                  .source_rank = 1,
                  .nonce = ParseAddress(pair_.at(1).LocalAddress())->nonce,
                  .generation = 1,
                  .num_slots = 4,
                  .slot_bytes = 4096,
                  .stride_bytes = 4096,
                  .process_id = getpid()};
  FILE* file = std::tmpfile();  // could shrink at any time
  slots.descriptor = fileno(file);
  Say(FrameId::kLink, "", BytesOf(slots));
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  slots.descriptor = pipe_ends[0];
  Say(FrameId::kLink, "", BytesOf(slots));
  slots.descriptor = 1'000'000;
  Say(FrameId::kLink, "", BytesOf(slots));
  MemoryLedger ledger;
  const auto region = SharedRegion::Create(4096, &ledger);
  ASSERT_TRUE(region.ok());
  slots.descriptor = region->descriptor();  // a quarter of what it says
  Say(FrameId::kLink, "", BytesOf(slots));
  EXPECT_EQ(dropped(), 4);
  std::fclose(file);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
}

TEST(UcxTransport, MessagesBeforeConnectWait) {  // U4
  MemoryLedger ledger;
  const auto early = NewTransport(Rank(0), ledger);
  const auto late = NewTransport(Rank(1), ledger);
  std::vector<std::string> texts;
  late->SetHandlers({.on_message =
                         [&](Delivery d) {
                           texts.emplace_back(reinterpret_cast<const char*>(d.payload.data()),
                                              d.payload.size());
                         },
                     .on_peer_down = {},
                     .on_credit = {}});
  ASSERT_TRUE(early->Connect(Rank(1), late->LocalAddress()).ok());
  for (const std::string text : {"a", "b", "c"}) {
    ASSERT_TRUE(early->Send(Rank(1), {}, std::as_bytes(std::span(text))).ok());
  }
  for (int i = 0; i < 10'000; ++i) {
    early->Progress();
    late->Progress();
  }
  EXPECT_TRUE(texts.empty());
  ASSERT_TRUE(late->Connect(Rank(0), early->LocalAddress()).ok());
  EXPECT_TRUE(testing::DrivenUntil([&] { return texts.size() == 3; },
                                   [&] {
                                     early->Progress();
                                     late->Progress();
                                   }));
  EXPECT_EQ(texts, (std::vector<std::string>{"a", "b", "c"}));
}

TEST(UcxTransport, SettingsThatLeaveNoWayAreIgnoredAndNamed) {
  for (const char* transports : {"rc,ud", "self", "no_such_transport,self"}) {
    ASSERT_EQ(setenv("UCX_TLS", transports, 1), 0);
    MemoryLedger ledger;
    std::string warning;
    UcxTransportOptions options{.self = Rank(0)};
    options.warn = [&](const std::string& text) { warning += text; };
    auto made = UcxTransport::Create(options, ledger);
    ASSERT_TRUE(made.ok()) << made.error().message;
    EXPECT_THAT(warning, ::testing::StartsWith(std::string("UCX_TLS=") + transports +
                                               " of the environment: no way from"));
  }
}

TEST(UcxTransport, SettingsThatServeAreKept) {
  ASSERT_EQ(setenv("UCX_TLS", "tcp,self", 1), 0);
  MemoryLedger ledger;
  std::string warning;
  UcxTransportOptions options{.self = Rank(0)};
  options.warn = [&](const std::string& text) { warning += text; };
  EXPECT_TRUE(UcxTransport::Create(options, ledger).ok());
  EXPECT_EQ(warning, "");
  EXPECT_STREQ(getenv("UCX_TLS"), "tcp,self");
  unsetenv("UCX_TLS");
}

}  // namespace
}  // namespace troupe
