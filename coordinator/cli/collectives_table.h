// What `troupe bench collectives` measures, and its table in the format of nccl-tests. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/result.h"

namespace troupe {

struct CollectivesRequest {
  int workers = 2;
  std::string operation = "all-reduce";
  std::string dtype = "float32";
  // Of a worker's largest buffer, as nccl-tests count: the input, of all-gather the output. From
  // `min` on, each `factor` times the one before.
  uint64_t min_bytes = uint64_t{1} << 10;
  uint64_t max_bytes = uint64_t{64} << 20;
  int factor = 4;
  int warmup = 5;
  int iterations = 20;
  std::string reduction = "ordered";  // in the workers' order; ring: all-reduce, reduce-scatter
  std::string bind = "cpu";           // each worker to one, in turn; none: where the kernel likes
  std::string buffers = "shared";     // workers read each other's in place; private: messages
};
std::vector<std::string> CollectiveOperations();
std::vector<std::string> CollectiveDTypes();

// Of an operation whose result has its own memory, or the input's.
struct CollectiveTimes {
  double time_us = 0;  // mean over the workers
  int64_t num_wrong = 0;
};
// One size. A form is empty where the operation does not have it.
struct CollectiveRow {
  int64_t count = 0;  // elements of the largest buffer
  std::optional<CollectiveTimes> out_of_place{};
  std::optional<CollectiveTimes> in_place{};
};

// Rows to measure, their forms zero; a size that the workers cannot share evenly is the next
// smaller one that they can. kInvalidSpec names the flag.
Result<std::vector<CollectiveRow>> RowsOf(const CollectivesRequest& request);

// kInfeasible where the workers' buffers are more than a host with so much memory left holds.
Status CheckRoom(const CollectivesRequest& request, int64_t available_bytes);

// GB/s, of 10^9 bytes. Bus bandwidth is what crosses the slowest link, whatever the operation.
double AlgorithmBandwidth(const CollectivesRequest& request, const CollectiveRow& row,
                          const CollectiveTimes& times);
double BusBandwidth(const CollectivesRequest& request, const CollectiveRow& row,
                    const CollectiveTimes& times);
// Over all forms of all rows.
double MeanBusBandwidth(const CollectivesRequest& request, std::span<const CollectiveRow> rows);
int64_t NumWrong(std::span<const CollectiveRow> rows);

std::string CollectivesHeader(const CollectivesRequest& request);
std::string CollectivesLine(const CollectivesRequest& request, const CollectiveRow& row);
std::string CollectivesFooter(const CollectivesRequest& request,
                              std::span<const CollectiveRow> rows);
// {"operation":…,"rows":[{"bytes":…,"in_place":{"time_us":…,"algbw":…,"busbw":…,"wrong":…},…}],
// "mean_busbw":…,"wrong":…}
std::string CollectivesJson(const CollectivesRequest& request, std::span<const CollectiveRow> rows);

}  // namespace troupe
