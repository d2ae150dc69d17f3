// What every backend of Group must do. A backend instantiates the suite with a world of ranks:
//
//   struct World {
//     static constexpr SumAlgorithm kSums;   // of its groups; may be left out: kOrdered
//     explicit World(int size);
//     Scheduler& scheduler(int rank);
//     Stream& stream(int rank);
//     std::unique_ptr<Group> Open(GroupSpec spec, uint16_t channel);   // at rank spec.self
//     void Stop(int rank);            // it does nothing any more
//     void Kill(int rank);            // and the others learn that it died
//     bool Until(done);               // drives all others until done(), or for far too long
//   };
//   INSTANTIATE_TYPED_TEST_SUITE_P(Name, GroupConformance, World);
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "runtime/actor/stream_wait.h"
#include "tests/runtime/collective/tensor.h"

namespace troupe {

template <typename World>
class GroupConformance : public ::testing::Test {
 protected:
  using Body = std::function<Task<Status>(Group&)>;

  // A group's members, by index, each with a hold on its stream.
  struct Members {
    std::vector<std::unique_ptr<Group>> groups{};
    std::vector<std::unique_ptr<StreamScope>> scopes{};
    Group& at(int index) { return *groups[static_cast<size_t>(index)]; }
  };

  ~GroupConformance() override {
    for (Members& group : opened) group.scopes.clear();
    opened.clear();
  }

  static constexpr SumAlgorithm Sums() {
    if constexpr (requires { World::kSums; }) {
      return World::kSums;
    } else {
      return SumAlgorithm::kOrdered;
    }
  }
  void Start(int size) {
    opened.clear();
    world.reset();
    world = std::make_unique<World>(size);
  }
  Members& Open(const std::string& name, const std::vector<int>& ranks,
                int64_t deadline_ms = 300'000) {
    const auto number = static_cast<uint32_t>(opened.size());
    Members& group = opened.emplace_back();
    GroupSpec spec{.id = GroupId(number),
                   .name = name,
                   .deadline_ms = deadline_ms,
                   .tell_ms = deadline_ms,
                   .sums = Sums()};
    for (const int rank : ranks) spec.ranks.push_back(Rank(rank));
    for (const int rank : ranks) {
      spec.self = Rank(rank);
      group.groups.push_back(world->Open(spec, static_cast<uint16_t>(16 + number)));
      group.scopes.push_back(std::make_unique<StreamScope>(world->stream(rank)));
    }
    return group;
  }
  Members& OpenAll(int64_t deadline_ms = 300'000) {
    std::vector<int> ranks(static_cast<size_t>(world->size()));
    std::iota(ranks.begin(), ranks.end(), 0);
    return Open("all", ranks, deadline_ms);
  }

