// Units whose weights come and go: asked for ahead, ready when they have come, dropped when nobody
// has or keeps them.
#include "actors/model/unit_residency.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>

#include "tests/support/small_model.h"

namespace troupe {
namespace {

using testing::SmallModel;

// Remembers what was asked for; the test lets it come.
class SlowRows final : public RowSource {
 public:
  void Gather(int row, std::span<std::byte> whole, RowArrival& arrival) override {
    asked.push_back(row);
    open.push_back({row, whole, &arrival});
  }
  void Publish(int, std::span<const std::byte>, int64_t) override {}

  void Come(int row, Status status = {}) {
    const auto found = std::ranges::find(open, row, &Open::row);
    CHECK(found != open.end(), "row {} was not asked for", row);
    std::ranges::fill(found->whole, std::byte{0});
    found->arrival->status = std::move(status);
    RowArrival* arrival = found->arrival;
    open.erase(found);
    arrival->here.Set();
  }

  struct Open {
    int row = 0;
    std::span<std::byte> whole{};
    RowArrival* arrival = nullptr;
  };
  std::vector<int> asked{};
  std::vector<Open> open{};
};

// The units of a model of two layers, whose head may be tied: embedding 0, layers 1 and 2, head 3.
struct UnitResidencyTest : ::testing::Test {
  void Build(bool tied) {
    model.config.num_hidden_layers = 2;
    model.config.tie_word_embeddings = tied;
    table.emplace(model.Spec());
    parameters.emplace(
        StageParameters::Options{
            .shards = {.owner = 0, .num_owners = 2}, .whole_masters = false, .gathered = true},
        *table, StageLayout{.num_layers = 2}, ledger);
    std::vector<UnitResidency::Unit> units;
    for (int unit = 0; unit < 4; ++unit) {
      std::vector<int> own;
      for (const int index : table->OfUnit(unit)) {
        if (table->OwnerOf(index) == unit) own.push_back(index);
      }
      weights.push_back(
          std::make_unique<UnitWeights>(UnitWeights::Options{.name = "unit " + std::to_string(unit),
                                                             .parameters = table->OfUnit(unit),
                                                             .own_parameters = own,
                                                             .gathered = &memory},
                                        *parameters, ledger));
      units.push_back(
          {.weights = weights.back().get(), .rows = {unit}, .also = tied && unit == 3 ? 0 : -1});
    }
    residency.emplace(std::move(units), *parameters);
    residency->Meet(rows);
  }

  // Runs a task to its end; `in_between` when it waits.
  Status Run(
      Task<Status> task, const std::function<void()>& in_between = [] {}) {
    std::optional<Status> end;
    stream.LaunchTask(scope, std::move(task),
                      [&end](const WorkTime&, Status status) { end = std::move(status); });
    scheduler.RunUntilIdle();
    if (!end) {
      in_between();
      scheduler.RunUntilIdle();
    }
    CHECK(end.has_value(), "it does not end");
    return *end;
  }
  // What is gathered ahead is asked for behind the unit.
  Status Have(int position, std::vector<int> ahead, const std::function<void()>& in_between) {
    return Run(GatherAndHave(position, std::move(ahead)), in_between);
  }
  Task<Status> GatherAndHave(int position, std::vector<int> ahead) {
    ahead.insert(ahead.begin(), position);
    co_await residency->Gather(ahead, {});
    co_return co_await residency->Have({}, position);
  }
  Task<Status> KeepAll() {
    co_await residency->KeepAll({});
    co_return Status{};
  }
  WeightsState StateOf(int position) const {
    return weights[static_cast<size_t>(position)]->state();
  }
  int64_t GatheredBytes() const {
    const MemoryLedger::Usage usage = ledger.Snapshot();
    constexpr auto kComm = static_cast<size_t>(MemoryTag::kComm);
    return usage.current_bytes[kComm] - usage.idle_bytes[kComm];
  }

