#include "runtime/format/costs_file.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <span>

#include "runtime/format/json_reader.h"
#include "runtime/format/metrics_file.h"

namespace troupe {
namespace {

constexpr size_t kUnitBytesMax = 16;
constexpr std::array<std::string_view, 6> kKinds = {"forward",  "backward_input", "backward_weight",
                                                    "backward", "unshard",        "reduce_grad"};

// One stage's times by kind, as far as they are given.
using Given = std::array<std::optional<double>, kKinds.size()>;

Error Wrong(std::string_view place, std::string_view why) {
  return MakeError(ErrorCode::kCorrupt, "{}: {}", place, why);
}

Status CheckTime(double time, std::string_view place, std::string_view name) {
  if (time >= 0 && time <= kCostMax) return {};
  return Wrong(place, fmt::format("{} must be a time from 0 to {:g}", name, kCostMax));
}

Result<StageTimes> StageOf(const Given& given, const std::string& place) {
  for (size_t kind = 0; kind < kKinds.size(); ++kind) {
    if (given[kind]) RETURN_IF_ERROR(CheckTime(*given[kind], place, kKinds[kind]));
  }
  const auto& [forward, input, weight, backward, unshard, reduce_grad] = given;
  if (!forward) return Wrong(place, "forward is missing");
  if (input.has_value() != weight.has_value() || (!input && !backward)) {
    return Wrong(place, "give backward_input and backward_weight, or backward");
  }
  return StageTimes{.forward = *forward,
                    .backward_input = input,
                    .backward_weight = weight,
                    .backward = backward,
                    .unshard = unshard,
                    .reduce_grad = reduce_grad};
}

Result<CostsFile> Checked(CostsFile costs, const std::string& path) {
  if (costs.stages.empty() || costs.stages.size() > kCostsFileStagesMax) {
    return Wrong(path,
                 fmt::format("{} stages; give 1 to {}", costs.stages.size(), kCostsFileStagesMax));
  }
  const bool any = std::ranges::any_of(costs.stages, [](const StageTimes& stage) {
    return stage.forward > 0 || stage.backward_input.value_or(0) > 0 ||
           stage.backward_weight.value_or(0) > 0 || stage.backward.value_or(0) > 0;
  });
  if (!any) return Wrong(path, "every time is 0");
  return costs;
}

// ---- JSON ------------------------------------------------------------------------------------

Status CheckKeys(const nlohmann::json& object, const std::string& place,
                 std::span<const std::string_view> known) {
  for (const auto& [key, value] : object.items()) {
    if (std::ranges::find(known, std::string_view(key)) != known.end()) continue;
    return Wrong(place, fmt::format("{} is no key; use {}", Quoted(key), fmt::join(known, ", ")));
  }
  return {};
}

Result<StageTimes> StageOfJson(const nlohmann::json& value, const std::string& place) {
  if (!value.is_object()) return Wrong(place, "must be an object");
  RETURN_IF_ERROR(CheckKeys(value, place, kKinds));
  const JsonFields fields(value, place);
  Given given;
  for (size_t kind = 0; kind < kKinds.size(); ++kind) {
    if (fields.Member(kKinds[kind]) == nullptr) continue;
    double time = 0;
    RETURN_IF_ERROR(fields.Read(kKinds[kind], &time));
    given[kind] = time;
  }
  return StageOf(given, place);
}

Result<CostsFile> ParseJsonCosts(std::string_view text, const std::string& path) {
  ASSIGN_OR_RETURN(const nlohmann::json root, ParseJson(text, path, {.max_depth = 3}));
  if (!root.is_object()) return Wrong(path, "must be an object");
  constexpr std::string_view kKeys[] = {"unit", "link_latency", "step", "stages"};
  RETURN_IF_ERROR(CheckKeys(root, path, kKeys));
  const JsonFields fields(root, path);
  CostsFile costs;
  RETURN_IF_ERROR(fields.Read("unit", &costs.unit));
  const bool printable =
      std::ranges::all_of(costs.unit, [](char c) { return c >= ' ' && c <= '~'; });
  if (costs.unit.size() > kUnitBytesMax || !printable) {
    return Wrong(path, fmt::format("unit must be at most {} letters, like ms", kUnitBytesMax));
  }
  RETURN_IF_ERROR(fields.Read("link_latency", &costs.link_latency));
  RETURN_IF_ERROR(CheckTime(costs.link_latency, path, "link_latency"));
  RETURN_IF_ERROR(fields.Read("step", &costs.step));
  const nlohmann::json* stages = fields.Member("stages");
  if (stages == nullptr || !stages->is_array()) {
    return Wrong(path, "stages must be a list of objects, one a stage");
  }
  for (const nlohmann::json& stage : *stages) {
    ASSIGN_OR_RETURN(const StageTimes times,
                     StageOfJson(stage, fmt::format("{}: stage {}", path, costs.stages.size())));
    costs.stages.push_back(times);
  }
  return Checked(std::move(costs), path);
}

// ---- comma-separated values ------------------------------------------------------------------

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::vector<std::string_view> CellsOf(std::string_view line) {
  std::vector<std::string_view> cells;
  while (true) {
    const size_t comma = line.find(',');
    cells.push_back(Trimmed(line.substr(0, comma)));
    if (comma == std::string_view::npos) return cells;
    line.remove_prefix(comma + 1);
  }
}

Result<std::vector<size_t>> KindsOfColumns(std::string_view head, const std::string& place) {
  std::vector<size_t> kinds;
  for (const std::string_view cell : CellsOf(head)) {
    const auto kind = static_cast<size_t>(std::ranges::find(kKinds, cell) - kKinds.begin());
    if (kind == kKinds.size() || std::ranges::find(kinds, kind) != kinds.end()) {
      return Wrong(place,
                   fmt::format("{} is no column; name each of {} at most once (or write JSON)",
                               Quoted(cell), fmt::join(kKinds, ", ")));
    }
    kinds.push_back(kind);
  }
  return kinds;
}

Result<StageTimes> StageOfRow(std::string_view row, const std::vector<size_t>& kinds,
                              const std::string& place) {
  const auto cells = CellsOf(row);
  if (cells.size() != kinds.size()) {
    return Wrong(place, fmt::format("{} cells under {} column names", cells.size(), kinds.size()));
  }
  Given given;
  for (size_t i = 0; i < cells.size(); ++i) {
    double time = 0;
    const char* end = cells[i].data() + cells[i].size();
    const auto [read, code] = std::from_chars(cells[i].data(), end, time);
    if (code != std::errc() || read != end) {
      return Wrong(place, fmt::format("{} is no number", Quoted(cells[i])));
    }
    given[kinds[i]] = time;
  }
  return StageOf(given, place);
}

Result<CostsFile> ParseCsvCosts(std::string_view text, const std::string& path) {
  CostsFile costs;
  std::vector<size_t> kinds;
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = Trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty()) continue;
    const std::string place = fmt::format("{}: line {}", path, number);
    if (kinds.empty()) {
      ASSIGN_OR_RETURN(kinds, KindsOfColumns(line, place));
      continue;
    }
    ASSIGN_OR_RETURN(const StageTimes stage, StageOfRow(line, kinds, place));
    costs.stages.push_back(stage);
  }
  return Checked(std::move(costs), path);
}

}  // namespace