  // Runs `body` as a task of the member; how it ended is in *status.
  void Launch(Members& group, int index, Body body, std::optional<Status>* status) {
    const Body& kept = bodies.emplace_back(std::move(body));
    world->stream(group.at(index).spec().self.value)
        .LaunchTask(*group.scopes[static_cast<size_t>(index)], kept(group.at(index)),
                    [status](const WorkTime&, Status s) { *status = std::move(s); });
  }
  // The same at every member, each to its end.
  std::vector<std::optional<Status>> LaunchAll(Members& group, const Body& body) {
    std::vector<std::optional<Status>> ended(group.groups.size());
    for (size_t i = 0; i < ended.size(); ++i) {
      Launch(group, static_cast<int>(i), body, &ended[i]);
    }
    EXPECT_TRUE(world->Until(
        [&] { return std::ranges::all_of(ended, [](const auto& s) { return s.has_value(); }); }));
    return ended;
  }
  void RunAll(Members& group, const Body& body) {
    for (const auto& status : LaunchAll(group, body)) {
      ASSERT_TRUE(status && status->ok()) << (status ? status->error().message : "open");
    }
  }
  static std::string MessageOf(const std::optional<Status>& status) {
    return !status ? "still open" : status->ok() ? "OK" : status->error().message;
  }
  std::deque<Body> bodies{};
  std::unique_ptr<World> world{};
  std::deque<Members> opened{};
};

TYPED_TEST_SUITE_P(GroupConformance);

inline constexpr int64_t kCounts[] = {0, 1, 7, 64, 1000, 4097, 9001};

TYPED_TEST_P(GroupConformance, SumsAreTheSerialSumOfTheMembers) {
  for (const int size : {1, 2, 3, 4, 5, 6, 7, 8}) {
    this->Start(size);
    auto& group = this->OpenAll();
    for (const DType dtype : testing::kDTypes) {
      for (const int64_t count : kCounts) {
        auto data = RandomOnes(dtype, count, size);
        const std::string expected = SumOfAll(this->Sums(), dtype, data);
        auto scattered = RandomOnes(dtype, count * size, size);
        std::vector<ElementRun> runs;
        for (int i = 0; i < size; ++i) runs.push_back({i * count, count});
        const std::string sums = SumOfParts(this->Sums(), dtype, scattered, runs);
        std::vector<Tensor> parts(data.size(), Tensor(dtype, count));
        auto reduced = RandomOnes(dtype, count, size);
        const std::string reduction = SerialSum(dtype, reduced);
        Tensor at_root(dtype, count);
        const int root = size / 2;
        this->RunAll(group, [&](Group& g) -> Task<Status> {
          const auto self = static_cast<size_t>(g.index());
          CO_RETURN_IF_ERROR(co_await g.AllReduce(data[self].elements()));
          CO_RETURN_IF_ERROR(
              co_await g.ReduceScatter(scattered[self].elements(), parts[self].elements()));
          co_return co_await g.Reduce(reduced[self].elements(),
                                      g.index() == root ? at_root.elements() : Elements{}, root);
        });
        if (this->HasFatalFailure()) return;
        for (size_t i = 0; i < data.size(); ++i) {
          EXPECT_EQ(data[i].Bytes(), expected) << size << " " << DTypeName(dtype) << " " << count;
          const size_t part = parts[i].Bytes().size();
          EXPECT_EQ(parts[i].Bytes(), sums.substr(i * part, part));
        }
        EXPECT_EQ(at_root.Bytes(), reduction);
      }
    }
  }
}

TYPED_TEST_P(GroupConformance, CopiesArriveWhereTheyBelong) {
  for (const int size : {1, 2, 3, 4, 5, 8}) {
    this->Start(size);
    auto& group = this->OpenAll();
    for (const DType dtype : {DType::kBFloat16, DType::kInt64}) {
      for (const int64_t count : kCounts) {
        auto data = RandomOnes(dtype, count, size);
        std::vector<Tensor> gathered(data.size(), Tensor(dtype, count * size));
        std::vector<Tensor> shifted(data.size(), Tensor(dtype, count));
        std::vector<Tensor> back(data.size(), Tensor(dtype, count));
        auto broadcast = RandomOnes(dtype, count, size);
        const int root = size - 1;
        const std::string of_root = broadcast.back().Bytes();
        this->RunAll(group, [&](Group& g) -> Task<Status> {
          const auto self = static_cast<size_t>(g.index());
          CO_RETURN_IF_ERROR(
              co_await g.AllGather(data[self].elements(), gathered[self].elements()));
          CO_RETURN_IF_ERROR(co_await g.Broadcast(broadcast[self].elements(), root));
          CO_RETURN_IF_ERROR(co_await g.Shift(data[self].elements(), shifted[self].elements(), 1));
          CO_RETURN_IF_ERROR(co_await g.Shift(data[self].elements(), back[self].elements(), -2));
          co_return co_await g.Barrier();
        });
        if (this->HasFatalFailure()) return;
        std::string all;
        for (const Tensor& each : data) all += each.Bytes();
        const auto from = [&](int i, int distance) {
          return data[static_cast<size_t>(((i - distance) % size + size) % size)].Bytes();
        };
        for (int i = 0; i < size; ++i) {
          const auto at = static_cast<size_t>(i);
          EXPECT_EQ(gathered[at].Bytes(), all);
          EXPECT_EQ(broadcast[at].Bytes(), of_root);
          EXPECT_EQ(shifted[at].Bytes(), from(i, 1));
          EXPECT_EQ(back[at].Bytes(), from(i, -2));
        }
      }
    }
  }
}

// Parts of any size, empty ones too; outputs that are a part of their input, and the other way.
TYPED_TEST_P(GroupConformance, PartsMayDiffer) {
  constexpr int kSize = 4;
  constexpr DType kDType = DType::kFloat32;
  this->Start(kSize);
  auto& group = this->OpenAll();
  const std::vector<int64_t> counts = {700, 0, 1, 3001};
  const std::vector<int64_t> firsts = {0, 700, 700, 701};
  constexpr int64_t kTotal = 3702;
  auto data = RandomOnes(kDType, kTotal, kSize);
  const std::string sums =
      SumOfParts(this->Sums(), kDType, data, {{0, 700}, {700, 0}, {700, 1}, {701, 3001}});
  this->RunAll(group, [&](Group& g) -> Task<Status> {
    const auto self = static_cast<size_t>(g.index());
    const Elements own = data[self].Part(firsts[self], counts[self]);
    CO_RETURN_IF_ERROR(co_await g.ReduceScatter(data[self].elements(), own, counts));
    co_return co_await g.AllGather(own, data[self].elements(), counts);
  });
  for (const Tensor& each : data) EXPECT_EQ(each.Bytes(), sums);
}

// Runs in any order, with room between them, empty ones too; what is in none stays as it is.
TYPED_TEST_P(GroupConformance, PartsMayBeAnywhereInTheInput) {
  constexpr DType kDType = DType::kBFloat16;
  const std::vector<ElementRun> parts = {{4000, 1201}, {10, 700}, {5300, 0}, {1000, 2999}};
  this->Start(4);
  auto& group = this->OpenAll();
  auto data = RandomOnes(kDType, 5400, 4);
  const std::string before = data[1].Bytes();
  std::string sums = SumOfParts(this->Sums(), kDType, data, parts);
  std::vector<Tensor> outputs;
  for (const ElementRun& part : parts) outputs.emplace_back(kDType, part.count);
  this->RunAll(group, [&](Group& g) -> Task<Status> {
    const auto self = static_cast<size_t>(g.index());
    const ElementRun own = parts[self];
    // One in place.
    const Elements output =
        g.index() == 0 ? data[0].Part(own.first, own.count) : outputs[self].elements();
    co_return co_await g.ReduceScatter(data[self].elements(), output, parts);
  });
  EXPECT_EQ(data[1].Bytes(), before);
  std::string left = data[0].Bytes(parts[0].first, parts[0].count);
  for (const size_t i : {1, 2, 3}) left += outputs[i].Bytes();
  EXPECT_EQ(left, sums);
}

// Sums follow the order of a group's ranks, and roots and hops count in it.
TYPED_TEST_P(GroupConformance, RanksMayStandInAnyOrder) {
  const std::vector<int> ranks = {3, 0, 2, 1};
  this->Start(4);
  auto& group = this->Open("mixed", ranks);
  auto data = RandomOnes(DType::kFloat32, 5000, 4);  // by index
  const std::string sums = SumOfAll(this->Sums(), DType::kFloat32, data);
  std::vector<Tensor> gathered(4, Tensor(DType::kFloat32, 20'000));
  std::vector<Tensor> shifted(4, Tensor(DType::kFloat32, 5000));
  std::string all;
  for (const Tensor& each : data) all += each.Bytes();
  const std::string of_two = data[2].Bytes();
  this->RunAll(group, [&](Group& g) -> Task<Status> {
    const auto self = static_cast<size_t>(g.index());
    CO_RETURN_IF_ERROR(co_await g.AllGather(data[self].elements(), gathered[self].elements()));
    CO_RETURN_IF_ERROR(co_await g.Shift(data[self].elements(), shifted[self].elements(), 1));
    co_return co_await g.AllReduce(data[self].elements());
  });
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(group.at(static_cast<int>(i)).spec().self, Rank(ranks[i]));
    EXPECT_EQ(gathered[i].Bytes(), all);
    EXPECT_EQ(data[i].Bytes(), sums);
  }
  EXPECT_EQ(shifted[3].Bytes(), of_two);
}

TYPED_TEST_P(GroupConformance, EveryPairHasItsOwnCountInAnAllToAll) {
  for (const int size : {1, 3, 4}) {
    this->Start(size);
    auto& group = this->OpenAll();
    const auto count = [](int from, int to) { return int64_t{from * 500 + to * 37} * (to % 3); };
    std::vector<std::vector<int64_t>> sends(static_cast<size_t>(size));
    std::vector<std::vector<int64_t>> receives(static_cast<size_t>(size));
    std::vector<Tensor> inputs;
    std::vector<Tensor> outputs;
    for (int i = 0; i < size; ++i) {
      auto& out = sends[static_cast<size_t>(i)];
      auto& in = receives[static_cast<size_t>(i)];
      for (int j = 0; j < size; ++j) {
        out.push_back(count(i, j));
        in.push_back(count(j, i));
      }
      inputs.push_back(Tensor::Random(DType::kFloat16, std::reduce(out.begin(), out.end()),
                                      static_cast<uint64_t>(i)));
      outputs.emplace_back(DType::kFloat16, std::reduce(in.begin(), in.end()));
    }
    this->RunAll(group, [&](Group& g) -> Task<Status> {
      const auto self = static_cast<size_t>(g.index());
      co_return co_await g.AllToAll(inputs[self].elements(), sends[self], outputs[self].elements(),
                                    receives[self]);
    });
    for (int to = 0; to < size; ++to) {
      std::string expected;
      for (int from = 0; from < size; ++from) {
        int64_t first = 0;
        for (int before = 0; before < to; ++before) first += count(from, before);
        expected += inputs[static_cast<size_t>(from)].Bytes(first, count(from, to));
      }
      EXPECT_EQ(outputs[static_cast<size_t>(to)].Bytes(), expected);
    }
  }
}

// Every rank is in three groups and has operations of all of them open at once, begun in another
// order at each.
TYPED_TEST_P(GroupConformance, GroupsDoNotWaitForEachOther) {
  constexpr int kRounds = 12;
  constexpr int64_t kCount = 3000;
  this->Start(4);
  auto& all = this->OpenAll();
  auto& left = this->Open("tp", {0, 1});
  auto& right = this->Open("tp", {2, 3});
  auto& even = this->Open("dp", {0, 2});
  auto& odd = this->Open("dp", {1, 3});
  std::deque<std::optional<Status>> ended;
  const auto work = [](Group& g) -> Task<Status> {
    for (int round = 0; round < kRounds; ++round) {
      auto ones = RandomOnes(DType::kInt64, kCount, g.size());
      const std::string expected = SerialSum(DType::kInt64, ones);
      Tensor& mine = ones[static_cast<size_t>(g.index())];
      CO_RETURN_IF_ERROR(co_await g.AllReduce(mine.elements()));
      if (mine.Bytes() != expected) co_return MakeError(ErrorCode::kFailed, "another sum");
      CO_RETURN_IF_ERROR(co_await g.Barrier());
    }
    co_return Status{};
  };
  for (int rank = 0; rank < 4; ++rank) {
    auto& tp = rank < 2 ? left : right;
    auto& dp = rank % 2 == 0 ? even : odd;
    std::vector<std::pair<typename TestFixture::Members*, int>> mine = {
        {&all, rank}, {&tp, rank % 2}, {&dp, rank / 2}};
    std::ranges::rotate(mine, mine.begin() + rank % 3);
    for (const auto& [group, index] : mine) {
      this->Launch(*group, index, work, &ended.emplace_back());
    }
  }
  ASSERT_TRUE(this->world->Until(
      [&] { return std::ranges::all_of(ended, [](const auto& s) { return s.has_value(); }); }));
  for (const auto& status : ended) EXPECT_EQ(this->MessageOf(status), "OK");
}

TYPED_TEST_P(GroupConformance, OperationsOfOneGroupMayBeOpenTogether) {
  constexpr int kOpen = 6;
  this->Start(3);
  auto& group = this->OpenAll();
  std::vector<std::vector<Tensor>> data;
  std::vector<std::string> sums;
  for (int i = 0; i < kOpen; ++i) {
    data.push_back(RandomOnes(DType::kFloat32, 500 + 900 * (i % 4), 3));
    sums.push_back(SumOfAll(this->Sums(), DType::kFloat32, data.back()));
  }
  std::vector<std::optional<Status>> ended(3 * kOpen);
  for (int rank = 0; rank < 3; ++rank) {
    for (int i = 0; i < kOpen; ++i) {
      Tensor& mine = data[static_cast<size_t>(i)][static_cast<size_t>(rank)];
      this->Launch(
          group, rank, [&mine](Group& g) { return g.AllReduce(mine.elements()); },
          &ended[static_cast<size_t>(rank * kOpen + i)]);
    }
  }
  ASSERT_TRUE(this->world->Until(
      [&] { return std::ranges::all_of(ended, [](const auto& s) { return s.has_value(); }); }));
  for (int i = 0; i < kOpen; ++i) {
    for (const Tensor& each : data[static_cast<size_t>(i)]) {
      EXPECT_EQ(each.Bytes(), sums[static_cast<size_t>(i)]);
    }
  }
}

// A shift needs its two members alone; the sum before it needs the one that is late.
TYPED_TEST_P(GroupConformance, OperationsEndInTheOrderInWhichTheyBegan) {
  constexpr int kShifts = 3;
  this->Start(3);
  auto& group = this->OpenAll();
  auto data = RandomOnes(DType::kFloat32, 7000, 3);
  const std::string sum = SumOfAll(this->Sums(), DType::kFloat32, data);
  auto sent = RandomOnes(DType::kInt32, 40, 3);
  std::vector<Tensor> came(3 * kShifts, Tensor(DType::kInt32, 40));
  std::vector<std::vector<int>> order(3);
  std::vector<std::optional<Status>> ended(3 * (1 + kShifts));
  const auto launch_all = [&](int rank) {
    const auto self = static_cast<size_t>(rank);
    std::optional<Status>* status = &ended[self * (1 + kShifts)];
    this->Launch(
        group, rank,
        [&, self](Group& g) -> Task<Status> {
          CO_RETURN_IF_ERROR(co_await g.AllReduce(data[self].elements()));
          order[self].push_back(0);
          co_return Status{};
        },
        status);
    for (int i = 1; i <= kShifts; ++i) {
      Tensor& to = came[self * kShifts + static_cast<size_t>(i - 1)];
      this->Launch(
          group, rank,
          [&, self, i](Group& g) -> Task<Status> {
            CO_RETURN_IF_ERROR(co_await g.Shift(sent[self].elements(), to.elements(), 1));
            order[self].push_back(i);
            co_return Status{};
          },
          ++status);
    }
  };
  for (const int rank : {1, 2}) launch_all(rank);
  int passes = 0;
  ASSERT_TRUE(this->world->Until([&] { return ++passes > 300; }));
  for (const auto& status : ended) EXPECT_FALSE(status);
  launch_all(0);
  ASSERT_TRUE(this->world->Until(
      [&] { return std::ranges::all_of(ended, [](const auto& s) { return s.has_value(); }); }));
  for (const auto& status : ended) EXPECT_EQ(this->MessageOf(status), "OK");
  for (size_t rank = 0; rank < 3; ++rank) {
    EXPECT_THAT(order[rank], ::testing::ElementsAre(0, 1, 2, 3));
    EXPECT_EQ(data[rank].Bytes(), sum);
    for (size_t i = 0; i < kShifts; ++i) {
      EXPECT_EQ(came[rank * kShifts + i].Bytes(), sent[(rank + 2) % 3].Bytes());
    }
  }
}

// Members 0 and 1 begin two different operations, member 2 the same as member 0.
TYPED_TEST_P(GroupConformance, ADifferenceNamesBothMembersAndBothOperations) {
  Tensor data(DType::kFloat32, 12);
  Tensor more(DType::kFloat32, 36);
  Tensor ints(DType::kInt32, 12);
  using Operation = std::function<Task<Status>(Group&)>;
  const struct {
    Operation one, other;
    std::vector<std::string> said;
  } cases[] = {
      {[&](Group& g) { return g.AllReduce(data.elements()); },
       [&](Group& g) { return g.AllGather(data.elements(), more.elements()); },
       {"all-reduce of 12 float32 at rank ", "all-gather of 36 float32 at rank 1"}},
      {[&](Group& g) { return g.AllReduce(data.elements()); },
       [&](Group& g) { return g.AllReduce(ints.elements()); },
       {"all-reduce of 12 float32 at rank ", "all-reduce of 12 int32 at rank 1"}},
      {[&](Group& g) { return g.AllReduce(data.Part(0, 11)); },
       [&](Group& g) { return g.AllReduce(data.elements()); },
       {"all-reduce of 11 float32 at rank ", "all-reduce of 12 float32 at rank 1"}},
      {[&](Group& g) { return g.Broadcast(data.elements(), 0); },
       [&](Group& g) { return g.Broadcast(data.elements(), 1); },
       {"with root rank 0 at rank ", "with root rank 1 at rank 1"}},
      {[&](Group& g) { return g.Barrier(); },
       [&](Group& g) { return g.Reduce(data.elements(), data.elements(), 1); },
       {"barrier at rank ", "reduce of 12 float32 with root rank 1 at rank 1"}},
      {[&](Group& g) { return g.Shift(data.elements(), more.Part(0, 12), 1); },
       [&](Group& g) { return g.Shift(data.elements(), more.Part(0, 12), -1); },
       {"shift of float32 by 1 at rank ", "shift of float32 by -1 at rank 1"}},
  };
  for (const auto& each : cases) {
    this->Start(3);
    auto& group = this->OpenAll();
    for (const int round : {0, 1}) {  // the operation itself, and the one after it
      const auto ended = this->LaunchAll(group, [&](Group& g) -> Task<Status> {
        if (g.index() == 1) {
          CO_RETURN_IF_ERROR(co_await each.other(g));
        } else {
          CO_RETURN_IF_ERROR(co_await each.one(g));
        }
        co_return co_await g.Barrier();  // a shift may have ended before it was noticed
      });
      for (const auto& status : ended) {
        for (const auto& words : each.said) {
          EXPECT_THAT(this->MessageOf(status), ::testing::HasSubstr(words)) << round;
        }
        EXPECT_THAT(this->MessageOf(status), ::testing::HasSubstr("group all: operation 1 is"));
      }
    }
  }
}

TYPED_TEST_P(GroupConformance, CountsOfAPairThatDifferAreAnError) {
  this->Start(2);
  auto& group = this->OpenAll();
  std::vector<Tensor> in(2, Tensor(DType::kInt32, 9));
  std::vector<Tensor> out(2, Tensor(DType::kInt32, 9));
  const std::vector<int64_t> five_and_three = {5, 3};
  const auto ended = this->LaunchAll(group, [&](Group& g) -> Task<Status> {
    // Member 1 expects 4 of member 0, which sends 3.
    const std::vector<int64_t> sends = g.index() == 0 ? five_and_three : std::vector<int64_t>{2, 1};
    const std::vector<int64_t> receives =
        g.index() == 0 ? std::vector<int64_t>{5, 2} : std::vector<int64_t>{4, 1};
    const int64_t num_in = sends[0] + sends[1];
    const int64_t num_out = receives[0] + receives[1];
    const auto self = static_cast<size_t>(g.index());
    co_return co_await g.AllToAll(in[self].Part(0, num_in), sends, out[self].Part(0, num_out),
                                  receives);
  });
  for (const auto& status : ended) {
    EXPECT_EQ(this->MessageOf(status),
              "group all: operation 1, all-to-all of int32: rank 0 sends 3 elements, and rank 1 "
              "expects 4");
  }
}

TYPED_TEST_P(GroupConformance, ALostMemberEndsWhatIsOpenAndWhatComes) {
  this->Start(3);
  auto& group = this->OpenAll();
  auto& pair = this->Open("pair", {0, 1});
  auto data = RandomOnes(DType::kFloat32, 5000, 3);
  std::vector<std::optional<Status>> ended(2);
  const auto reduce = [&](Group& g) {
    return g.AllReduce(data[static_cast<size_t>(g.index())].elements());
  };
  for (int i = 0; i < 2; ++i) this->Launch(group, i, reduce, &ended[static_cast<size_t>(i)]);
  int passes = 0;
  ASSERT_TRUE(this->world->Until([&] { return ++passes > 50; }));  // under way
  EXPECT_FALSE(ended[0] || ended[1]);
  this->world->Kill(2);
  ASSERT_TRUE(this->world->Until([&] { return ended[0] && ended[1]; }));
  for (const auto& status : ended) {
    EXPECT_THAT(this->MessageOf(status), ::testing::HasSubstr("group all: "));
    EXPECT_THAT(this->MessageOf(status), ::testing::HasSubstr("rank 2"));
    ASSERT_FALSE(status->ok());
    EXPECT_EQ(status->error().code, ErrorCode::kPeerDown);
  }
  std::optional<Status> later;
  this->Launch(group, 0, reduce, &later);
  ASSERT_TRUE(this->world->Until([&] { return later.has_value(); }));
  EXPECT_EQ(this->MessageOf(later), this->MessageOf(ended[0]));
  this->RunAll(pair, [](Group& g) { return g.Barrier(); });
}

TYPED_TEST_P(GroupConformance, AMemberThatStopsEndsItByTheDeadline) {
  constexpr int64_t kDeadlineMs = 1500;
  this->Start(3);
  auto& group = this->OpenAll(kDeadlineMs);
  auto data = RandomOnes(DType::kFloat32, 5000, 3);
  std::vector<std::optional<Status>> ended(2);
  std::vector<std::string> said;
  std::vector<WaitRecord> seen;
  for (int i = 0; i < 2; ++i) {
    this->world->scheduler(i).waits().SetOnDeadline(
        [&](const WaitRecord& record, const std::string& sentence) {
          seen.push_back(record);
          said.push_back(sentence);
        });
    this->Launch(
        group, i,
        [&](Group& g) {
          return g.AllReduce(data[static_cast<size_t>(g.index())].elements(),
                             {.activity = "forward", .step = 12, .microbatch = 3});
        },
        &ended[static_cast<size_t>(i)]);
  }
  this->world->Stop(2);
  ASSERT_TRUE(this->world->Until([&] { return ended[0] && ended[1]; }));
  ASSERT_FALSE(said.empty());
  EXPECT_EQ(seen[0].from.substr(0, 6), "rank 2");
  EXPECT_EQ(seen[0].step, 12);
  for (const auto& status : ended) {
    EXPECT_THAT(this->MessageOf(status),
                ::testing::HasSubstr("microbatch 3 forward, group all: all-reduce 1 of 5000 "
                                     "float32: blocks from rank 2: deadline 1500 ms passed in "
                                     "step 12, nothing from rank 2"));
    EXPECT_EQ(status->error().code, ErrorCode::kDeadlineExceeded);
  }
  for (int i = 0; i < 2; ++i) EXPECT_EQ(this->world->scheduler(i).waits().size(), 0);
}

TYPED_TEST_P(GroupConformance, ALateMemberMakesTheOthersWait) {
  this->Start(3);
  auto& group = this->OpenAll();
  auto data = RandomOnes(DType::kFloat32, 7000, 3);
  const std::string expected = SumOfAll(this->Sums(), DType::kFloat32, data);
  std::vector<std::optional<Status>> ended(3);
  const auto reduce = [&](Group& g) {
    return g.AllReduce(data[static_cast<size_t>(g.index())].elements());
  };
  for (const int i : {0, 2}) this->Launch(group, i, reduce, &ended[static_cast<size_t>(i)]);
  ASSERT_TRUE(this->world->Until([&] { return this->world->scheduler(0).waits().size() == 1; }));
  int passes = 0;
  ASSERT_TRUE(this->world->Until([&] { return ++passes > 300; }));
  EXPECT_FALSE(ended[0] || ended[2]);
  const auto waits = this->world->scheduler(0).waits().Snapshot();
  ASSERT_EQ(waits.size(), 1u);
  EXPECT_EQ(waits[0].waiter, "rank 0");
  EXPECT_EQ(waits[0].owed, "group all: all-reduce 1 of 7000 float32: blocks");
  EXPECT_THAT(waits[0].from, ::testing::HasSubstr("rank 1"));
  this->Launch(group, 1, reduce, &ended[1]);
  ASSERT_TRUE(this->world->Until([&] { return ended[0] && ended[1] && ended[2]; }));
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(this->MessageOf(ended[i]), "OK");
    EXPECT_EQ(data[i].Bytes(), expected);
  }
}

// Whatever is under way: memory in the frame of a destroyed task is not touched again, and the
// others end with its name.
TYPED_TEST_P(GroupConformance, ATaskThatIsDestroyedInAnOperationBreaksTheGroup) {
  for (const int passes_before : {0, 1, 2, 5, 20}) {
    this->Start(3);
    auto& group = this->OpenAll();
    const auto reduce = [](Group& g) -> Task<Status> {
      auto mine = Tensor::Random(DType::kFloat32, 20'000, 5);
      co_return co_await g.AllReduce(mine.elements());
    };
    std::vector<std::optional<Status>> ended(3);
    std::optional<Status> second;
    for (const int i : {0, 1}) this->Launch(group, i, reduce, &ended[static_cast<size_t>(i)]);
    this->Launch(group, 1, reduce, &second);  // of the same scope
    int passes = 0;
    ASSERT_TRUE(this->world->Until([&] { return ++passes > passes_before; }));
    ASSERT_TRUE(this->world->Until([&] {  // the operations have begun
      return this->world->scheduler(1).waits().size() == 2;
    }));
    group.scopes[1].reset();
    this->Launch(group, 2, reduce, &ended[2]);
    ASSERT_TRUE(this->world->Until([&] { return ended[0] && ended[2]; }));
    for (const int i : {0, 2}) {
      EXPECT_EQ(this->MessageOf(ended[static_cast<size_t>(i)]),
                "group all: rank 1 gave up operation 1, all-reduce of 20000 float32");
    }
    EXPECT_FALSE(ended[1] || second);
    EXPECT_EQ(this->world->scheduler(1).waits().size(), 0);
  }
}

REGISTER_TYPED_TEST_SUITE_P(
    GroupConformance, SumsAreTheSerialSumOfTheMembers, CopiesArriveWhereTheyBelong, PartsMayDiffer,
    PartsMayBeAnywhereInTheInput, RanksMayStandInAnyOrder, EveryPairHasItsOwnCountInAnAllToAll,
    GroupsDoNotWaitForEachOther, OperationsOfOneGroupMayBeOpenTogether,
    OperationsEndInTheOrderInWhichTheyBegan, ADifferenceNamesBothMembersAndBothOperations,
    CountsOfAPairThatDifferAreAnError, ALostMemberEndsWhatIsOpenAndWhatComes,
    AMemberThatStopsEndsItByTheDeadline, ALateMemberMakesTheOthersWait,
    ATaskThatIsDestroyedInAnOperationBreaksTheGroup);

}  // namespace troupe
