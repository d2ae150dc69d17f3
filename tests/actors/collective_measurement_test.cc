// What `troupe bench collectives` counts as wrong: nothing of a right result, and one element of
// any wrong one.
#include "actors/collective_measurement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "tests/runtime/collective/router_world.h"

namespace troupe {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

using Spoil = std::function<void(unsigned char* result)>;

void SpoilOneElement(unsigned char* result) { result[7] ^= 0x40; }

constexpr int64_t kRunBytes = 256 << 10;
void ExchangeRuns(unsigned char* result) {
  std::swap_ranges(result, result + kRunBytes, result + kRunBytes);
}

// Hands operations on, and spoils what the last of them is left with.
class SpoilingGroup : public Group {
 public:
  SpoilingGroup(Group& group, Spoil spoil, int after)
      : Group(group.spec(), group.elements()),
        group_(group),
        spoil_(std::move(spoil)),
        after_(after) {}
  Task<Status> Run(GroupOperation operation) override {
    CO_RETURN_IF_ERROR(co_await group_.Run(operation));
    if (operation.kind == GroupOperationKind::kBarrier || --after_ > 0) co_return Status{};
    spoil_(static_cast<unsigned char*>(operation.output.data));
    co_return Status{};
  }

 private:
  Group& group_;
  const Spoil spoil_;
  int after_;
};

// The measurement at each of `size` members, at the last through a group that spoils.
std::vector<int64_t> WrongOf(const MeasuredOperation& what, int size, const Spoil& spoil = {}) {
  RouterWorld<InprocWorldNetwork> world(size);
  MemoryLedger ledger;
  std::vector<std::unique_ptr<Group>> groups;
  std::vector<std::unique_ptr<CollectiveMeasurement>> measurements;
  std::vector<std::unique_ptr<StreamScope>> scopes;
  GroupSpec spec{.id = GroupId(1), .name = "g"};
  for (int rank = 0; rank < size; ++rank) spec.ranks.emplace_back(rank);
  for (int rank = 0; rank < size; ++rank) {
    spec.self = Rank(rank);
    groups.push_back(world.Open(spec, 16));
    scopes.push_back(std::make_unique<StreamScope>(world.stream(rank)));
  }
  SpoilingGroup spoiling(*groups.back(), spoil, what.warmup + what.iterations + 1);
  std::vector<Status> ended;
  for (int rank = 0; rank < size; ++rank) {
    Group& group = spoil && rank == size - 1 ? spoiling : *groups[static_cast<size_t>(rank)];
    auto made = CollectiveMeasurement::Make(group, what, ledger, SystemClock());
    CHECK(made.ok(), "{}", made.error().message);
    measurements.push_back(*std::move(made));
    world.stream(rank).LaunchTask(
        *scopes[static_cast<size_t>(rank)], measurements.back()->Run(),
        [&ended](const WorkTime&, Status status) { ended.push_back(std::move(status)); });
  }
  EXPECT_TRUE(world.Until([&] { return std::ssize(ended) == size; }));
  std::vector<int64_t> wrong;
  for (const Status& status : ended) EXPECT_TRUE(status.ok()) << status.error().message;
  for (const auto& measurement : measurements) {
    EXPECT_GT(measurement->mean_us(), 0);
    wrong.push_back(measurement->num_wrong());
  }
  scopes.clear();
  return wrong;
}

// Every operation in every form that it has.
std::vector<MeasuredOperation> Forms(DType dtype, int64_t count) {
  std::vector<MeasuredOperation> forms;
  for (const auto name :
       {"all-reduce", "reduce-scatter", "all-gather", "all-to-all", "broadcast", "reduce"}) {
    const GroupOperationKind kind = *MeasurableOperation(name);
    for (const bool in_place : {true, false}) {
      if (in_place && kind == GroupOperationKind::kAllToAll) continue;
      if (!in_place &&
          (kind == GroupOperationKind::kAllReduce || kind == GroupOperationKind::kBroadcast)) {
        continue;
      }
      forms.push_back({.kind = kind,
                       .dtype = dtype,
                       .count = count,
                       .in_place = in_place,
                       .private_buffers = in_place,
                       .warmup = 1,
                       .iterations = 2});
    }
  }
  return forms;
}

TEST(CollectiveMeasurement, NothingIsWrongOfARightResult) {
  for (const DType dtype : testing::kDTypes) {
    for (const int size : {2, 3}) {
      for (const auto& what : Forms(dtype, 60 * size)) {
        EXPECT_THAT(WrongOf(what, size), Each(0))
            << GroupOperationName(what.kind) << " of " << DTypeName(dtype);
      }
    }
  }
}

TEST(CollectiveMeasurement, AnElementThatIsSpoiledIsCounted) {
  for (auto what : Forms(DType::kFloat32, 96)) {
    const std::vector<int64_t> wrong = WrongOf(what, 3, SpoilOneElement);
    // Only the root of a reduce has a result.
    const bool has_result = what.kind != GroupOperationKind::kReduce;
    EXPECT_EQ(wrong, (std::vector<int64_t>{0, 0, has_result ? 1 : 0}))
        << GroupOperationName(what.kind) << (what.in_place ? " in place" : " out of place");
  }
}

TEST(CollectiveMeasurement, ExchangedRunsOfAResultAreCounted) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
    const int64_t count = 2 * kRunBytes / DTypeBytes(dtype);
    for (const char* name : {"all-reduce", "broadcast", "all-gather"}) {
      const std::vector<int64_t> wrong = WrongOf(
          {.kind = *MeasurableOperation(name), .dtype = dtype, .count = count}, 2, ExchangeRuns);
      EXPECT_EQ(wrong[0], 0) << name;
      EXPECT_GT(wrong[1], count / 2) << name;
    }
  }
}

