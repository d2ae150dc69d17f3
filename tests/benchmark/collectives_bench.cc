// Bulk operations among processes of one host against Open MPI and Gloo. Numbers are bus bandwidth,
// with sizes as nccl-tests count them (coordinator/cli/collectives_table.h). Ours, `troupe bench
// collectives`, works in place on shared buffers; rows that end in /messages are the same with
// private ones, those that end in _on_2_hosts between network and IPC namespaces. A peer is
// measured in a program of its own, and each row has the better of the two.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/benchmark/bench.h"
#include "tests/support/shell.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/two_hosts.h"

namespace troupe {
namespace {

struct Size {
  int64_t num_bytes = 0;
  int times = 1;
};
const std::vector<Size> kSizes = {
    {int64_t{1} << 20, 100}, {int64_t{16} << 20, 16}, {int64_t{64} << 20, 4}};
constexpr int kMostSeconds = 20;  // of a run; who needs more takes no further part

struct Measured {
  std::string operation{};  // "all-reduce"
  int size = 2;             // members
};

// Four take long where they share two cores.
int RoundsOf(const Measured& what) { return what.size == 2 ? 5 : 3; }

std::string BenchFolder() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().string() + "/";
}
std::string Program() { return BenchFolder() + "../troupe"; }
int WarmupOf(const Size& size) { return size.times / 10 + 2; }

// Microseconds of an operation of each size; empty where the run fails.
using Times = std::vector<double>;

// `setting`: of the environment, for `env`.
Times TimesOfOurs(const Measured& what, const std::vector<Size>& sizes, const std::string& buffers,
                  const std::string& setting = "") {
  Times times;
  for (const Size& size : sizes) {
    const auto output = bench::OutputOf(
        fmt::format("timeout {} env {} {} bench collectives --operation {} --workers {} "
                    "--min-bytes {} --max-bytes {} "
                    "--warmup {} --iterations {} --buffers {} -o json",
                    kMostSeconds, setting, Program(), what.operation, what.size, size.num_bytes,
                    size.num_bytes, WarmupOf(size), size.times, buffers));
    const auto json = nlohmann::json::parse(output.value_or(""), nullptr, false);
    if (!json.is_object()) return {};
    times.push_back(json["rows"][0]["in_place"]["time_us"]);
  }
  return times;
}

// A peer's program prints a number for each size.
Times TimesOfPeer(const std::string& command) {
  const auto output = bench::OutputOf(fmt::format("timeout {} {}", kMostSeconds, command));
  std::istringstream stream(output.value_or(""));
  Times times;
  for (double us = 0; stream >> us;) times.push_back(us);
  return times;
}

std::string PeerArguments(const Measured& what, const std::vector<Size>& sizes) {
  std::string arguments = fmt::format("{} {}", what.operation, what.size);
  for (const Size& size : sizes) {
    arguments += fmt::format(" {}:{}:{}", size.num_bytes, WarmupOf(size), size.times);
  }
  return arguments;
}

struct Contender {
  std::string name{};
  std::function<Times()> run{};
  std::vector<Times> rounds{};
  bool failed = false;

