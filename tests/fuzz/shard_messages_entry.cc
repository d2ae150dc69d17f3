#include <fmt/format.h>

#include <array>
#include <cstring>
#include <optional>
#include <vector>

#include "actors/rank_shards.h"
#include "tests/fuzz/byte_reader.h"
#include "tests/fuzz/entry_points.h"
#include "tests/runtime/collective/router_world.h"

namespace troupe::testing {
namespace {

constexpr size_t kBulkBytes = 100;  // a slot's

// Rank 0 of three owners of two rows, both of which it gathers, and whatever comes from outside.
class Owner {
 public:
  Owner() {
    for (const int peer : {1, 2}) {
      CHECK(transport_->Connect(Rank(peer), fmt::format("sim:{}", peer)).ok());
    }
    scheduler_.SetOnDown([](const Down& down) { ExpectWords(down.error.message); });
    const Status opened = shards_.Open();
    CHECK(opened.ok(), "{}", opened.error().message);
    for (size_t row = 0; row < kRows; ++row) {
      const auto number = static_cast<int>(row);
      shards_.OfStage(StageId(0))->Publish(number, own_[row], 1);
      shards_.OfStage(StageId(0))->Gather(number, whole_[row], arrivals_[row]);
    }
    Run();
  }
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;
  ~Owner() {
    Run();
    CHECK(num_released_ == num_fed_, "{} of {} slots are free again", num_released_, num_fed_);
    for (const RowArrival& arrival : arrivals_) {
      if (arrival.here.happened() && !arrival.status.ok()) {
        ExpectWords(arrival.status.error().message);
      }
    }
  }

  void Deliver(uint64_t type_id, uint32_t row, int32_t from, std::span<const std::byte> payload,
               std::optional<size_t> bulk_bytes) {
    Envelope envelope;
    envelope.type_id = type_id;
    envelope.job = envelope.epoch = 1;
    envelope.source_rank = from;
    envelope.destination_actor = kFirstShardIndex + row;
    Bulk bulk;
    if (bulk_bytes) {
      envelope.num_bulk = 1;
      envelope.bulk_bytes = *bulk_bytes;
      ++num_fed_;
      bulk = Bulk(std::span(bulk_).first(*bulk_bytes), [this] { ++num_released_; });
    }
    router_.Deliver({.envelope = envelope, .payload = payload, .bulk = std::move(bulk)});
    Run();
  }

 private:
  static constexpr size_t kRows = 2;

  static void ExpectWords(const std::string& words) {
    CHECK(words.starts_with("rank 0, weights of ") && words.size() < 1000, "{}", words);
    for (const char c : words) CHECK(c >= ' ' && c <= '~', "{}", words);
  }
  void Run() { scheduler_.RunUntilIdle(); }

  // Of their own size each, so that a sanitizer sees what is written beyond.
  std::array<std::vector<std::byte>, kRows> own_ = {std::vector<std::byte>(250), {}};
  std::array<std::vector<std::byte>, kRows> whole_ = {std::vector<std::byte>(450),
                                                      std::vector<std::byte>(100)};
  std::array<RowArrival, kRows> arrivals_{};
  std::array<std::byte, kBulkBytes> bulk_{};
  int num_fed_ = 0;
  int num_released_ = 0;
  SimWorldNetwork network_{};
  std::unique_ptr<Transport> transport_ = network_.NewTransport(Rank(0));
  Scheduler scheduler_{{.clock = &network_.clock(), .spin_us = 0, .trace_handlers = false}};
  RankRouter router_{
      scheduler_, *transport_, {.self = Rank(0), .job = JobId(1), .epoch = Epoch(1)}};
  RankShards shards_{
      router_,
      {.owners = {Rank(0), Rank(1), Rank(2)},
       .stages = {{.stage = StageId(0), .rows = {{"a", {250, 200, 0}}, {"b", {0, 60, 40}}}}},
       .block_bytes = kBulkBytes},
      {},
      nullptr};
};

}  // namespace

void FuzzShardMessages(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  Owner owner;
  while (!reader.empty()) {
    const size_t what = reader.Number(1);
    const auto from = static_cast<int32_t>(what % 4);
    const auto row = static_cast<uint32_t>(what >> 2 & 1);
    if ((what & 8) != 0) {
      const auto wanted = reader.Next(sizeof(ShardWanted));
      owner.Deliver(WireTypeId<ShardWanted>(), row, from, wanted, {});
    } else {
      const size_t bulk_bytes = reader.Number(2) % (kBulkBytes + 1);
      const auto block = reader.Next(sizeof(ShardBlock));
      owner.Deliver(WireTypeId<ShardBlock>(), row, from, block, bulk_bytes);
    }
  }
}

}  // namespace troupe::testing
