#include "coordinator/report/communication_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "actors/plan/communication_volume.h"
#include "coordinator/report/memory_report.h"
#include "runtime/base/bytes_in_words.h"

namespace troupe {
namespace {

using Row = proto::CommunicationReport::Row;

constexpr size_t kRanksShown = 8;

std::string NameOf(const Row& row) { return row.axis() + " " + row.operation(); }

int64_t PredictedBytes(const proto::CommunicationReport& report) {
  int64_t sum = 0;
  for (const Row& row : report.rows()) sum += row.predicted_bytes();
  return sum;
}

// The columns that any rank has: messages between stages, then a pipeline's sums, then the rest.
std::vector<std::string> ColumnsOf(const CommunicationReports& reports) {
  std::vector<std::string> names;
  for (const auto& [rank, report] : reports) {
    for (const Row& row : report.rows()) {
      if (std::ranges::find(names, NameOf(row)) == names.end()) names.push_back(NameOf(row));
    }
  }
  std::ranges::stable_sort(names, std::less(), [](const std::string& name) {
    const bool message = name == "pp activation" || name == "pp gradient";
    return std::pair(!name.starts_with("pp"), !message);
  });
  return names;
}

std::vector<int32_t> BusiestRanks(const CommunicationReports& reports) {
  std::vector<int32_t> ranks;
  for (const auto& [rank, report] : reports) ranks.push_back(rank);
  std::ranges::stable_sort(ranks, std::greater(),
                           [&](int32_t rank) { return PredictedBytes(reports.at(rank)); });
  if (ranks.size() > kRanksShown) ranks.resize(kRanksShown);
  std::ranges::sort(ranks);
  return ranks;
}

std::string Table(const CommunicationReports& reports, std::string_view indent,
                  const std::function<std::string(const Row&, int64_t steps)>& cell) {
  const std::vector<std::string> columns = ColumnsOf(reports);
  if (columns.empty()) return "";
  size_t width = 16;
  for (const std::string& column : columns) width = std::max(width, column.size());
  std::string text = fmt::format("{}{:<6}", indent, "rank");
  for (const std::string& column : columns) text += fmt::format(" {:>{}}", column, width);
  text += "\n";
  const std::vector<int32_t> shown = BusiestRanks(reports);
  for (const int32_t rank : shown) {
    const proto::CommunicationReport& report = reports.at(rank);
    text += fmt::format("{}{:<6}", indent, rank);
    for (const std::string& column : columns) {
      const auto& rows = report.rows();
      const auto row = std::find_if(rows.begin(), rows.end(),
                                    [&column](const Row& r) { return NameOf(r) == column; });
      text += fmt::format(" {:>{}}", row == rows.end() ? "-" : cell(*row, report.steps()), width);
    }
    text += "\n";
  }
  if (shown.size() < reports.size()) {
    text +=
        fmt::format("{}and {} ranks that send no more\n", indent, reports.size() - shown.size());
  }
  return text;
}

// Of one of `steps`.
nlohmann::ordered_json MeanOf(int64_t sum, int64_t steps) {
  if (sum % steps == 0) return sum / steps;
  return static_cast<double>(sum) / static_cast<double>(steps);
}

}  // namespace

std::string PlannedCommunicationText(const JobPlan& plan) {
  CommunicationReports reports;
  for (int32_t rank = 0; rank < plan.mesh.num_ranks(); ++rank) {
    proto::CommunicationReport& report = reports[rank];
    for (const CommunicationVolume& volume : CommunicationOf(plan, Rank(rank))) {
      Row& row = *report.add_rows();
      row.set_axis(std::string(AxisName(volume.axis)));
      row.set_operation(std::string(volume.operation));
      row.set_predicted_count(volume.count);
      row.set_predicted_bytes(volume.bytes);
    }
  }
  return Table(reports, "  ", [](const Row& row, int64_t) {
    return fmt::format("{} in {}", BytesInWords(static_cast<double>(row.predicted_bytes())),
                       row.predicted_count());
  });
}

std::string CommunicationText(const CommunicationReports& reports) {
  return Table(reports, "", [](const Row& row, int64_t steps) {
    return BytesOfPredicted(steps > 0 ? row.measured_bytes() / steps : 0, row.predicted_bytes());
  });
}

std::string CommunicationRowsJson(const CommunicationReports& reports) {
  auto json = nlohmann::ordered_json::array();
  for (const auto& [rank, report] : reports) {
    for (const Row& row : report.rows()) {
      nlohmann::ordered_json object = {
          {"rank", rank},
          {"axis", row.axis()},
          {"operation", row.operation()},
          {"predicted", {{"count", row.predicted_count()}, {"bytes", row.predicted_bytes()}}},
          {"measured", nullptr}};
      if (row.bytes_per_hop() > 0) object["predicted"]["bytes_per_hop"] = row.bytes_per_hop();
      if (const int64_t steps = report.steps(); steps > 0) {
        object["measured"] = {{"count", MeanOf(row.measured_count(), steps)},
                              {"bytes", MeanOf(row.measured_bytes(), steps)}};
      }
      json.push_back(std::move(object));
    }
  }
  return json.dump();
}

}  // namespace troupe