  void Run() {
    if (failed) return;
    Times times = run();
    failed = times.size() != kSizes.size();
    if (!failed) rounds.push_back(std::move(times));
  }
  // By round, in GB/s.
  std::vector<double> Bandwidths(const Measured& what, size_t size) const {
    const double trips = what.operation == "all-reduce" ? 2 : 1;
    std::vector<double> bandwidths;
    for (const Times& times : rounds) {
      bandwidths.push_back(trips * (what.size - 1) / what.size *
                           static_cast<double>(kSizes[size].num_bytes) / times[size] * 1e-3);
    }
    return bandwidths;
  }
};

bool Installed(const std::string& peer) { return std::filesystem::exists(BenchFolder() + peer); }

// Bound as ours are. More processes than cores are to yield; unset, each would spin where another
// could work.
std::string OpenMpi(const Measured& what, const std::string& flags) {
  return fmt::format(
      "env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun -np {} {} "
      "--bind-to core:overload-allowed --oversubscribe --mca mpi_yield_when_idle 1 "
      "{}collectives_open_mpi {}",
      what.size, flags, BenchFolder(), PeerArguments(what, kSizes));
}

// Those that are installed.
std::vector<Contender> PeersOnOneHost(const Measured& what) {
  std::vector<Contender> peers;
  if (Installed("collectives_open_mpi")) {
    peers.push_back({.name = "Open MPI",
                     .run = [command = OpenMpi(what, "")] { return TimesOfPeer(command); }});
  }
  if (Installed("collectives_gloo")) {
    const std::string command = BenchFolder() + "collectives_gloo " + PeerArguments(what, kSizes);
    peers.push_back({.name = "Gloo", .run = [command] { return TimesOfPeer(command); }});
  }
  return peers;
}

void ReportSize(bench::Bench& bench, const Measured& what, size_t size, bench::Row row,
                const std::vector<Contender>& peers) {
  for (const Contender& peer : peers) {
    const std::vector<double> bandwidths = peer.Bandwidths(what, size);
    if (bench::Median(bandwidths) <= bench::Median(row.peer)) continue;
    row.peer = bandwidths;
    row.what.peer_name = peer.name;
  }
  if (row.ours.empty()) {
    row.skipped = "troupe bench collectives fails here";
  } else if (row.peer.empty()) {
    row.skipped = "neither Open MPI nor Gloo runs here";
  }
  bench.Report(row);
}

// All contenders in turn, each over all sizes; then a row for each size and each of ours.
void Compare(bench::Bench& bench, const Measured& what, std::vector<Contender> ours,
             std::vector<Contender> peers, double goal) {
  for (int round = 0; round < RoundsOf(what); ++round) {
    for (Contender& one : ours) one.Run();
    for (Contender& peer : peers) peer.Run();
  }
  for (size_t size = 0; size < kSizes.size(); ++size) {
    for (const Contender& one : ours) {
      bench::Row row{
          .what = {.name = fmt::format(fmt::runtime(one.name), kSizes[size].num_bytes >> 20),
                   .unit = "GB/s",
                   .goal = &one == &ours.front() ? goal : 0,
                   .higher_is_better = true},
          .ours = one.Bandwidths(what, size)};
      ReportSize(bench, what, size, row, peers);
    }
  }
}

void CompareAmong(bench::Bench& bench, const Measured& what, const std::string& name, double goal) {
  const std::string row = fmt::format("{}/{{}}MiB/{}", name, what.size);
  Compare(
      bench, what,
      {{.name = row, .run = [&] { return TimesOfOurs(what, kSizes, "shared"); }},
       {.name = row + "/messages", .run = [&] { return TimesOfOurs(what, kSizes, "private"); }}},
      PeersOnOneHost(what), goal);
}

// Two hosts as UCX and Open MPI see them, each with an equal number of members. A process that
// waits keeps a host's IPC and UTS namespaces; the others enter them.
class HostPair {
 public:
  explicit HostPair(int size) : size_(size) {
    if (!hosts_.ready) return;
    keeper_a_ = Keep(hosts_.a);
    keeper_b_ = Keep(hosts_.b);
    // troupe-rank --collectives-bench RANK …
    rank_ =
        WriteScript("rank", fmt::format("[ $2 -lt {} ] && exec env UCX_NET_DEVICES={} {} "
                                        "{}../troupe-rank \"$@\"\n"
                                        "exec env UCX_NET_DEVICES={} {} {}../troupe-rank \"$@\"\n",
                                        size / 2, hosts_.link_a, In(keeper_a_), BenchFolder(),
                                        hosts_.link_b, In(keeper_b_), BenchFolder()));
    // AGENT ADDRESS COMMAND…
    agent_ = WriteScript("agent", fmt::format("host=$1; shift\n"
                                              "[ $host = 10.77.0.1 ] && exec {} sh -c \"$*\"\n"
                                              "exec {} sh -c \"$*\"\n",
                                              In(keeper_a_), In(keeper_b_)));
  }
  ~HostPair() {
    if (hosts_.ready) testing::Shell(fmt::format("kill {} {}", keeper_a_, keeper_b_));
  }
  HostPair(const HostPair&) = delete;
  HostPair& operator=(const HostPair&) = delete;

  bool ready() const { return hosts_.ready; }
  const std::string& why() const { return hosts_.why; }
  std::string RankSetting() const { return "TROUPE_RANK=" + rank_; }
  std::vector<Contender> Peers(const Measured& what) const {
    std::vector<Contender> peers;
    if (Installed("collectives_open_mpi")) {
      const std::string command =
          In(keeper_a_) + " " +
          OpenMpi(what, fmt::format("--mca plm_rsh_agent {} --host 10.77.0.1:{},10.77.0.2:{} --mca "
                                    "btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include "
                                    "10.77.0.0/24",
                                    agent_, size_ / 2, size_ / 2));
      peers.push_back({.name = "Open MPI", .run = [command] { return TimesOfPeer(command); }});
    }
    if (Installed("collectives_gloo")) {
      peers.push_back({.name = "Gloo", .run = [this, what] { return GlooTimes(what); }});
    }
    return peers;
  }