  SmallModel model;
  Scheduler scheduler{{.spin_us = 0}};
  InlineStream stream{scheduler};
  StreamScope scope{stream};
  MemoryLedger ledger;
  GatheredMemory memory{ledger, {}};
  std::optional<ParameterTable> table;
  std::optional<StageParameters> parameters;
  std::vector<std::unique_ptr<UnitWeights>> weights;
  SlowRows rows;
  std::optional<UnitResidency> residency;
};

using After = UnitResidency::After;

TEST_F(UnitResidencyTest, WhatComesNextIsAskedForBeforeTheWait) {
  Build(/*tied=*/false);
  ASSERT_TRUE(Have(0, {1}, [&] {
                EXPECT_EQ(rows.asked, (std::vector<int>{0, 1}));
                rows.Come(0);
              }).ok());
  EXPECT_EQ(StateOf(0), WeightsState::kReady);
  EXPECT_EQ(StateOf(1), WeightsState::kGathering);
  residency->Release(0, After::kDrop);
  EXPECT_EQ(StateOf(0), WeightsState::kAbsent);
  rows.Come(1);  // while nobody waits
  ASSERT_TRUE(Have(1, {2}, [&] { FAIL() << "it was here"; }).ok());
  EXPECT_EQ(rows.asked, (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(residency->num_gathers(), 3);
}

TEST_F(UnitResidencyTest, DroppedUnitsLeaveTheirMemoryToTheNext) {
  Build(/*tied=*/false);
  EXPECT_EQ(GatheredBytes(), 0);
  ASSERT_TRUE(Have(1, {}, [&] { rows.Come(1); }).ok());
  int64_t elements = 0;
  for (const int index : table->OfUnit(1)) elements += (*table)[index].num_elements();
  EXPECT_EQ(GatheredBytes(), elements * 4);
  residency->Release(1, After::kDrop);
  EXPECT_EQ(GatheredBytes(), 0);
}

TEST_F(UnitResidencyTest, KeptUnitsStayForTheBackwardsOfAllWhoKeepThem) {
  Build(/*tied=*/false);
  ASSERT_TRUE(Have(2, {}, [&] { rows.Come(2); }).ok());
  residency->Release(2, After::kKeep);
  ASSERT_TRUE(Have(2, {}, [] { FAIL() << "it was kept"; }).ok());
  residency->Release(2, After::kKeep);
  for (const WeightsState then : {WeightsState::kReady, WeightsState::kAbsent}) {
    ASSERT_TRUE(Have(2, {}, [] { FAIL() << "it was kept"; }).ok());
    residency->Release(2, After::kKeptDrop);
    EXPECT_EQ(StateOf(2), then);
  }
  EXPECT_EQ(residency->num_gathers(), 1);
}

TEST_F(UnitResidencyTest, KeptAllTogetherTheyStayUntilTheEnd) {
  Build(/*tied=*/true);
  ASSERT_TRUE(Run(KeepAll()).ok());
  EXPECT_EQ(rows.asked, (std::vector<int>{0, 1, 2, 3}));
  for (const int row : {0, 1, 3}) rows.Come(row);
  for (const int position : {0, 1, 3, 1}) {
    ASSERT_TRUE(Have(position, {2}, [] { FAIL() << "it was here"; }).ok());
    residency->Release(position, After::kDrop);
    EXPECT_EQ(StateOf(position), WeightsState::kReady);
  }
  // What no pass has had is waited for.
  ASSERT_TRUE(Run(residency->EndKeepingAll(), [&] { rows.Come(2); }).ok());
  for (int position = 0; position < 4; ++position) {
    EXPECT_EQ(StateOf(position), WeightsState::kAbsent);
  }
  EXPECT_EQ(residency->num_gathers(), 4);
  EXPECT_EQ(GatheredBytes(), 0);
}

TEST_F(UnitResidencyTest, ATiedHeadHasTheEmbeddingToo) {
  Build(/*tied=*/true);
  ASSERT_TRUE(Have(3, {}, [&] {
                EXPECT_EQ(rows.asked, (std::vector<int>{3, 0}));
                rows.Come(3);
                rows.Come(0);
              }).ok());
  EXPECT_EQ(StateOf(0), WeightsState::kReady);
  residency->Release(3, After::kDrop);
  EXPECT_EQ(StateOf(0), WeightsState::kAbsent);
  EXPECT_EQ(StateOf(3), WeightsState::kAbsent);
}

TEST_F(UnitResidencyTest, WhoCannotComeIsAnError) {
  Build(/*tied=*/false);
  const Status status =
      Have(1, {}, [&] { rows.Come(1, MakeError(ErrorCode::kPeerDown, "rank 3 is lost")); });
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message, "rank 3 is lost");
}

}  // namespace
}  // namespace troupe
