// Groups whose members read each other's memory in place: in one process, and in processes of one
// host.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdlib>

#include "runtime/base/file_system.h"
#include "tests/runtime/collective/every_operation.h"
#include "tests/runtime/collective/group_conformance.h"
#include "tests/runtime/collective/shared_world.h"
#include "tests/runtime/transport/ucx_child.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

INSTANTIATE_TYPED_TEST_SUITE_P(ShmInproc, GroupConformance, SharedWorld<InprocWorldNetwork>);
INSTANTIATE_TYPED_TEST_SUITE_P(ShmUcx, GroupConformance, SharedWorld<UcxWorldNetwork>);

// A world of one group of all ranks.
template <typename World>
struct WithGroup {
  explicit WithGroup(int size) : world(size), left(static_cast<size_t>(size)) {
    GroupSpec spec{.id = GroupId(5), .name = "g"};
    for (int rank = 0; rank < size; ++rank) spec.ranks.emplace_back(rank);
    for (int rank = 0; rank < size; ++rank) {
      spec.self = Rank(rank);
      groups.push_back(world.Open(spec, 16));
      scopes.push_back(std::make_unique<StreamScope>(world.stream(rank)));
    }
  }
  ~WithGroup() {
    scopes.clear();
    groups.clear();
  }
  void RunAll(const std::function<Task<Status>(Group&, std::string*)>& run) {
    std::vector<Status> ended;
    for (size_t i = 0; i < groups.size(); ++i) {
      world.stream(static_cast<int>(i))
          .LaunchTask(
              *scopes[i], run(*groups[i], &left[i]),
              [&ended](const WorkTime&, Status status) { ended.push_back(std::move(status)); });
    }
    ASSERT_TRUE(world.Until([&] { return ended.size() == groups.size(); }));
    for (const Status& status : ended) EXPECT_TRUE(status.ok()) << status.error().message;
  }

  World world;
  std::vector<std::unique_ptr<Group>> groups{};
  std::vector<std::unique_ptr<StreamScope>> scopes{};
  std::vector<std::string> left;  // by member
};

TEST(ShmGroup, LeavesTheSameBitsAsMessages) {
  WithGroup<RouterWorld<InprocWorldNetwork>> messages(3);
  messages.RunAll(&RunEveryOperation);
  WithGroup<SharedWorld<InprocWorldNetwork>> shared(3);
  shared.RunAll(&RunEveryOperation);
  EXPECT_EQ(shared.left, messages.left);
  EXPECT_EQ(messages.world.groups(0).lent_bytes(), 0);
  EXPECT_GT(shared.world.groups(0).lent_bytes(), 100'000);
}

// What members read in place counts as sent, and needs no memory of the group's.
TEST(ShmGroup, CountsTheSameBytesAndTakesNoBuffers) {
  constexpr int64_t kCount = 10'000;
  WithGroup<SharedWorld<InprocWorldNetwork>> at(2);
  auto data = RandomOnes(DType::kFloat32, kCount, 2);
  const auto gather = [&](Group& group, std::string*) -> Task<Status> {
    Tensor all(DType::kFloat32, 2 * kCount);
    CO_RETURN_IF_ERROR(co_await group.AllGather(data[static_cast<size_t>(group.index())].elements(),
                                                all.elements()));
    co_return co_await group.Barrier();
  };
  at.RunAll(gather);  // asks, and has not yet heard all along
  const auto comm = static_cast<size_t>(MemoryTag::kComm);
  const int64_t before = at.world.ledger(0).Snapshot().current_bytes[comm];
  const int64_t lent = at.world.groups(0).lent_bytes();
  at.RunAll(gather);
  EXPECT_EQ(at.world.groups(0).lent_bytes() - lent, kCount * 4);
  EXPECT_EQ(at.groups[0]->traffic(GroupOperationKind::kAllGather).sent_bytes, 2 * kCount * 4);
  EXPECT_EQ(at.world.ledger(0).Snapshot().current_bytes[comm], before);
}

// Members in processes of their own.
class ShmProcessesTest : public ::testing::Test {
 protected:
  ~ShmProcessesTest() override {
    for (const pid_t member : members) {
      if (member <= 0) continue;
      kill(member, SIGKILL);
      waitpid(member, nullptr, 0);
    }
  }
  void Start(int size, const char* how) {
    for (int rank = 0; rank < size; ++rank) {
      const pid_t member = fork();
      ASSERT_GE(member, 0);
      if (member == 0) {
        execl(TROUPE_GROUP_MEMBER, "group_member", std::to_string(rank).c_str(),
              std::to_string(size).c_str(), folder.path().c_str(), how, nullptr);
        _exit(127);
      }
      members.push_back(member);
    }
  }
  int ExitCode(int rank) {
    int status = 0;
    waitpid(members[static_cast<size_t>(rank)], &status, 0);
    members[static_cast<size_t>(rank)] = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::string Path(const std::string& what, int rank) const {
    return folder / (what + "-" + std::to_string(rank));
  }
  std::string Read(const std::string& what, int rank) const {
    const auto bytes = SystemFiles().ReadFile(Path(what, rank), int64_t{64} << 20);
    EXPECT_TRUE(bytes.ok()) << bytes.error().message;
    return bytes.ok() ? *bytes : "";
  }

  const std::set<std::string> names_before = SharedMemoryNames();
  testing::TemporaryFolder folder{};
  std::vector<pid_t> members{};
};

TEST_F(ShmProcessesTest, AreLeftWithTheSameBitsAsInOneProcess) {
  Start(3, "shared");
  for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(ExitCode(rank), 0);
  WithGroup<RouterWorld<InprocWorldNetwork>> messages(3);
  messages.RunAll(&RunEveryOperation);
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_TRUE(Read("left", rank) == messages.left[static_cast<size_t>(rank)]) << rank;
    EXPECT_GT(std::stoll(Read("lent", rank)), 100'000);
  }
  EXPECT_THAT(LeftSince(names_before), ::testing::IsEmpty());
}

// The transport's silence is longer than the test's patience: it is the end of the process that
// ends the operations.
TEST_F(ShmProcessesTest, AMemberKilledInAnOperationEndsItAtTheOthersAndLeavesNothing) {
  Start(3, "until-lost");
  for (int rank = 0; rank < 3; ++rank) {
    ASSERT_TRUE(testing::Eventually([&] { return SystemFiles().Exists(Path("under-way", rank)); }));
  }
  kill(members[1], SIGKILL);
  const auto killed = std::chrono::steady_clock::now();
  for (const int rank : {0, 2}) {
    EXPECT_EQ(ExitCode(rank), 0);
    EXPECT_THAT(Read("error", rank), ::testing::HasSubstr("rank 1"));
  }
  RecordProperty("ended_after_ms",
                 static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                      std::chrono::steady_clock::now() - killed)
                                      .count()));
  EXPECT_THAT(LeftSince(names_before), ::testing::IsEmpty());
}

}  // namespace
}  // namespace troupe