 private:
  static std::string In(const std::string& keeper) {
    return "nsenter --target " + keeper + " --net --ipc --uts --mount";
  }
  // Returns its process, which has left the namespaces of this one, and ends with this one.
  static std::string Keep(const std::string& host) {
    const auto kept = testing::Shell(fmt::format(
        "ip netns exec {0} unshare --ipc --uts sh -c 'hostname {0}; exec tail --pid={1} -f "
        "/dev/null' >/dev/null 2>&1 & keeper=$!\n"
        "while [ \"$(nsenter --target $keeper --uts hostname 2>/dev/null)\" != {0} ] && "
        "kill -0 $keeper; do sleep 0.01; done\n"
        "echo $keeper",
        host, ::getpid()));
    return kept.output.substr(0, kept.output.find('\n'));
  }
  std::string WriteScript(const std::string& name, const std::string& lines) const {
    const std::string path = folder_.Write(name, "#!/bin/sh\n" + lines);
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    return path;
  }
  Times GlooTimes(const Measured& what) const {
    const testing::TemporaryFolder store;
    const auto part = [&](const std::string& keeper, int first, const std::string& link) {
      return fmt::format("{} {}collectives_gloo --part {} {} {} {} {}", In(keeper), BenchFolder(),
                         first, size_ / 2, store.path(), link, PeerArguments(what, kSizes));
    };
    return TimesOfPeer("sh -c '" + part(keeper_b_, size_ / 2, hosts_.link_b) + " & " +
                       part(keeper_a_, 0, hosts_.link_a) + "; wait'");
  }

  const int size_;
  const testing::TwoHosts hosts_{};
  const testing::TemporaryFolder folder_{};
  std::string keeper_a_{};
  std::string keeper_b_{};
  std::string rank_{};
  std::string agent_{};
};

void CompareAcrossHosts(bench::Bench& bench, const Measured& what, const std::string& name) {
  const HostPair hosts(what.size);
  const std::string row = fmt::format("{}/{{}}MiB/{}_on_2_hosts", name, what.size);
  if (!hosts.ready()) {
    return bench.Skip({.name = name + "/on_2_hosts", .unit = "GB/s"},
                      "no network and IPC namespaces: " + hosts.why());
  }
  Compare(bench, what,
          {{.name = row,
            .run = [&] { return TimesOfOurs(what, kSizes, "shared", hosts.RankSetting()); }}},
          hosts.Peers(what), 0);
}

TROUPE_BENCHMARK(AllReduceOfTwo) { CompareAmong(bench, {"all-reduce", 2}, "all_reduce", 2); }
TROUPE_BENCHMARK(AllReduceOfFour) { CompareAmong(bench, {"all-reduce", 4}, "all_reduce", 2); }
TROUPE_BENCHMARK(ReduceScatterOfTwo) {
  CompareAmong(bench, {"reduce-scatter", 2}, "reduce_scatter", 2);
}
TROUPE_BENCHMARK(ReduceScatterOfFour) {
  CompareAmong(bench, {"reduce-scatter", 4}, "reduce_scatter", 2);
}
TROUPE_BENCHMARK(AllGatherOfTwo) { CompareAmong(bench, {"all-gather", 2}, "all_gather", 1.4); }
TROUPE_BENCHMARK(AllGatherOfFour) { CompareAmong(bench, {"all-gather", 4}, "all_gather", 1.4); }
TROUPE_BENCHMARK(AllReduceAcrossHosts) {
  CompareAcrossHosts(bench, {"all-reduce", 4}, "all_reduce");
}
TROUPE_BENCHMARK(ReduceScatterAcrossHosts) {
  CompareAcrossHosts(bench, {"reduce-scatter", 4}, "reduce_scatter");
}
TROUPE_BENCHMARK(AllGatherAcrossHosts) {
  CompareAcrossHosts(bench, {"all-gather", 4}, "all_gather");
}
TROUPE_BENCHMARK(AllReduceOfOneElement) {
  bench.Measure({.name = "all_reduce/4B/2", .unit = "us", .num_rounds = 5}, [] {
    const Times times = TimesOfOurs({"all-reduce", 2}, {{4, 20'000}}, "shared");
    return times.empty() ? 0 : times[0];
  });
}

}  // namespace
}  // namespace troupe
