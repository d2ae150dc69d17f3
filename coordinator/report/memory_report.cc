#include "coordinator/report/memory_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "coordinator/report/plan_report.h"

namespace troupe {
namespace {

constexpr size_t kRanksShown = 8;

int64_t PeakOf(const proto::MemoryReport& report) {
  int64_t sum = 0;
  for (const auto& tag : report.tags()) sum += tag.peak_bytes();
  return sum;
}

using TagBytes = int64_t (proto::MemoryReport::Tag::*)() const;

nlohmann::ordered_json ByTag(const proto::MemoryReport& report, TagBytes bytes) {
  nlohmann::ordered_json row;
  int64_t total = 0;
  for (const auto& tag : report.tags()) {
    row[tag.tag()] = (tag.*bytes)();
    total += (tag.*bytes)();
  }
  row["total"] = total;
  return row;
}

}  // namespace

std::string BytesOfPredicted(int64_t measured, int64_t predicted) {
  const auto larger = static_cast<double>(std::max(measured, predicted));
  const std::string words = BytesInWords(larger);
  const size_t space = words.find(' ');
  const double unit = words.ends_with("GiB")   ? 1 << 30
                      : words.ends_with("MiB") ? 1 << 20
                      : words.ends_with("KiB") ? 1 << 10
                                               : 1;
  const int decimals = words.find('.') < space ? 1 : 0;
  return fmt::format("{:.{}f}/{:.{}f}{}", static_cast<double>(measured) / unit, decimals,
                     static_cast<double>(predicted) / unit, decimals, words.substr(space));
}

std::string MemoryText(const MemoryReports& reports) {
  if (reports.empty() || reports.begin()->second.tags_size() == 0) return "";
  std::vector<int32_t> ranks;
  for (const auto& [rank, report] : reports) ranks.push_back(rank);
  std::ranges::stable_sort(ranks, std::greater(),
                           [&](int32_t rank) { return PeakOf(reports.at(rank)); });
  if (ranks.size() > kRanksShown) ranks.resize(kRanksShown);
  std::ranges::sort(ranks);

  std::string text = fmt::format("{:<6}", "rank");
  for (const auto& tag : reports.begin()->second.tags()) {
    text += fmt::format(" {:>14}", tag.tag());
  }
  text += fmt::format(" {:>10}\n", "other");
  for (const int32_t rank : ranks) {
    const proto::MemoryReport& report = reports.at(rank);
    text += fmt::format("{:<6}", rank);
    for (const auto& tag : report.tags()) {
      text += fmt::format(" {:>14}", BytesOfPredicted(tag.peak_bytes(), tag.predicted_bytes()));
    }
    const auto other = static_cast<double>(std::max<int64_t>(0, report.other_bytes()));
    text += fmt::format(" {:>10}\n", BytesInWords(other));
  }
  if (ranks.size() < reports.size()) {
    text += fmt::format("and {} ranks that need less\n", reports.size() - ranks.size());
  }
  return text;
}

std::string MemoryJson(const MemoryReports& reports) {
  if (reports.empty()) return "";
  nlohmann::ordered_json json;
  for (const auto& [rank, report] : reports) {
    nlohmann::ordered_json row;
    row["rank"] = rank;
    row["step"] = report.step();
    for (const auto& tag : report.tags()) {
      row["tags"][tag.tag()] = {{"predicted_bytes", tag.predicted_bytes()},
                                {"peak_bytes", tag.peak_bytes()},
                                {"current_bytes", tag.current_bytes()}};
    }
    row["resident_bytes"] = report.resident_bytes();
    row["other_bytes"] = report.other_bytes();
    json["ranks"].push_back(std::move(row));
  }
  return json.dump(2) + "\n";
}

std::string MemoryRowsJson(const MemoryReports& reports) {
  using Tag = proto::MemoryReport::Tag;
  auto json = nlohmann::ordered_json::array();
  for (const auto& [rank, report] : reports) {
    json.push_back({{"rank", rank},
                    {"predicted", ByTag(report, &Tag::predicted_bytes)},
                    {"peak", ByTag(report, &Tag::peak_bytes)},
                    {"current", ByTag(report, &Tag::current_bytes)}});
  }
  return json.dump();
}

}  // namespace troupe