TEST(CollectiveMeasurement, BuffersThatCannotBeSharedAreRefused) {
  RouterWorld<InprocWorldNetwork> world(2);
  MemoryLedger ledger;
  const auto group =
      world.Open({.id = GroupId(1), .name = "g", .ranks = {Rank(0), Rank(1)}, .self = Rank(0)}, 16);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  const auto make = [&](bool private_buffers) {
    ::setrlimit(RLIMIT_NOFILE, &none);  // memory to share takes a descriptor
    auto made = CollectiveMeasurement::Make(
        *group, {.count = 8, .private_buffers = private_buffers}, ledger, SystemClock());
    ::setrlimit(RLIMIT_NOFILE, &before);
    return made;
  };
  EXPECT_TRUE(make(/*private_buffers=*/true).ok());
  const auto shared = make(/*private_buffers=*/false);
  ASSERT_FALSE(shared.ok());
  EXPECT_EQ(shared.error().code, ErrorCode::kResourceExhausted);
  EXPECT_THAT(shared.error().message, HasSubstr("rank 0: the system shares no buffer of 32 bytes"));
}

TEST(CollectiveMeasurement, AnOperationThatTheGroupCannotRunIsRefused) {
  RouterWorld<InprocWorldNetwork> world(2);
  MemoryLedger ledger;
  const auto group =
      world.Open({.id = GroupId(1), .name = "g", .ranks = {Rank(0), Rank(1)}, .self = Rank(0)}, 16);
  const auto refusal = [&](const MeasuredOperation& what) {
    const auto made = CollectiveMeasurement::Make(*group, what, ledger, SystemClock());
    return made.ok() ? "" : made.error().message;
  };
  const auto kinds = [](auto... kind) { return std::vector{kind...}; };
  for (const auto kind : kinds(GroupOperationKind::kAllGather, GroupOperationKind::kAllToAll)) {
    EXPECT_THAT(refusal({.kind = kind, .count = 7}), HasSubstr("of 7 elements"));
  }
  EXPECT_THAT(refusal({.count = 0}), HasSubstr("is not measured"));
  EXPECT_THAT(refusal({.count = 8, .in_place = false}), HasSubstr("out of place"));
  EXPECT_FALSE(MeasurableOperation("barrier"));
  EXPECT_FALSE(MeasurableDType("float8"));
}

}  // namespace
}  // namespace troupe
