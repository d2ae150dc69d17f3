#include "runtime/collective/nccl/nccl_agreement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "runtime/base/random.h"
#include "tests/runtime/collective/element_types.h"

namespace troupe {
namespace {

NcclMember MemberOn(const char* host, const char* gpu, NcclVersion version = 22809,
                    bool may_share_gpu = false) {
  NcclMember member{.version = version, .may_share_gpu = may_share_gpu};
  std::strncpy(member.host, host, sizeof(member.host) - 1);
  std::strncpy(member.gpu, gpu, sizeof(member.gpu) - 1);
  return member;
}

std::string Said(const std::vector<NcclMember>& members) {
  GroupSpec spec{.name = "dp"};
  for (size_t i = 0; i < members.size(); ++i) spec.ranks.emplace_back(static_cast<int>(2 * i + 1));
  const Status status = CheckNcclMembers(members, spec);
  return status.ok() ? "OK" : status.error().message;
}

TEST(NcclAgreementTest, VersionsReadAsNcclWritesThem) {
  EXPECT_EQ(NcclVersionText(23003), "2.30.3");
  EXPECT_EQ(NcclVersionText(22809), "2.28.9");
  EXPECT_EQ(NcclVersionText(2708), "2.7.8");
}

TEST(NcclAgreementTest, MembersHaveOneVersionAndAGpuEach) {
  EXPECT_EQ(Said({MemberOn("a", "0000:01:00.0"), MemberOn("a", "0000:02:00.0"),
                  MemberOn("b", "0000:01:00.0")}),
            "OK");
  EXPECT_EQ(Said({MemberOn("a", "0"), MemberOn("b", "0"), MemberOn("c", "0", 23003)}),
            "group dp: rank 1 has NCCL 2.28.9 and rank 5 has 2.30.3; all members need one version");
}

TEST(NcclAgreementTest, AGpuIsSharedOnlyWhereNcclCan) {
  const auto both = [](NcclVersion version, bool one, bool other) {
    return Said({MemberOn("a", "0000:01:00.0", version, one),
                 MemberOn("a", "0000:01:00.0", version, other)});
  };
  EXPECT_EQ(both(23002, true, true),
            "group dp: ranks 1 and 3 share GPU 0000:01:00.0, for which NCCL 2.30.3 or later is "
            "needed, and this is 2.30.2; use a GPU for each rank or a newer NCCL");
  EXPECT_EQ(both(23003, true, false),
            "group dp: ranks 1 and 3 share GPU 0000:01:00.0, which NCCL does only where "
            "NCCL_MULTI_RANK_GPU_ENABLE=1 is set");
  EXPECT_EQ(both(23003, true, true), "OK");
}

// Whatever the operation, two members that agree say numbers that fit.
TEST(NcclAgreementTest, WhatOneSendsIsWhatTheOtherExpects) {
  constexpr int kSize = 3;
  const std::vector<int64_t> counts = {5, 0, 2};
  const auto in = [](int64_t count) { return ConstElements(0, nullptr, count); };
  const auto out = [](int64_t count) { return Elements{0, nullptr, count}; };
  const auto at = [&](int kind, int index) -> GroupOperation {
    const int64_t own = counts[static_cast<size_t>(index)];
    switch (static_cast<GroupOperationKind>(kind)) {
      case GroupOperationKind::kReduceScatter:
        return {.kind = GroupOperationKind::kReduceScatter,
                .input = in(7),
                .output = out(own),
                .send_counts = counts};
      case GroupOperationKind::kAllGather:
        return {.kind = GroupOperationKind::kAllGather,
                .input = in(own),
                .output = out(7),
                .receive_counts = counts};
      case GroupOperationKind::kAllToAll:
        return {.kind = GroupOperationKind::kAllToAll,
                .input = in(7),
                .output = out(3 * own),
                .send_counts = counts,
                .receive_counts = std::span(counts).first(0)};
      default:
        return {.kind = static_cast<GroupOperationKind>(kind),
                .input = in(9),
                .output = out(9),
                .peer = 1};
    }
  };
  for (int kind = 0; kind < kNumGroupOperationKinds; ++kind) {
    for (int one = 0; one < kSize; ++one) {
      for (int other = 0; other < kSize; ++other) {
        if (one == other) continue;
        const auto begun = [&](int self, int to) {
          GroupOperation operation = at(kind, self);
          const std::vector<int64_t> equal(kSize, counts[static_cast<size_t>(self)]);
          if (operation.kind == GroupOperationKind::kAllToAll) operation.receive_counts = equal;
          return BegunFor(to, self, operation, PlanOperation(operation, self, kSize, 4));
        };
        const BegunOperation mine = begun(one, other);
        const BegunOperation theirs = begun(other, one);
        EXPECT_EQ(SignatureSaid(mine), SignatureSaid(theirs)) << kind;
        EXPECT_EQ(CountDifference(mine, Rank(one), theirs, Rank(other)).value_or("fits"), "fits")
            << kind;
      }
    }
  }
}

TEST(NcclAgreementTest, ADifferenceIsOneSentenceAtBoth) {
  BegunOperation one{.sends = 3, .expects = 1};
  BegunOperation other{.sends = 1, .expects = 4};
  const std::string said = "rank 0 sends 3 elements, and rank 2 expects 4";
  EXPECT_EQ(CountDifference(one, Rank(0), other, Rank(2)), said);
  EXPECT_EQ(CountDifference(other, Rank(2), one, Rank(0)), said);
}

TEST(NcclAgreementTest, RunsAndCountsDiffer) {
  const BegunOperation runs{.sends = 4, .expects = 4, .by_runs = 1};
  const BegunOperation counts{.sends = 4, .expects = 4};
  const std::string said = "rank 0 gives runs, and rank 2 counts";
  EXPECT_EQ(CountDifference(runs, Rank(0), counts, Rank(2)), said);
  EXPECT_EQ(CountDifference(counts, Rank(2), runs, Rank(0)), said);
}

// Records are bytes of another process: any of them can be said, and none is an index.
TEST(NcclAgreementTest, AnyBytesCanBeSaid) {
  struct NoGroup : Group {
    using Group::Group;
    Task<Status> Run(GroupOperation) override { co_return Status{}; }
  } group({.name = "dp", .ranks = {Rank(0), Rank(1)}}, testing::ElementTypes());
  for (uint64_t draw = 0; draw < 1000; ++draw) {
    BegunOperation begun;
    auto* words = reinterpret_cast<uint64_t*>(&begun);
    for (uint64_t i = 0; i < sizeof(begun) / 8; ++i) words[i] = RandomKey(draw, "word") >> (i * 9);
    EXPECT_FALSE(group.Text(SignatureSaid(begun)).empty());
    NcclMember member;
    std::memset(static_cast<void*>(&member), static_cast<int>(draw), sizeof(member));
    EXPECT_FALSE(Said({member, member}).empty());
  }
}

}  // namespace
}  // namespace troupe
