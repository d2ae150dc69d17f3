// The benchmark frame: measures ours against a peer in one run on one machine, and reports ratios.
//
//     TROUPE_BENCHMARK(ActorPingPong) {
//       bench.Compare({.name = "actor_ping_pong", .unit = "ns/message", .peer_name = "CAF 0.17",
//                      .goal = 5},
//                     [] { return OneSampleOfOurs(); }, [] { return OneSampleOfThePeer(); });
//     }
//
// A file of such blocks, linked with troupe_bench, is one program; troupe_benchmark() in
// tests/benchmark/CMakeLists.txt adds it to `./run bench`. Samples of ours and of the peer
// alternate, so that both see the same load; the ratio is that of the medians, and above 1 ours is
// better whatever the unit. Where ours shall agree with the peer, the goal is closeness instead.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::bench {

struct Comparison {
  std::string name{};  // "all_reduce/16MiB/4"
  std::string unit{};  // of a sample: "us/step", "GB/s"
  std::string peer_name{};
  double goal = 0;       // the least ratio; 0: none is asked for
  double within = 0;     // the ratio must lie in 1 ± within; 0: anywhere
  double apart_max = 0;  // in place of a ratio: how far the medians may lie apart, in the unit
  bool higher_is_better = false;
  int num_rounds = 7;
};

struct Row {
  Comparison what{};
  std::vector<double> ours{};
  std::vector<double> peer{};
  std::string skipped{};  // why nothing, or no peer, was measured

  std::optional<double> Ratio() const;  // empty without a peer's samples
  std::optional<bool> Met() const;      // empty where nothing is asked for, or was measured
};

double Median(std::vector<double> samples);  // 0 where there are none

// {"name":…,"ours":…,"peer":…,"peer_name":…,"unit":…,"ratio":…,"goal":…,"met":…} and the extremes
// of both; null where something was not measured, and then "skip" says why. "within" and
// "apart_max" are there where they are asked for.
std::string RowJson(const Row& row);
std::string TableHeader();
std::string TableLine(const Row& row);

// Gives one sample in the comparison's unit. The first call of each only warms up.
using Sample = std::function<double()>;

class Bench {
 public:
  using Sink = std::function<void(const Row&)>;
  explicit Bench(Sink sink) : sink_(std::move(sink)) {}

  void Compare(const Comparison& what, const Sample& ours, const Sample& peer);
  // Where the peer is missing: ours alone, with the reason.
  void Measure(const Comparison& what, const Sample& ours, std::string why_no_peer = {});
  // Where the two cannot alternate: samples that the caller took.
  void Report(const Row& row) { sink_(row); }
  void Skip(const Comparison& what, std::string why);

 private:
  Sink sink_;
};

// For a block of one program; the frame's main runs them in the order of the file.
struct Registration {
  Registration(std::string_view name, void (*run)(Bench&));
};

// Nanoseconds of CPU that this process has used, all threads: unlike wall time it does not count
// waiting for a core that somebody else uses.
double ProcessCpuNs();
double WallNs();

// stdout of a command, or nothing if it does not exist or fails.
std::optional<std::string> OutputOf(const std::string& command);

}  // namespace troupe::bench

#define TROUPE_BENCHMARK(name)                                                     \
  static void Run##name(::troupe::bench::Bench& bench);                            \
  static const ::troupe::bench::Registration kRegistered##name{#name, &Run##name}; \
  static void Run##name([[maybe_unused]] ::troupe::bench::Bench& bench)
