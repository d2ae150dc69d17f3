#include "coordinator/report/attention_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "actors/plan/context_balance.h"

namespace troupe {
namespace {

using Attention = proto::CommunicationReport::Attention;
using Phase = Attention::Phase;
using Pairs = google::protobuf::RepeatedField<int64_t>;

constexpr std::array<std::string_view, 3> kPhases = {"forward", "recompute", "backward"};
constexpr std::array<std::string_view, 3> kColumns = {"forward", "computed again", "backward"};
constexpr size_t kRanksShown = 8;

int64_t Sum(const Pairs& pairs) { return std::accumulate(pairs.begin(), pairs.end(), int64_t{0}); }

bool IsRing(const Attention& attention) {
  return attention.method() == ContextMethodName(ContextMethod::kRing);
}

// By how much of the time that blocks were under way the stream went on; nothing where none came.
std::optional<double> HiddenShare(const Attention& attention) {
  if (!IsRing(attention) || attention.under_way_ns() <= 0) return std::nullopt;
  const double idle =
      static_cast<double>(attention.idle_ns()) / static_cast<double>(attention.under_way_ns());
  return std::clamp(1 - idle, 0.0, 1.0);
}

// The ranks that share sequences, each group in its order.
std::vector<std::vector<const Attention*>> GroupsOf(const CommunicationReports& reports) {
  std::map<int32_t, std::vector<const Attention*>> by_first;
  for (const auto& [rank, report] : reports) {
    if (!report.has_attention()) continue;
    by_first[rank - report.attention().index()].push_back(&report.attention());
  }
  std::vector<std::vector<const Attention*>> groups;
  for (auto& [first, members] : by_first) {
    if (std::ssize(members) == members.front()->num_ranks()) groups.push_back(std::move(members));
  }
  return groups;
}

// Hops of one phase behind those of another; a rank that said less of one did nothing there.
HopWork WorkOf(const std::vector<const Attention*>& group,
               const std::function<const Pairs&(const Phase&)>& pairs_of) {
  HopWork work(group.size());
  for (size_t phase = 0; phase < kPhases.size(); ++phase) {
    int most = 0;
    const auto pairs = [&](const Attention& of) {
      return static_cast<int>(phase) < of.phases_size()
                 ? &pairs_of(of.phases(static_cast<int>(phase)))
                 : nullptr;
    };
    for (const Attention* of : group) most = std::max(most, pairs(*of) ? pairs(*of)->size() : 0);
    for (size_t i = 0; i < group.size(); ++i) {
      const Pairs* own = pairs(*group[i]);
      for (int hop = 0; hop < most; ++hop) {
        const bool said = own != nullptr && hop < own->size();
        work[i].push_back(said ? static_cast<double>(own->Get(hop)) : 0);
      }
    }
  }
  return work;
}

double BalanceBy(const CommunicationReports& reports,
                 const std::function<const Pairs&(const Phase&)>& pairs_of) {
  std::vector<HopWork> groups;
  bool ring = false;
  for (const auto& group : GroupsOf(reports)) {
    groups.push_back(WorkOf(group, pairs_of));
    ring = ring || IsRing(*group.front());
  }
  return BalanceOfGroups(ring ? ContextMethod::kRing : ContextMethod::kAllGather, groups);
}

// "1.0/1.0 M", both in the unit of the larger.
std::string PairsOfPredicted(int64_t measured, int64_t predicted) {
  static constexpr std::array<std::string_view, 5> kUnits = {"", " k", " M", " G", " T"};
  constexpr double kStep = 1000;
  auto larger = static_cast<double>(std::max(measured, predicted));
  double unit = 1;
  size_t index = 0;
  for (; larger >= kStep && index + 1 < kUnits.size(); ++index) {
    larger /= kStep;
    unit *= kStep;
  }
  const int digits = index == 0 ? 0 : 1;
  return fmt::format("{:.{}f}/{:.{}f}{}", static_cast<double>(measured) / unit, digits,
                     static_cast<double>(predicted) / unit, digits, kUnits[index]);
}

std::string Row(int32_t rank, const proto::CommunicationReport& report, bool hidden) {
  const Attention& attention = report.attention();
  std::string text = fmt::format("{:<6}", rank);
  for (int phase = 0; phase < static_cast<int>(kPhases.size()); ++phase) {
    std::string cell = "-";
    if (phase < attention.phases_size()) {
      const Phase& of = attention.phases(phase);
      const int64_t measured = report.steps() > 0 ? Sum(of.pairs()) / report.steps() : 0;
      const int64_t predicted = Sum(of.predicted_pairs());
      if (measured > 0 || predicted > 0) cell = PairsOfPredicted(measured, predicted);
    }
    text += fmt::format(" {:>16}", cell);
  }
  if (!hidden) return text + "\n";
  const auto share = HiddenShare(attention);
  return text + fmt::format(" {:>12}\n", share ? fmt::format("{:.1f} %", 100 * *share) : "-");
}

int64_t PredictedPairs(const Attention& attention) {
  int64_t sum = 0;
  for (const Phase& phase : attention.phases()) sum += Sum(phase.predicted_pairs());
  return sum;
}

// Plans are exact but where sequences pack documents: there they count each as one, the most.
bool SawLessThanPredicted(const proto::CommunicationReport& report) {
  int64_t measured = 0;
  for (const Phase& phase : report.attention().phases()) measured += Sum(phase.pairs());
  return report.steps() > 0 && measured < report.steps() * PredictedPairs(report.attention());
}

nlohmann::ordered_json WorkRow(int32_t rank, const proto::CommunicationReport& report, int phase,
                               int hop) {
  const Phase& of = report.attention().phases(phase);
  const int64_t steps = report.steps();
  nlohmann::ordered_json row = {{"rank", rank},
                                {"phase", kPhases[static_cast<size_t>(phase)]},
                                {"hop", hop},
                                {"predicted", nullptr},
                                {"measured", nullptr}};
  if (hop < of.predicted_pairs_size()) row["predicted"] = {{"pairs", of.predicted_pairs(hop)}};
  if (steps == 0) return row;
  const int64_t sum = hop < of.pairs_size() ? of.pairs(hop) : 0;
  nlohmann::ordered_json mean = sum / steps;
  if (sum % steps != 0) mean = static_cast<double>(sum) / static_cast<double>(steps);
  row["measured"] = {{"pairs", std::move(mean)}};
  return row;
}

bool AnyShares(const CommunicationReports& reports) {
  return std::ranges::any_of(reports, [](const auto& of) { return of.second.has_attention(); });
}

}  // namespace

AttentionBalance AttentionBalanceOf(const CommunicationReports& reports) {
  return {
      .predicted =
          BalanceBy(reports, [](const Phase& of) -> const Pairs& { return of.predicted_pairs(); }),
      .measured = BalanceBy(reports, [](const Phase& of) -> const Pairs& { return of.pairs(); })};
}

std::string AttentionText(const CommunicationReports& reports) {
  if (!AnyShares(reports)) return "";
  std::vector<int32_t> ranks;
  bool hidden = false;
  bool packs_documents = false;
  for (const auto& [rank, report] : reports) {
    if (!report.has_attention()) continue;
    ranks.push_back(rank);
    hidden = hidden || IsRing(report.attention());
    packs_documents = packs_documents || SawLessThanPredicted(report);
  }
  const size_t all = ranks.size();
  std::ranges::stable_sort(ranks, std::greater(), [&](int32_t rank) {
    return PredictedPairs(reports.at(rank).attention());
  });
  ranks.resize(std::min(all, kRanksShown));
  std::ranges::sort(ranks);
  std::string text = fmt::format("{:<6}", "rank");
  for (const std::string_view column : kColumns) text += fmt::format(" {:>16}", column);
  text += hidden ? fmt::format(" {:>12}\n", "hops hidden") : "\n";
  for (const int32_t rank : ranks) text += Row(rank, reports.at(rank), hidden);
  if (ranks.size() < all) {
    text += fmt::format("and {} ranks that compute no more\n", all - ranks.size());
  }
  const AttentionBalance balance = AttentionBalanceOf(reports);
  text += fmt::format(
      "balance {:.3f}/{:.3f}: an equal share of the pairs over those of the slowest {}\n",
      balance.measured, balance.predicted, hidden ? "rank of each hop" : "rank");
  if (!packs_documents) return text;
  return text +
         "predicted is for one document a sequence: with data.document_separator pairs are at most "
         "that, and lie as documents do\n";
}

std::string AttentionJson(const CommunicationReports& reports) {
  if (!AnyShares(reports)) return "";
  const AttentionBalance balance = AttentionBalanceOf(reports);
  nlohmann::ordered_json json = {
      {"method", ""},
      {"balance", {{"predicted", balance.predicted}, {"measured", balance.measured}}},
      {"work", nlohmann::ordered_json::array()},
      {"hops", nlohmann::ordered_json::array()}};
  for (const auto& [rank, report] : reports) {
    if (!report.has_attention()) continue;
    const Attention& attention = report.attention();
    json["method"] = attention.method();
    const int phases = std::min(attention.phases_size(), static_cast<int>(kPhases.size()));
    for (int phase = 0; phase < phases; ++phase) {
      const Phase& of = attention.phases(phase);
      const int hops = std::max(of.pairs_size(), of.predicted_pairs_size());
      for (int hop = 0; hop < hops; ++hop)
        json["work"].push_back(WorkRow(rank, report, phase, hop));
    }
    if (!IsRing(attention)) continue;
    constexpr double kSecondsPerNs = 1e-9;
    nlohmann::ordered_json row = {
        {"rank", rank},
        {"under_way_seconds", static_cast<double>(attention.under_way_ns()) * kSecondsPerNs},
        {"idle_seconds", static_cast<double>(attention.idle_ns()) * kSecondsPerNs},
        {"hidden", nullptr}};
    if (const auto share = HiddenShare(attention)) row["hidden"] = *share;
    json["hops"].push_back(std::move(row));
  }
  return json.dump();
}

}  // namespace troupe
