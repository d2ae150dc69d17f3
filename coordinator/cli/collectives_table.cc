#include "coordinator/cli/collectives_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include <nlohmann/json.hpp>

#include "runtime/base/check.h"

namespace troupe {
namespace {

struct OperationFacts {
  std::string_view name;
  bool sums = false;
  bool rooted = false;
  bool in_parts = false;  // a part of the largest buffer for each worker
  bool out_of_place = false;
  bool one_is_a_part = false;  // out of place, of the two buffers
  bool in_place = true;
  double trips = 1;  // over the bus, times (n - 1) / n where every worker has a share
  bool shares = true;
};
constexpr OperationFacts kOperations[] = {
    {.name = "all-reduce", .sums = true, .trips = 2},
    {.name = "reduce-scatter",
     .sums = true,
     .in_parts = true,
     .out_of_place = true,
     .one_is_a_part = true},
    {.name = "all-gather", .in_parts = true, .out_of_place = true, .one_is_a_part = true},
    {.name = "broadcast", .rooted = true, .shares = false},
    {.name = "reduce", .sums = true, .rooted = true, .out_of_place = true, .shares = false},
    {.name = "all-to-all", .in_parts = true, .out_of_place = true, .in_place = false},
};

struct DTypeFacts {
  std::string_view name;
  std::string_view nccl_name;
  int64_t num_bytes;
};
constexpr DTypeFacts kDTypes[] = {{"float32", "float", 4}, {"bfloat16", "bfloat16", 2},
                                  {"float16", "half", 2},  {"float64", "double", 8},
                                  {"int32", "int32", 4},   {"int64", "int64", 8}};

template <typename Facts, size_t N>
const Facts& FactsOf(const Facts (&all)[N], std::string_view name) {
  const auto* found = std::ranges::find(all, name, &Facts::name);
  CHECK(found != std::end(all), "{}", name);
  return *found;
}
const OperationFacts& FactsOf(const CollectivesRequest& request) {
  return FactsOf(kOperations, request.operation);
}
const DTypeFacts& DTypeOf(const CollectivesRequest& request) {
  return FactsOf(kDTypes, request.dtype);
}

// As groups do (runtime/collective/neighbour_plan.h).
bool GoesAlongRing(const OperationFacts& operation) { return operation.sums && !operation.rooted; }

template <typename Facts, size_t N>
std::vector<std::string> NamesOf(const Facts (&all)[N]) {
  std::vector<std::string> names;
  for (const Facts& facts : all) names.emplace_back(facts.name);
  return names;
}

int64_t BytesOfRow(const CollectivesRequest& request, const CollectiveRow& row) {
  return row.count * DTypeOf(request).num_bytes;
}

constexpr std::string_view kFirstColumns = "{:>12}  {:>12}  {:>8}  {:>6}  {:>6}";
constexpr std::string_view kFormColumns = "  {:>7}  {:>6}  {:>6}  {:>6}";

std::string FormColumns(const CollectivesRequest& request, const CollectiveRow& row,
                        const std::optional<CollectiveTimes>& times) {
  if (!times) return fmt::format(kFormColumns, "N/A", "N/A", "N/A", "N/A");
  const double us = times->time_us;
  const int decimals = us >= 10'000 ? 0 : us >= 100 ? 1 : 2;
  return fmt::format(kFormColumns, fmt::format("{:.{}f}", us, decimals),
                     fmt::format("{:.2f}", AlgorithmBandwidth(request, row, *times)),
                     fmt::format("{:.2f}", BusBandwidth(request, row, *times)), times->num_wrong);
}

template <typename See>
void ForEachForm(std::span<const CollectiveRow> rows, See see) {
  for (const CollectiveRow& row : rows) {
    if (row.out_of_place) see(row, *row.out_of_place);
    if (row.in_place) see(row, *row.in_place);
  }
}

nlohmann::ordered_json FormJson(const CollectivesRequest& request, const CollectiveRow& row,
                                const std::optional<CollectiveTimes>& times) {
  if (!times) return nullptr;
  return {{"time_us", times->time_us},
          {"algbw", AlgorithmBandwidth(request, row, *times)},
          {"busbw", BusBandwidth(request, row, *times)},
          {"wrong", times->num_wrong}};
}

}  // namespace

std::vector<std::string> CollectiveOperations() { return NamesOf(kOperations); }
std::vector<std::string> CollectiveDTypes() { return NamesOf(kDTypes); }

Result<std::vector<CollectiveRow>> RowsOf(const CollectivesRequest& request) {
  const OperationFacts& operation = FactsOf(request);
  const int64_t parts = operation.in_parts ? request.workers : 1;
  const auto least = static_cast<uint64_t>(parts * DTypeOf(request).num_bytes);
  if (request.min_bytes < least) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "--min-bytes {}: {} of {} among {} workers has at least {} bytes",
                     request.min_bytes, request.operation, request.dtype, request.workers, least);
  }
  if (request.max_bytes < request.min_bytes) {
    return MakeError(ErrorCode::kInvalidSpec, "--max-bytes {}: use at least --min-bytes, {}",
                     request.max_bytes, request.min_bytes);
  }
  if (request.reduction == "ring" && !GoesAlongRing(operation)) {
    return MakeError(
        ErrorCode::kInvalidSpec,
        "--reduction ring: {} does not go along a ring, all-reduce and reduce-scatter do",
        request.operation);
  }
  std::vector<CollectiveRow> rows;
  for (uint64_t bytes = request.min_bytes; bytes <= request.max_bytes;
       bytes *= static_cast<uint64_t>(request.factor)) {
    CollectiveRow row{.count = static_cast<int64_t>(bytes / least) * parts};
    if (operation.out_of_place) row.out_of_place.emplace();
    if (operation.in_place) row.in_place.emplace();
    rows.push_back(row);
  }
  return rows;
}