Result<CostsFile> ParseCostsFile(std::string_view text, const std::string& path) {
  if (static_cast<int64_t>(text.size()) > kCostsFileBytesMax) {
    return Wrong(path, fmt::format("{} bytes; at most {}", text.size(), kCostsFileBytesMax));
  }
  const size_t first = text.find_first_not_of(" \t\r\n");
  const bool json = first != std::string_view::npos && text[first] == '{';
  return json ? ParseJsonCosts(text, path) : ParseCsvCosts(text, path);
}

std::string CostsFileJson(const CostsFile& costs) {
  std::string text = "{";
  if (!costs.unit.empty()) text += fmt::format("\"unit\": {}, ", JsonString(costs.unit));
  if (costs.step != 0) text += fmt::format("\"step\": {}, ", costs.step);
  text += fmt::format("\"link_latency\": {},\n \"stages\": [", costs.link_latency);
  for (size_t i = 0; i < costs.stages.size(); ++i) {
    const StageTimes& stage = costs.stages[i];
    text += fmt::format("{}\n  {{\"forward\": {}", i == 0 ? "" : ",", stage.forward);
    const std::optional<double> others[] = {stage.backward_input, stage.backward_weight,
                                            stage.backward, stage.unshard, stage.reduce_grad};
    for (size_t kind = 1; kind < kKinds.size(); ++kind) {
      if (others[kind - 1]) text += fmt::format(", \"{}\": {}", kKinds[kind], *others[kind - 1]);
    }
    text += "}";
  }
  return text + "\n ]}\n";
}

}  // namespace troupe
