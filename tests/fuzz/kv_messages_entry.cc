#include <fmt/format.h>

#include <array>
#include <cstring>
#include <deque>
#include <optional>
#include <vector>

#include "actors/plan/sequence_layout.h"
#include "actors/rank_ring.h"
#include "kernels/tensor_view.h"
#include "tests/fuzz/byte_reader.h"
#include "tests/fuzz/entry_points.h"
#include "tests/runtime/collective/router_world.h"

namespace troupe::testing {
namespace {

constexpr size_t kBlockBytes = 64;

TensorDescriptor Block() {
  return {.dtype = static_cast<uint8_t>(DType::kFloat32),
          .rank = 2,
          .shape = {4, 4, 0, 0},
          .num_bytes = kBlockBytes};
}

// Rank 0 of a ring of three with a forward and a backward of layer 0 open, whose passes go on as
// blocks come, and whatever comes from outside.
class Member {
 public:
  Member() {
    for (const int peer : {1, 2}) {
      CHECK(transport_->Connect(Rank(peer), fmt::format("sim:{}", peer)).ok());
    }
    scheduler_.SetOnDown([](const Down& down) { ExpectWords(down.error.message); });
    const Status opened = ring_->Open();
    CHECK(opened.ok(), "{}", opened.error().message);
    for (Round& round : rounds_) ExpectNext(round);
    Run();
  }
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;
  ~Member() {
    Run();
    ring_.reset();
    CHECK(num_released_ == num_fed_, "{} of {} slots are free again", num_released_, num_fed_);
  }

  void Deliver(uint64_t type_id, uint16_t channel, int32_t from, std::span<const std::byte> payload,
               size_t bulk_bytes) {
    Envelope envelope;
    envelope.type_id = type_id;
    envelope.job = envelope.epoch = 1;
    envelope.channel = channel;
    envelope.source_rank = from;
    envelope.destination_actor = kRingAttentionIndex;
    envelope.num_bulk = 1;
    envelope.bulk_bytes = bulk_bytes;
    ++num_fed_;
    // Of its own size, so that a sanitizer sees what is read beyond.
    auto& bytes = slots_.emplace_back(bulk_bytes);
    router_.Deliver({.envelope = envelope,
                     .payload = payload,
                     .bulk = Bulk(std::span(bytes), [this] { ++num_released_; })});
    Run();
    for (Round& round : rounds_) GoOn(round);
    Run();
  }

 private:
  // One kind's blocks of a pass.
  struct Round {
    KvHop hop{};  // the last expected
    int last = 0;
    bool over = false;
    std::deque<KvArrival> arrivals{};
    std::deque<KvDeparture> departures{};
  };

  static void ExpectWords(const std::string& words) {
    CHECK(words.starts_with("rank 0, ring attention: ") && words.size() < 1000, "{}", words);
    for (const char c : words) CHECK(c >= ' ' && c <= '~', "{}", words);
  }
  void Run() { scheduler_.RunUntilIdle(); }
  void ExpectNext(Round& round) {
    ++round.hop.hop;
    round.hop.origin = OriginAfter(3, 0, round.hop.hop);
    ring_->ring()->Expect(round.hop, kBlockBytes, round.arrivals.emplace_back());
  }
  // Uses the block that has come, sends it on from its slot and lets it go.
  void GoOn(Round& round) {
    const KvArrival& arrival = round.arrivals.back();
    if (round.over || !arrival.here.happened()) return;
    if (!arrival.status.ok()) {
      ExpectWords(arrival.status.error().message);
      round.over = true;
      return;
    }
    CHECK(arrival.block.size() == kBlockBytes, "a block of {} bytes", arrival.block.size());
    std::memset(arrival.block.data(), 1, kBlockBytes);
    const KvHop here = round.hop;
    round.over = here.hop == round.last;
    if (!round.over) {
      KvHop onward = here;
      ++onward.hop;
      ring_->ring()->Send(onward, arrival.block, round.departures.emplace_back());
      ExpectNext(round);
    }
    ring_->ring()->Let(here, 0);
  }

  std::deque<std::vector<std::byte>> slots_{};
  int num_fed_ = 0;
  int num_released_ = 0;
  std::array<Round, kNumKvChannels> rounds_ = {
      Round{.hop = {.step = 0, .microbatch = 0, .hop = 0}, .last = 2},
      Round{.hop = {.phase = KvPhase::kBackward, .step = 0, .microbatch = 0, .hop = 0}, .last = 2},
      Round{.hop = {.kind = KvKind::kGradients,
                    .phase = KvPhase::kBackward,
                    .step = 0,
                    .microbatch = 0,
                    .hop = 0},
            .last = 3}};
  MemoryLedger ledger_{};
  SimWorldNetwork network_{};
  std::unique_ptr<Transport> transport_ = network_.NewTransport(Rank(0));
  Scheduler scheduler_{{.clock = &network_.clock(), .spin_us = 0, .trace_handlers = false}};
  RankRouter router_{
      scheduler_, *transport_, {.self = Rank(0), .job = JobId(1), .epoch = Epoch(1)}};
  std::unique_ptr<RankRing> ring_ = std::make_unique<RankRing>(
      router_,
      RankRingOptions{
          .ranks = {Rank(0), Rank(1), Rank(2)}, .keys_values = Block(), .gradients = Block()},
      RankGroups::Deadlines{}, ledger_, nullptr);
};

}  // namespace

void FuzzKvMessages(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  Member member;
  while (!reader.empty()) {
    const size_t what = reader.Number(1);
    const auto from = static_cast<int32_t>(what % 4);
    const auto channel = static_cast<uint16_t>(kKvChannel + (what >> 3) % 4);
    const size_t bulk_bytes = reader.Number(1) % (2 * kBlockBytes);
    const bool gradient = (what & 4) != 0;
    member.Deliver(gradient ? WireTypeId<KvGradientBlock>() : WireTypeId<KvBlock>(), channel, from,
                   reader.Next(sizeof(KvBlock)), bulk_bytes);
  }
}

}  // namespace troupe::testing
