#include "runtime/collective/neighbour_plan.h"

#include <algorithm>
#include <map>
#include <span>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/collective/operation_plan.h"

namespace troupe {
namespace {

// The members of each host, in the group's order; all of one where hosts are unequal.
std::vector<std::vector<int>> MembersByHost(const GroupSpec& spec) {
  std::map<int, std::vector<int>> by_host;
  std::vector<int> all;
  for (size_t i = 0; i < spec.ranks.size(); ++i) {
    by_host[spec.hosts.empty() ? 0 : spec.hosts[i]].push_back(static_cast<int>(i));
    all.push_back(static_cast<int>(i));
  }
  std::vector<std::vector<int>> hosts;
  for (auto& [host, members] : by_host) hosts.push_back(std::move(members));
  const bool equal = std::ranges::all_of(
      hosts, [&](const auto& members) { return members.size() == hosts[0].size(); });
  return equal ? hosts : std::vector<std::vector<int>>{all};
}

class RingOfHosts {
 public:
  explicit RingOfHosts(const GroupSpec& spec) : hosts_(MembersByHost(spec)) {}

  struct Place {
    int host = 0;
    int within = 0;
    Place Back(int hosts, int steps) const { return {host - hosts, within - steps}; }
  };
  Place PlaceOf(int member) const {
    for (size_t host = 0; host < hosts_.size(); ++host) {
      const auto found = std::ranges::find(hosts_[host], member);
      if (found == hosts_[host].end()) continue;
      return {static_cast<int>(host), static_cast<int>(found - hosts_[host].begin())};
    }
    CHECK(false, "member {} is on no host", member);
  }
  // Hosts, and members within one, count round.
  int MemberAt(Place place) const {
    const std::vector<int>& members = hosts_[Round(place.host, hosts_.size())];
    return members[Round(place.within, members.size())];
  }
  int per_host() const { return static_cast<int>(hosts_[0].size()); }

 private:
  static size_t Round(int number, size_t size) {
    const auto end = static_cast<int>(size);
    return static_cast<size_t>((number % end + end) % end);
  }

  const std::vector<std::vector<int>> hosts_;
};

// At a member in `here`. The first hop of every round is one of the part that is owned by the
// member in `first`.
std::vector<NeighbourBlock> RingBlocks(const RingOfHosts& ring, RingOfHosts::Place here,
                                       RingOfHosts::Place first, std::span<const ElementRun> parts,
                                       int64_t block_elements) {
  const int last_hop = static_cast<int>(parts.size()) - 1;
  const int64_t longest = std::ranges::max(parts, {}, &ElementRun::count).count;
  std::vector<NeighbourBlock> blocks;
  for (int64_t at = 0; at < longest; at += block_elements) {
    for (int hop = 0; hop <= last_hop; ++hop) {
      const int hosts = hop / ring.per_host();
      const int steps = hop % ring.per_host();
      const auto owner = static_cast<size_t>(ring.MemberAt(first.Back(hosts, steps)));
      const ElementRun& part = parts[owner];
      const int64_t count = std::min(block_elements, part.count - at);
      if (count <= 0) continue;
      const bool enters = steps == 0;                    // the host
      const bool leaves = steps == ring.per_host() - 1;  // it
      blocks.push_back(
          {.run = {part.first + at, count},
           .from = hop == 0 ? -1 : ring.MemberAt(here.Back(enters ? 1 : 0, 1)),
           .to = hop == last_hop ? -1 : ring.MemberAt(here.Back(leaves ? -1 : 0, -1))});
    }
  }
  return blocks;
}

std::vector<NeighbourBlock> ChainBlocks(int64_t count, int from, int to, int size,
                                        int64_t block_elements) {
  std::vector<NeighbourBlock> blocks;
  for (int64_t first = 0; first < count; first += block_elements) {
    blocks.push_back({.run = {first, std::min(block_elements, count - first)},
                      .from = from < size ? from : -1,
                      .to = to < size ? to : -1});
  }
  return blocks;
}

}  // namespace

bool GoesByNeighbours(GroupOperationKind kind, SumAlgorithm algorithm) {
  switch (algorithm) {
    case SumAlgorithm::kOrdered:
      return false;
    case SumAlgorithm::kRing:
      return kind == GroupOperationKind::kAllReduce || kind == GroupOperationKind::kReduceScatter;
    case SumAlgorithm::kChain:
      return kind == GroupOperationKind::kAllReduce;
  }
  return false;
}

NeighbourPlan PlanNeighbours(const GroupOperation& operation, const GroupSpec& spec, int index,
                             int64_t block_elements) {
  const auto size = static_cast<int>(spec.ranks.size());
  const int64_t count = operation.input.count;
  if (spec.sums == SumAlgorithm::kChain) {
    return {.sums = ChainBlocks(count, index - 1, index + 1, size, block_elements),
            .copies = ChainBlocks(count, index + 1, index - 1, size, block_elements)};
  }
  const bool scatters = operation.kind == GroupOperationKind::kReduceScatter;
  const std::vector<ElementRun> parts =
      scatters ? PartsOf(operation, size) : DivideRing(count, size).summed;
  const RingOfHosts ring(spec);
  const RingOfHosts::Place here = ring.PlaceOf(index);
  NeighbourPlan plan{.sums = RingBlocks(ring, here, here.Back(1, 1), parts, block_elements)};
  if (scatters) {
    plan.output_first = parts[static_cast<size_t>(index)].first;
  } else {
    plan.copies = RingBlocks(ring, here, here, parts, block_elements);
  }
  return plan;
}

}  // namespace troupe