Status CheckRoom(const CollectivesRequest& request, int64_t available_bytes) {
  const OperationFacts& operation = FactsOf(request);
  const auto workers = static_cast<uint64_t>(request.workers);
  const uint64_t other = request.max_bytes / (operation.one_is_a_part ? workers : 1);
  const uint64_t needed = workers * (request.max_bytes + (operation.out_of_place ? other : 0));
  if (needed <= static_cast<uint64_t>(available_bytes)) return {};
  return MakeError(ErrorCode::kInfeasible,
                   "--max-bytes {}: {} workers hold {} bytes of buffers, and this host has {} left",
                   request.max_bytes, request.workers, needed, available_bytes);
}

double AlgorithmBandwidth(const CollectivesRequest& request, const CollectiveRow& row,
                          const CollectiveTimes& times) {
  if (times.time_us <= 0) return 0;
  return static_cast<double>(BytesOfRow(request, row)) / times.time_us * 1e-3;
}

double BusBandwidth(const CollectivesRequest& request, const CollectiveRow& row,
                    const CollectiveTimes& times) {
  const OperationFacts& operation = FactsOf(request);
  const double n = request.workers;
  return AlgorithmBandwidth(request, row, times) *
         (operation.shares ? operation.trips * (n - 1) / n : 1);
}

double MeanBusBandwidth(const CollectivesRequest& request, std::span<const CollectiveRow> rows) {
  double sum = 0;
  int num_forms = 0;
  ForEachForm(rows, [&](const CollectiveRow& row, const CollectiveTimes& times) {
    sum += BusBandwidth(request, row, times);
    ++num_forms;
  });
  return num_forms == 0 ? 0 : sum / num_forms;
}

int64_t NumWrong(std::span<const CollectiveRow> rows) {
  int64_t sum = 0;
  ForEachForm(rows, [&](const CollectiveRow&, const CollectiveTimes& t) { sum += t.num_wrong; });
  return sum;
}

std::string CollectivesHeader(const CollectivesRequest& r) {
  std::string text = fmt::format(
      "# {} among {} workers of this host, reduction {}, bound to: {}, {} buffers\n"
      "# minBytes {} maxBytes {} step: {}(factor) warmup iters: {} iters: {} validation: 1\n#\n",
      r.operation, r.workers, r.reduction, r.bind, r.buffers, r.min_bytes, r.max_bytes, r.factor,
      r.warmup, r.iterations);
  const auto line = [&](auto... words) {
    std::string columns = fmt::format(kFirstColumns, words...);
    columns[0] = '#';
    return columns;
  };
  const auto twice = [](auto... words) {
    const std::string once = fmt::format(kFormColumns, words...);
    return once + once + "\n";
  };
  text += line("", "", "", "", "") + fmt::format("{:^33}{:^33}\n", "out-of-place", "in-place");
  text +=
      line("size", "count", "type", "redop", "root") + twice("time", "algbw", "busbw", "#wrong");
  text += line("(B)", "(elements)", "", "", "") + twice("(us)", "(GB/s)", "(GB/s)", "");
  return text;
}

std::string CollectivesLine(const CollectivesRequest& request, const CollectiveRow& row) {
  const OperationFacts& operation = FactsOf(request);
  return fmt::format(kFirstColumns, BytesOfRow(request, row),
                     row.count / (operation.in_parts ? request.workers : 1),
                     DTypeOf(request).nccl_name, operation.sums ? "sum" : "none",
                     operation.rooted ? 0 : -1) +
         FormColumns(request, row, row.out_of_place) + FormColumns(request, row, row.in_place) +
         "\n";
}

std::string CollectivesFooter(const CollectivesRequest& request,
                              std::span<const CollectiveRow> rows) {
  const int64_t num_wrong = NumWrong(rows);
  return fmt::format("# Out of bounds values : {} {}\n# Avg bus bandwidth    : {:g}\n#\n",
                     num_wrong, num_wrong == 0 ? "OK" : "FAILED", MeanBusBandwidth(request, rows));
}

std::string CollectivesJson(const CollectivesRequest& request,
                            std::span<const CollectiveRow> rows) {
  auto list = nlohmann::ordered_json::array();
  for (const CollectiveRow& row : rows) {
    list.push_back({{"bytes", BytesOfRow(request, row)},
                    {"out_of_place", FormJson(request, row, row.out_of_place)},
                    {"in_place", FormJson(request, row, row.in_place)}});
  }
  const nlohmann::ordered_json json{{"operation", request.operation},
                                    {"workers", request.workers},
                                    {"dtype", request.dtype},
                                    {"reduction", request.reduction},
                                    {"bind", request.bind},
                                    {"buffers", request.buffers},
                                    {"warmup", request.warmup},
                                    {"iterations", request.iterations},
                                    {"rows", list},
                                    {"mean_busbw", MeanBusBandwidth(request, rows)},
                                    {"wrong", NumWrong(rows)}};
  return json.dump() + "\n";
}

}  // namespace troupe
