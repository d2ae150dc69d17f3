// Groups whose members are processes of two hosts: they are left with the same bits as members of
// one process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/runtime/collective/every_operation.h"
#include "tests/runtime/collective/router_world.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/two_hosts.h"

namespace troupe {
namespace {

// What each member is left with where all are in this process.
std::vector<std::string> LeftInProcess(int size, bool ring) {
  RouterWorld<InprocWorldNetwork> world(size);
  std::vector<std::unique_ptr<Group>> groups;
  std::vector<std::unique_ptr<StreamScope>> scopes;
  std::vector<std::string> left(static_cast<size_t>(size));
  std::vector<Status> ended;
  GroupSpec spec{.id = GroupId(5), .name = "g"};
  for (int rank = 0; rank < size; ++rank) spec.ranks.emplace_back(rank);
  if (ring) SumAlongARing(spec);
  for (int rank = 0; rank < size; ++rank) {
    spec.self = Rank(rank);
    groups.push_back(world.Open(spec, 16));
    scopes.push_back(std::make_unique<StreamScope>(world.stream(rank)));
  }
  for (int rank = 0; rank < size; ++rank) {
    const auto at = static_cast<size_t>(rank);
    world.stream(rank).LaunchTask(
        *scopes[at], RunEveryOperation(*groups[at], &left[at]),
        [&ended](const WorkTime&, Status status) { ended.push_back(std::move(status)); });
  }
  EXPECT_TRUE(world.Until([&] { return std::ssize(ended) == size; }));
  for (const Status& status : ended) EXPECT_TRUE(status.ok()) << status.error().message;
  scopes.clear();
  return left;
}

class TwoHostsGroupTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!hosts.ready) GTEST_SKIP() << "no network and IPC namespaces here: " << hosts.why;
  }
  // Shell: members [begin, end) of `size`, in a host of their own.
  std::string Members(const std::string& host, const std::string& link, int begin, int end,
                      int size, const std::string& how) const {
    std::string script;
    std::string numbers;
    for (int rank = begin; rank < end; ++rank) {
      const std::string number = std::to_string(rank);
      script += TROUPE_GROUP_MEMBER " " + number + " " + std::to_string(size) + " " +
                folder.path() + " " + how + " & p" + number + "=$!\n";
      numbers += " $p" + number;
    }
    const std::string path =
        folder.Write(host, script + "for p in" + numbers + "; do wait $p || exit 1; done\n");
    return "UCX_NET_DEVICES=" + link + " ip netns exec " + host + " unshare --ipc sh " + path;
  }
  std::string Read(const std::string& what, int rank) const {
    const auto bytes =
        SystemFiles().ReadFile(folder / (what + "-" + std::to_string(rank)), int64_t{64} << 20);
    EXPECT_TRUE(bytes.ok()) << bytes.error().message;
    return bytes.ok() ? *bytes : "";
  }
  void ExpectBitEqual(int size, const std::string& how = "") {
    const auto ran =
        testing::Shell("{ " + Members(hosts.a, hosts.link_a, 0, size / 2, size, how) + " & a=$!; " +
                       Members(hosts.b, hosts.link_b, size / 2, size, size, how) +
                       "; b=$?; wait $a && exit $b; } 2>&1");
    ASSERT_EQ(ran.exit_code, 0) << ran.output;
    const std::vector<std::string> expected = LeftInProcess(size, how == "ring");
    for (int rank = 0; rank < size; ++rank) {
      const std::string& in_process = expected[static_cast<size_t>(rank)];
      ASSERT_GT(in_process.size(), 100'000u);
      EXPECT_TRUE(Read("left", rank) == in_process) << "rank " << rank << " has other bits";
    }
  }

  testing::TwoHosts hosts{};
  testing::TemporaryFolder folder{};
};

TEST_F(TwoHostsGroupTest, OneMemberOnEachIsBitEqualToOneProcess) {
  ExpectBitEqual(2);
  for (const int rank : {0, 1}) EXPECT_EQ(Read("lanes", rank), "tcp");
}

TEST_F(TwoHostsGroupTest, TwoMembersOnEachAreBitEqualToOneProcess) {
  const auto sent = [this] {
    return hosts.BytesSent(hosts.a, hosts.link_a) + hosts.BytesSent(hosts.b, hosts.link_b);
  };
  const int64_t before = sent();
  ExpectBitEqual(4);
  EXPECT_EQ(Read("lanes", 0), "shared-memory tcp tcp");
  EXPECT_EQ(Read("lanes", 1), "shared-memory tcp tcp");
  EXPECT_EQ(Read("lanes", 2), "tcp tcp shared-memory");
  EXPECT_EQ(Read("lanes", 3), "tcp tcp shared-memory");
  EXPECT_GT(sent() - before, 100'000);
}

// Shared memory within a host, TCP between the two, and in the end the bits of one process.
TEST_F(TwoHostsGroupTest, ARingOfTwoMembersOnEachIsBitEqualToOneProcess) {
  ExpectBitEqual(4, "ring");
  for (int rank = 0; rank < 4; ++rank) EXPECT_GT(std::stoll(Read("lent", rank)), 100'000);
}

}  // namespace
}  // namespace troupe
