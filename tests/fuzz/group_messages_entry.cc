#include <fmt/format.h>

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "tests/fuzz/byte_reader.h"
#include "tests/fuzz/entry_points.h"
#include "tests/runtime/collective/router_world.h"

namespace troupe::testing {
namespace {

constexpr size_t kBulkBytes = 1000;  // a slot's

// Rank 0 of three in an operation of 300 int32, direct or along a ring or a chain, and whatever
// comes from outside.
class Member {
 public:
  explicit Member(SumAlgorithm sums) : member_(network_, Rank(0)) {
    for (const int peer : {1, 2}) {
      CHECK(member_.transport->Connect(Rank(peer), fmt::format("sim:{}", peer)).ok());
    }
    auto group = member_.groups.Open({.id = GroupId(5),
                                      .name = "g",
                                      .ranks = {Rank(0), Rank(1), Rank(2)},
                                      .self = Rank(0),
                                      .sums = sums},
                                     16);
    CHECK(group.ok(), "{}", group.error().message);
    group_ = *std::move(group);
    scope_.emplace(*member_.stream);
  }
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;
  ~Member() {
    scope_.reset();
    group_.reset();
    Run();
    CHECK(num_released_ == num_fed_, "{} of {} slots are free again", num_released_, num_fed_);
  }

  // `number` says which operation; the last one is none.
  void Begin(size_t number) {
    const auto kind = static_cast<GroupOperationKind>(number % (kNumGroupOperationKinds + 1));
    if (static_cast<int>(kind) == kNumGroupOperationKinds) return;
    member_.stream->LaunchTask(*scope_, Operation(kind), [this](const WorkTime&, Status status) {
      ended_ = std::move(status);
    });
    Run();
  }
  void Deliver(uint64_t type_id, int32_t from, std::span<const std::byte> payload,
               std::optional<size_t> bulk_bytes) {
    Envelope envelope;
    envelope.type_id = type_id;
    envelope.job = envelope.epoch = 1;
    envelope.source_rank = from;
    envelope.destination_actor = 7;
    Bulk bulk;
    if (bulk_bytes) {
      envelope.num_bulk = 1;
      envelope.bulk_bytes = *bulk_bytes;
      ++num_fed_;
      bulk = Bulk(std::span(bulk_).first(*bulk_bytes), [this] { ++num_released_; });
    }
    member_.router.Deliver({.envelope = envelope, .payload = payload, .bulk = std::move(bulk)});
    Run();
  }
  const std::optional<Status>& ended() const { return ended_; }

 private:
  Task<Status> Operation(GroupOperationKind kind) {
    switch (kind) {
      case GroupOperationKind::kAllReduce:
        co_return co_await group_->AllReduce(Of(all_));
      case GroupOperationKind::kReduceScatter:
        co_return co_await group_->ReduceScatter(Of(all_), Of(part_));
      case GroupOperationKind::kAllGather:
        co_return co_await group_->AllGather(Of(part_), Of(all_));
      case GroupOperationKind::kAllToAll:
        co_return co_await group_->AllToAll(Of(all_), counts_, Of(other_), counts_);
      case GroupOperationKind::kBroadcast:
        co_return co_await group_->Broadcast(Of(all_), 1);
      case GroupOperationKind::kReduce:
        co_return co_await group_->Reduce(Of(all_), Of(other_), 0);
      case GroupOperationKind::kShift:
        co_return co_await group_->Shift(Of(all_), Of(other_), 1);
      default:
        co_return co_await group_->Barrier();
    }
  }
  static Elements Of(std::vector<int32_t>& values) {
    return {static_cast<uint8_t>(DType::kInt32), values.data(), std::ssize(values)};
  }
  void Run() { member_.scheduler.RunUntilIdle(); }

  // Of their own size each, so that a sanitizer sees what is written beyond.
  std::vector<int32_t> all_ = std::vector<int32_t>(300);
  std::vector<int32_t> other_ = std::vector<int32_t>(300);
  std::vector<int32_t> part_ = std::vector<int32_t>(100);
  const std::vector<int64_t> counts_ = {100, 100, 100};
  std::array<std::byte, kBulkBytes> bulk_{};
  int num_fed_ = 0;
  int num_released_ = 0;
  SimWorldNetwork network_{};
  RouterMember<SimWorldNetwork> member_;
  std::unique_ptr<Group> group_{};
  std::optional<StreamScope> scope_{};
  std::optional<Status> ended_{};
};

}  // namespace

void FuzzGroupMessages(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  constexpr size_t kNumOperations = kNumGroupOperationKinds + 1;
  const size_t operation = reader.Number(1);
  Member member(static_cast<SumAlgorithm>(operation / kNumOperations % 3));
  member.Begin(operation % kNumOperations);
  bool any_fault = false;
  while (!reader.empty()) {
    const size_t what = reader.Number(1);
    const auto from = static_cast<int32_t>(what % 4);
    const bool is_fault = (what & 4) != 0;
    any_fault |= is_fault;
    if (is_fault) {
      member.Deliver(WireTypeId<GroupFault>(), from, reader.Next(sizeof(GroupFault)), {});
    } else {
      const size_t bulk_bytes = reader.Number(2) % (kBulkBytes + 1);
      member.Deliver(WireTypeId<GroupBlock>(), from, reader.Next(sizeof(GroupBlock)), bulk_bytes);
    }
  }
  if (!member.ended() || member.ended()->ok() || any_fault) return;
  const std::string& words = member.ended()->error().message;
  CHECK(words.starts_with("group g: ") && words.size() < 1000, "{}", words);
  for (const char c : words) CHECK(c >= ' ' && c <= '~', "{}", words);
}

}  // namespace troupe::testing
