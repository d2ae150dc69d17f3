// A process that is one member of a group over UCX, for tests of members that share no process:
//
//     group_member RANK SIZE FOLDER [shared | ring | until-lost]
//
// runs every operation with the other members and writes what it was left with to FOLDER/left-RANK,
// and its lanes to FOLDER/lanes-RANK ("shared-memory tcp tcp"). Members find each other by files in
// the folder. Exit code 0: all of it went well.
//   shared       its tensors are shared: members of its host read them in place. How many bytes:
//                FOLDER/lent-RANK
//   ring         the same in a group that sums along a ring, whose first half is one host
//   until-lost   all-reduces such a tensor until that fails: then why is in FOLDER/error-RANK. Once
//                it has read in place FOLDER/under-way-RANK is there.
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>

#include "runtime/base/file_system.h"
#include "tests/runtime/collective/every_operation.h"
#include "tests/runtime/collective/shared_world.h"

namespace troupe {
namespace {

constexpr int kSilenceMs = 600'000;
constexpr int64_t kFileBytes = 1 << 20;

class Member {
 public:
  Member(int rank, int size, std::string folder)
      : rank_(rank), size_(size), folder_(std::move(folder)), member_(network_, Rank(rank)) {}

  Status Run(std::string_view how) {
    RETURN_IF_ERROR(Meet("address", member_.transport->LocalAddress()));
    for (int peer = 0; peer < size_; ++peer) {
      if (peer == rank_) continue;
      ASSIGN_OR_RETURN(const std::string address,
                       SystemFiles().ReadFile(Path("address", peer), kFileBytes));
      RETURN_IF_ERROR(member_.transport->Connect(Rank(peer), address));
    }
    GroupSpec spec{.id = GroupId(5), .name = "g", .self = Rank(rank_)};
    for (int rank = 0; rank < size_; ++rank) spec.ranks.emplace_back(rank);
    if (how == "ring") SumAlongARing(spec);
    ASSIGN_OR_RETURN(const std::unique_ptr<Group> group, member_.groups.Open(spec, /*channel=*/16));
    RETURN_IF_ERROR(Meet("open", ""));
    if (how == "until-lost") return RunUntilLost(*group);
    std::string left;
    std::optional<Status> ended;
    const StreamScope scope(*member_.stream);
    member_.stream->LaunchTask(
        scope, RunEveryOperation(*group, &left),
        [&ended](const WorkTime&, Status status) { ended = std::move(status); });
    if (!Until([&ended] { return ended.has_value(); })) {
      return MakeError(ErrorCode::kDeadlineExceeded, "the operations do not end");
    }
    RETURN_IF_ERROR(*ended);
    std::string lanes;
    for (int peer = 0; peer < size_; ++peer) {
      if (peer == rank_) continue;
      lanes += fmt::format("{}{}", lanes.empty() ? "" : " ",
                           LaneName(member_.transport->LaneTo(Rank(peer))));
    }
    RETURN_IF_ERROR(WriteFileAtomically(SystemFiles(), Path("lanes", rank_), lanes));
    RETURN_IF_ERROR(WriteFileAtomically(SystemFiles(), Path("lent", rank_),
                                        std::to_string(member_.groups.lent_bytes())));
    return Meet("left", left);  // who goes first is no lost member
  }

 private:
  static Task<Status> Reduce(Group& group) {
    Tensor data = Tensor::Random(DType::kFloat32, 250'000, 1);
    while (true) CO_RETURN_IF_ERROR(co_await group.AllReduce(data.elements()));
  }
  Status RunUntilLost(Group& group) {
    std::optional<Status> ended;
    const StreamScope scope(*member_.stream);
    member_.stream->LaunchTask(scope, Reduce(group), [&ended](const WorkTime&, Status status) {
      ended = std::move(status);
    });
    if (Until([this, &ended] { return ended || member_.groups.lent_bytes() > 1'000'000; })) {
      RETURN_IF_ERROR(WriteFileAtomically(SystemFiles(), Path("under-way", rank_), ""));
    }
    if (!Until([&ended] { return ended.has_value(); })) {
      return MakeError(ErrorCode::kDeadlineExceeded, "the lost member is not noticed");
    }
    return WriteFileAtomically(SystemFiles(), Path("error", rank_), ended->error().message);
  }
  std::string Path(const std::string& what, int rank) const {
    return JoinPath(folder_, fmt::format("{}-{}", what, rank));
  }
  template <typename Done>
  bool Until(Done done) {
    return testing::DrivenUntil(done, [this] { member_.scheduler.RunUntilIdle(); });
  }
  // Says it to the other members, and waits until all have said theirs.
  Status Meet(const std::string& what, const std::string& bytes) {
    RETURN_IF_ERROR(WriteFileAtomically(SystemFiles(), Path(what, rank_), bytes));
    for (int rank = 0; rank < size_; ++rank) {
      if (Until([&] { return SystemFiles().Exists(Path(what, rank)); })) continue;
      return MakeError(ErrorCode::kDeadlineExceeded, "{} is not there", Path(what, rank));
    }
    return {};
  }

  const int rank_;
  const int size_;
  const std::string folder_;
  SharingNetwork<UcxWorldNetwork> network_{{.silence_ms = kSilenceMs}};
  RouterMember<SharingNetwork<UcxWorldNetwork>> member_;
};

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) return 2;
  const int rank = std::atoi(argv[1]);
  const std::string_view how = argc == 5 ? argv[4] : "";
  troupe::testing::shared_tensors = !how.empty();
  const troupe::Status ran = troupe::Member(rank, std::atoi(argv[2]), argv[3]).Run(how);
  if (ran.ok()) return 0;
  fmt::print(stderr, "member {}: {}\n", rank, ran.error().message);
  return 1;
}
