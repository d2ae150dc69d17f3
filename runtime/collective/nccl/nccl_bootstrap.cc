#include "runtime/collective/nccl/nccl_bootstrap.h"

#include <span>
#include <utility>

namespace troupe {
namespace {

// Records as elements: the group moves those of its own types.
template <typename Record>
Elements AsElements(const Group& group, std::span<Record> records) {
  const ElementType& type = group.elements().front();
  CHECK(sizeof(Record) % static_cast<size_t>(type.num_bytes) == 0);
  return {type.dtype, records.data(), static_cast<int64_t>(records.size_bytes()) / type.num_bytes};
}

}  // namespace

// Lives as long as the operations that refer to it.
struct NcclBootstrap::Joining {
  Result<NcclMember> self;
  std::function<Result<NcclId>()> make_id;
  std::string text;
  std::vector<NcclMember> members{};
  NcclId id{};
};

NcclBootstrap::NcclBootstrap(Scheduler& scheduler, std::unique_ptr<Group> group)
    : group_(std::move(group)), stream_(scheduler), scope_(stream_) {}

void NcclBootstrap::Join(Result<NcclMember> self, std::function<Result<NcclId>()> make_id,
                         std::string text, std::function<void(const Result<NcclId>&)> joined) {
  const auto joining =
      std::make_shared<Joining>(Joining{std::move(self), std::move(make_id), std::move(text)});
  stream_.LaunchTask(scope_, Exchange(*joining),
                     [joining, joined = std::move(joined)](const WorkTime&, const Status& status) {
                       joined(status.ok() ? Result<NcclId>(joining->id) : status.error());
                     });
}

Task<Status> NcclBootstrap::Exchange(Joining& joining) {
  const GroupPurpose purpose{.stands_for = joining.text};
  if (!joining.self.ok()) co_return AtMember(group_->spec(), joining.self.error());
  joining.members.resize(static_cast<size_t>(size()));
  CO_RETURN_IF_ERROR(co_await group_->AllGather(AsElements(*group_, std::span(&*joining.self, 1)),
                                                AsElements(*group_, std::span(joining.members)), {},
                                                purpose));
  CO_RETURN_IF_ERROR(CheckNcclMembers(joining.members, group_->spec()));
  if (group_->index() == 0) {
    const Result<NcclId> made = joining.make_id();
    if (!made.ok()) co_return AtMember(group_->spec(), made.error());
    joining.id = *made;
  }
  co_return co_await group_->Broadcast(AsElements(*group_, std::span(&joining.id, 1)), 0, purpose);
}

void NcclBootstrap::Say(Begun said, std::string text, const GroupPurpose& purpose,
                        std::function<void(const Result<Begun>&)> heard) {
  // Lives as long as the operation that refers to it.
  struct Saying {
    Begun said;
    std::string text;
    Begun heard{};
    std::vector<int64_t> counts{};
  };
  const auto saying = std::make_shared<Saying>(Saying{std::move(said), std::move(text)});
  saying->heard.resize(saying->said.size());
  const Elements out = AsElements(*group_, std::span(saying->said));
  const Elements in = AsElements(*group_, std::span(saying->heard));
  saying->counts.assign(saying->said.size(), out.count / size());
  const GroupPurpose stands{
      .step = purpose.step, .microbatch = purpose.microbatch, .stands_for = saying->text};
  stream_.LaunchTask(scope_, group_->AllToAll(out, saying->counts, in, saying->counts, stands),
                     [saying, heard = std::move(heard)](const WorkTime&, const Status& status) {
                       heard(status.ok() ? Result<Begun>(saying->heard) : status.error());
                     });
}

void NcclBootstrap::Meet(const GroupPurpose& purpose, std::function<void(const Status&)> met) {
  stream_.LaunchTask(
      scope_, group_->Barrier(purpose),
      [met = std::move(met)](const WorkTime&, const Status& status) { met(status); });
}

}  // namespace troupe
