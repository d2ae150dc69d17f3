#include "runtime/collective/router_groups.h"

#include <algorithm>
#include <utility>

#include "runtime/collective/collective_actor.h"
#include "runtime/collective/router_group.h"

namespace troupe {
namespace {

// Of the door's mailbox. Credits bound what comes: Open refuses what would not fit.
constexpr int kMailboxBound = 1 << 16;

}  // namespace

RouterGroups::RouterGroups(RankRouter& router, RouterGroupsOptions options)
    : router_(router),
      options_(options),
      lent_(router, options.actor_index, options.lends, options.min_lent_bytes, *options.ledger) {
  CHECK(options_.ledger != nullptr && options_.slots_per_peer > 0 && options_.slot_bytes > 0);
  actor_ = router_.scheduler().Spawn<CollectiveActor>(
      {.name = "collective", .mailbox_bound = kMailboxBound}, std::ref(*this));
  router_.Register<WithBulk<GroupBlock>, GroupFault, BlocksRead, LendingOffer, LendingAnswer>(
      options_.actor_index, actor_);
}

RouterGroups::~RouterGroups() {
  CHECK(groups_.empty(), "{} groups are left while their rank ends", groups_.size());
  router_.Unregister(options_.actor_index);
  router_.scheduler().End(actor_);
}

Result<std::unique_ptr<Group>> RouterGroups::Open(GroupSpec spec, uint16_t channel) {
  const GroupId id = spec.id;
  if (groups_.contains(id.value)) {
    return MakeError(ErrorCode::kInvalidSpec, "group {}: number {} is group {} already", spec.name,
                     id, Find(id.value)->spec().name);
  }
  // Of each member: a block for every slot, as many that say what was read, and a fault.
  int64_t num_members = std::ssize(spec.ranks);
  for (const auto& [number, group] : groups_) num_members += group->size();
  const int64_t num_messages = num_members * (2 * int64_t{options_.slots_per_peer} + 1);
  if (num_messages > kMailboxBound) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "group {}: with it {} messages may come at once, at most {}; use fewer slots",
                     spec.name, num_messages, kMailboxBound);
  }
  Transport& transport = router_.transport();
  for (const Rank rank : spec.ranks) {
    if (rank == spec.self) continue;
    RETURN_IF_ERROR(
        transport.PostSlots(rank, channel, options_.slots_per_peer, options_.slot_bytes));
    transport.SetCredits(rank, channel, options_.slots_per_peer);
  }
  auto group = std::make_unique<RouterGroup>(*this, std::move(spec), channel);
  for (const Rank rank : group->spec().ranks) {
    const auto lost = lost_.find(rank);
    if (lost != lost_.end()) {
      group->Break(Context("group " + group->spec().name, lost->second), /*tell=*/false);
    }
  }
  return std::unique_ptr<Group>(std::move(group));
}

RouterGroup* RouterGroups::Find(uint32_t group) const {
  const auto found = groups_.find(group);
  return found == groups_.end() ? nullptr : found->second;
}

// Behind the blocks that came before it: with these an operation may have ended.
void RouterGroups::OnPeerDown(Rank peer, const Error& cause) {
  const Status sent = actor_.Send(MemberLost{peer, cause});
  CHECK(sent.ok(), "{}", sent.error().message);
}

void RouterGroups::OnCredit(Rank peer, uint16_t channel) {
  for (const auto& [id, group] : groups_) {
    if (group->channel() == channel && group->IndexOf(peer)) group->Advance();
  }
}

void RouterGroups::Take(WithBulk<GroupBlock> block) {
  RouterGroup* group = Find(block.message.group);
  const auto from =
      group != nullptr ? group->IndexOf(Rank(block.envelope.source_rank)) : std::nullopt;
  if (!from || *from == group->index()) {
    ++num_dropped_;
    return;
  }
  group->Take(*from, std::move(block));
}

void RouterGroups::Take(const GroupFault& fault) {
  RouterGroup* group = Find(fault.group);
  const bool is_fault = fault.text_bytes <= GroupFault::kTextBytes &&
                        fault.code <= static_cast<uint8_t>(ErrorCode::kFailed);
  if (group == nullptr || !is_fault) {
    ++num_dropped_;
    return;
  }
  group->Break(Error{static_cast<ErrorCode>(fault.code), std::string(fault.text, fault.text_bytes)},
               /*tell=*/false);
}

void RouterGroups::Take(const BlocksRead& read) {
  RouterGroup* group = Find(read.group);
  const auto from = group != nullptr ? group->IndexOf(Rank(read.rank)) : std::nullopt;
  if (!from || *from == group->index()) {
    ++num_dropped_;
    return;
  }
  group->TakeRead(*from, read.sequence);
}

bool RouterGroups::IsMember(Rank rank) const {
  return rank != router_.self() && std::ranges::any_of(groups_, [rank](const auto& group) {
           return group.second->IndexOf(rank).has_value();
         });
}

void RouterGroups::Take(const LendingOffer& offer) {
  if (!IsMember(Rank(offer.rank))) {
    ++num_dropped_;
    return;
  }
  lent_.Take(offer);
}

void RouterGroups::Take(const LendingAnswer& answer) { lent_.Take(answer); }

void RouterGroups::Take(const MemberLost& lost) {
  lost_.try_emplace(lost.rank, lost.cause);
  lent_.Forget(lost.rank);
  for (const auto& [id, group] : groups_) {
    if (group->IndexOf(lost.rank)) {
      group->Break(Context("group " + group->spec().name, lost.cause), /*tell=*/true);
    }
  }
}

}  // namespace troupe
