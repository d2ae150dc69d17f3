#include "tests/benchmark/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <ctime>

#include <nlohmann/json.hpp>

namespace troupe::bench {
namespace {

// Three significant digits, without an exponent.
std::string Short(double value) {
  if (std::abs(value) >= 100) return fmt::format("{:.0f}", value);
  if (std::abs(value) >= 10) return fmt::format("{:.1f}", value);
  return fmt::format("{:.2f}", value);
}

// "31.2 ±4%": half the distance between the extremes, of the median's size.
std::string WithSpread(const std::vector<double>& samples) {
  if (samples.empty()) return "-";
  const auto [least, most] = std::ranges::minmax(samples);
  const double median = Median(samples);
  const double spread = median != 0 ? 50 * (most - least) / std::abs(median) : 0;
  return fmt::format("{} ±{:.0f}%", Short(median), spread);
}

double ClockNs(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

nlohmann::json Extremes(const std::vector<double>& samples) {
  if (samples.empty()) return nullptr;
  const auto [least, most] = std::ranges::minmax(samples);
  return {least, most};
}

// "2x", "±5%" of a ratio, "±1.50" in the row's unit.
std::string Goal(const Comparison& what) {
  if (what.apart_max > 0) return "±" + Short(what.apart_max);
  if (what.within > 0) return fmt::format("±{:g}%", 100 * what.within);
  return what.goal > 0 ? Short(what.goal) + "x" : "-";
}

// fmt counts "±" as one column, so plain widths align.
constexpr std::string_view kLine = "{:<36} {:>16} {:>16} {:>8} {:>6}  {:<5} {}";

}  // namespace

double Median(std::vector<double> samples) {
  if (samples.empty()) return 0;
  std::ranges::sort(samples);
  const size_t middle = samples.size() / 2;
  return samples.size() % 2 == 1 ? samples[middle] : (samples[middle - 1] + samples[middle]) / 2;
}

std::optional<double> Row::Ratio() const {
  const double o = Median(ours);
  const double p = Median(peer);
  if (o <= 0 || p <= 0 || what.apart_max > 0) return std::nullopt;
  return what.higher_is_better ? o / p : p / o;
}

std::optional<bool> Row::Met() const {
  if (what.apart_max > 0) {
    if (ours.empty() || peer.empty()) return std::nullopt;
    return std::abs(Median(ours) - Median(peer)) <= what.apart_max;
  }
  const auto ratio = Ratio();
  if (!ratio || (what.goal <= 0 && what.within <= 0)) return std::nullopt;
  return *ratio >= what.goal && (what.within <= 0 || std::abs(*ratio - 1) <= what.within);
}

std::string RowJson(const Row& row) {
  nlohmann::ordered_json json;
  const auto number = [](const std::vector<double>& samples) -> nlohmann::json {
    return samples.empty() ? nlohmann::json() : nlohmann::json(Median(samples));
  };
  const auto ratio = row.Ratio();
  const auto met = row.Met();
  json["name"] = row.what.name;
  json["ours"] = number(row.ours);
  json["peer"] = number(row.peer);
  json["peer_name"] = row.what.peer_name;
  json["unit"] = row.what.unit;
  json["ratio"] = ratio ? nlohmann::json(*ratio) : nlohmann::json();
  json["goal"] = row.what.goal > 0 ? nlohmann::json(row.what.goal) : nlohmann::json();
  if (row.what.within > 0) json["within"] = row.what.within;
  if (row.what.apart_max > 0) json["apart_max"] = row.what.apart_max;
  json["met"] = met ? nlohmann::json(*met) : nlohmann::json();
  json["ours_extremes"] = Extremes(row.ours);
  json["peer_extremes"] = Extremes(row.peer);
  if (!row.skipped.empty()) json["skip"] = row.skipped;
  return json.dump();
}

std::string TableHeader() {
  return fmt::format(kLine, "benchmark", "ours", "peer", "ratio", "goal", "met", "unit, peer");
}

std::string TableLine(const Row& row) {
  const auto ratio = row.Ratio();
  const auto met = row.Met();
  std::string remark = row.what.unit;
  if (!row.what.peer_name.empty()) remark += ", " + row.what.peer_name;
  if (!row.skipped.empty()) remark += ", SKIP: " + row.skipped;
  return fmt::format(kLine, row.what.name, WithSpread(row.ours), WithSpread(row.peer),
                     ratio ? Short(*ratio) + "x" : "-", Goal(row.what),
                     met ? (*met ? "yes" : "NO") : "-", remark);
}

void Bench::Compare(const Comparison& what, const Sample& ours, const Sample& peer) {
  Row row{.what = what};
  ours();
  peer();
  for (int round = 0; round < what.num_rounds; ++round) {
    row.ours.push_back(ours());
    row.peer.push_back(peer());
  }
  Report(row);
}

void Bench::Measure(const Comparison& what, const Sample& ours, std::string why_no_peer) {
  Row row{.what = what, .skipped = std::move(why_no_peer)};
  ours();
  for (int round = 0; round < what.num_rounds; ++round) row.ours.push_back(ours());
  Report(row);
}

void Bench::Skip(const Comparison& what, std::string why) {
  Report({.what = what, .skipped = std::move(why)});
}

double ProcessCpuNs() { return ClockNs(CLOCK_PROCESS_CPUTIME_ID); }
double WallNs() { return ClockNs(CLOCK_MONOTONIC); }

std::optional<std::string> OutputOf(const std::string& command) {
  FILE* pipe = popen((command + " 2>/dev/null").c_str(), "r");
  if (pipe == nullptr) return std::nullopt;
  std::string output;
  std::array<char, 4096> bytes;
  while (const size_t count = fread(bytes.data(), 1, bytes.size(), pipe)) {
    output.append(bytes.data(), count);
  }
  if (pclose(pipe) != 0) return std::nullopt;
  return output;
}

}  // namespace troupe::bench
