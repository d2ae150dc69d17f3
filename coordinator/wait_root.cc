#include "coordinator/wait_root.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>

namespace troupe {
namespace {

constexpr size_t kCircleTold = 8;  // of its waits, at most

struct Edge {
  const proto::WaitEdge* wait = nullptr;
  size_t rank = 0;  // that said it
};

bool IsRank(int32_t rank, std::span<const WaitsOfRank> ranks) {
  return rank >= 0 && static_cast<size_t>(rank) < ranks.size();
}

// Rank 0 has two that others wait for: its executor, as every rank, and the schedule.
bool IsSchedule(std::string_view name) { return name.starts_with("schedule"); }

bool Longer(const std::optional<Edge>& edge, const proto::WaitEdge& than) {
  return edge && edge->wait->waited_ms() >= than.waited_ms();
}

// The longest wait of a rank that owes `edge`, which explains it.
std::optional<Edge> WaitOf(size_t rank, const Edge& edge, std::span<const WaitsOfRank> ranks) {
  std::optional<Edge> longest;
  for (const proto::WaitEdge& other : ranks[rank].edges) {
    if (&other == edge.wait || Longer(longest, other)) continue;
    if (IsSchedule(other.waiter()) == IsSchedule(edge.wait->from())) longest = Edge{&other, rank};
  }
  return longest;
}

// The wait that explains `edge`: the longest of whoever owes it.
std::optional<Edge> Next(const Edge& edge, std::span<const WaitsOfRank> ranks) {
  std::optional<Edge> next;
  for (const int32_t owing : edge.wait->from_ranks()) {
    if (!IsRank(owing, ranks)) continue;
    const auto wait = WaitOf(static_cast<size_t>(owing), edge, ranks);
    if (wait && !Longer(next, *wait->wait)) next = wait;
  }
  return next;
}

// Somebody who owes it waits for nothing.
bool IsOwedByAnIdleRank(const Edge& edge, std::span<const WaitsOfRank> ranks) {
  return std::ranges::any_of(edge.wait->from_ranks(), [&](int32_t owing) {
    return IsRank(owing, ranks) && !WaitOf(static_cast<size_t>(owing), edge, ranks);
  });
}

std::string InWords(const proto::WaitEdge& wait) {
  return fmt::format("{} waits for {}{}{} for {} s", wait.waiter(), wait.owed(),
                     wait.from().empty() ? "" : " from ", wait.from(), wait.waited_ms() / 1000);
}

// A wait that no other one explains.
WaitRoot EndOfChain(const Edge& edge, std::span<const WaitsOfRank> ranks) {
  WaitRoot root{.sentence = InWords(*edge.wait), .waited_ms = edge.wait->waited_ms()};
  for (const int32_t owing : edge.wait->from_ranks()) {
    if (!IsRank(owing, ranks) || static_cast<size_t>(owing) == edge.rank) continue;
    if (WaitOf(static_cast<size_t>(owing), edge, ranks)) continue;
    root.sentence += fmt::format("; {} waits for nothing", ranks[static_cast<size_t>(owing)].name);
  }
  return root;
}

// The circle that the chain of `edge` leads into, from its longest wait on. A schedule that can run
// has none, so one of its waits is most likely for something that was sent; or else for a rank
// outside it that waits for nothing.
WaitRoot Circle(Edge edge, std::span<const WaitsOfRank> ranks) {
  std::vector<Edge> chain;
  auto first = chain.end();
  while (first == chain.end()) {
    chain.push_back(edge);
    edge = *Next(edge, ranks);
    first = std::ranges::find(chain, edge.wait, &Edge::wait);
  }
  chain.erase(chain.begin(), first);
  const auto waited_ms = [](const Edge& of) { return of.wait->waited_ms(); };
  std::rotate(chain.begin(), std::ranges::max_element(chain, {}, waited_ms), chain.end());
  std::vector<std::string> waits;
  for (const Edge& of : chain) {
    if (IsOwedByAnIdleRank(of, ranks)) return EndOfChain(of, ranks);
    if (waits.size() < kCircleTold) waits.push_back(InWords(*of.wait));
  }
  if (chain.size() > kCircleTold) {
    waits.push_back(fmt::format("{} more", chain.size() - kCircleTold));
  }
  return {.sentence = fmt::format("{}: each waits for the next, the last for the first, so a "
                                  "message between two of them was most likely lost",
                                  fmt::join(waits, "; ")),
          .waited_ms = waited_ms(*std::ranges::min_element(chain, {}, waited_ms))};
}

}  // namespace

std::optional<WaitRoot> RootOfWaits(std::span<const WaitsOfRank> ranks) {
  std::optional<Edge> end;
  std::optional<Edge> longest;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    if (!ranks[rank].answered) {
      return WaitRoot{.sentence = ranks[rank].silence.empty()
                                      ? ranks[rank].name + " does not answer"
                                      : ranks[rank].silence};
    }
    for (const proto::WaitEdge& wait : ranks[rank].edges) {
      const Edge edge{&wait, rank};
      if (!Longer(longest, wait)) longest = edge;
      if (!Longer(end, wait) && !Next(edge, ranks)) end = edge;
    }
  }
  if (end) return EndOfChain(*end, ranks);
  if (longest) return Circle(*longest, ranks);
  return std::nullopt;
}

}  // namespace troupe
