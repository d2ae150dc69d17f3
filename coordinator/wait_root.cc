#include "coordinator/wait_root.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace troupe {
namespace {

struct Edge {
  const proto::WaitEdge* wait = nullptr;
  size_t rank = 0;  // that said it
};

bool IsRank(int32_t rank, std::span<const WaitsOfRank> ranks) {
  return rank >= 0 && static_cast<size_t>(rank) < ranks.size();
}

// Rank 0 has two that others wait for: its executor, as every rank, and the schedule.
bool IsSchedule(std::string_view name) { return name.starts_with("schedule"); }

// Whether a wait of whoever owes `edge` explains it.
bool LeadsOn(const Edge& edge, std::span<const WaitsOfRank> ranks) {
  return std::ranges::any_of(edge.wait->from_ranks(), [&](int32_t owing) {
    if (!IsRank(owing, ranks)) return false;
    const auto& waits = ranks[static_cast<size_t>(owing)].edges;
    return std::ranges::any_of(waits, [&](const proto::WaitEdge& other) {
      return &other != edge.wait && IsSchedule(other.waiter()) == IsSchedule(edge.wait->from());
    });
  });
}

std::string InWords(const Edge& edge, std::span<const WaitsOfRank> ranks) {
  const proto::WaitEdge& wait = *edge.wait;
  std::string text = fmt::format("{} waits for {}", wait.waiter(), wait.owed());
  if (!wait.from().empty()) text += fmt::format(" from {}", wait.from());
  text += fmt::format(" for {} s", wait.waited_ms() / 1000);
  if (LeadsOn(edge, ranks)) return text + ", and is waited for itself";
  for (const int32_t owing : wait.from_ranks()) {
    if (!IsRank(owing, ranks) || static_cast<size_t>(owing) == edge.rank) continue;
    text += fmt::format("; {} waits for nothing", ranks[static_cast<size_t>(owing)].name);
  }
  return text;
}

}  // namespace

std::optional<WaitRoot> RootOfWaits(std::span<const WaitsOfRank> ranks) {
  std::optional<Edge> root;
  bool root_leads_on = true;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    if (!ranks[rank].answered) {
      return WaitRoot{.sentence = ranks[rank].silence.empty()
                                      ? ranks[rank].name + " does not answer"
                                      : ranks[rank].silence};
    }
    for (const proto::WaitEdge& wait : ranks[rank].edges) {
      const Edge edge{&wait, rank};
      const bool leads_on = LeadsOn(edge, ranks);
      if (root && (leads_on && !root_leads_on)) continue;
      const bool further = root && root_leads_on && !leads_on;
      if (root && !further && wait.waited_ms() <= root->wait->waited_ms()) continue;
      root = edge;
      root_leads_on = leads_on;
    }
  }
  if (!root) return std::nullopt;
  return WaitRoot{.sentence = InWords(*root, ranks), .waited_ms = root->wait->waited_ms()};
}

}  // namespace troupe
