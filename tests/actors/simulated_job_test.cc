// Whole jobs on a simulated network, by seed: whatever the latencies, the order of the ranks and
// the faults, a job completes with the numbers of every other run, or ends with a sentence.
#include <gtest/gtest.h>

#include <set>

#include "runtime/base/random.h"
#include "runtime/sim/sim_driver.h"
#include "runtime/sim/sim_network.h"
#include "tests/support/idle_stage.h"

namespace troupe {
namespace {

constexpr int kRanks = 3;
constexpr int kMicrobatches = 5;
constexpr int kSteps = 3;

enum class Fault { kNone, kKill, kShortCut, kLongCut };

struct Outcome {
  bool ended = false;
  std::vector<double> losses{};
  std::vector<std::string> errors{};
  int64_t time_ns = 0;
};

Outcome RunJob(uint64_t seed, Fault fault) {
  VirtualClock clock;
  SimNetwork network(clock, {.seed = seed, .detection_ms = 50});
  MemoryLedger ledger;
  testing::InProcessJobOptions options{.num_ranks = kRanks,
                                       .num_microbatches = kMicrobatches,
                                       .tokens = testing::kIdleTokens,
                                       .steps = {.steps = kSteps},
                                       .clock = &clock};
  options.new_transport = [&](Rank rank) { return network.NewTransport(rank); };
  testing::InProcessJob job(
      std::move(options),
      [&](const RankPlace& place, StageId stage) {
        return place.scheduler.Spawn<testing::IdleStage>({.name = fmt::format("stage {}", stage)},
                                                         place, stage, ledger);
      },
      [](const RankPlace& place) {
        return place.scheduler.Spawn<testing::IdleLoader>({.name = "loader"});
      });
  SimDriver driver(clock, seed);
  for (int rank = 0; rank < kRanks; ++rank) {
    driver.Add([&job, rank] { return job.scheduler(rank).RunUntilIdle(); },
               [&job, rank] { return job.scheduler(rank).NextDeadlineNs(); });
  }
  driver.Add(nullptr, [&] { return network.NextEventNs(); });
  const auto draw = [key = RandomKey(seed, "test.fault")](uint64_t what) {
    return UniformAt(key, what);
  };
  const auto at_ns = static_cast<int64_t>(draw(0) * 1'000'000);
  const Rank victim(static_cast<int32_t>(draw(1) * kRanks));
  const Rank other((victim.value + 1) % kRanks);
  if (fault == Fault::kKill) driver.At(at_ns, [&] { network.Kill(victim); });
  if (fault == Fault::kShortCut || fault == Fault::kLongCut) {
    driver.At(at_ns, [&, victim, other] { network.Cut(victim, other); });
    const int64_t cut_ms = fault == Fault::kShortCut ? 40 : 60;
    driver.At(at_ns + cut_ms * 1'000'000, [&, victim, other] { network.Heal(victim, other); });
  }
  job.Begin();
  driver.RunUntil([&] { return job.ended || !job.errors.empty(); }, 3'600'000'000'000);
  Outcome outcome{.ended = job.ended, .errors = job.errors, .time_ns = clock.NowNs()};
  for (const auto& metrics : job.metrics) outcome.losses.push_back(metrics.loss());
  return outcome;
}

const std::vector<double> kLosses(kSteps, (kMicrobatches - 1) / 2.0);

TEST(SimulatedJob, EverySeedGivesTheSameNumbers) {
  std::set<int64_t> times;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const Outcome outcome = RunJob(seed, Fault::kNone);
    ASSERT_TRUE(outcome.errors.empty()) << "seed " << seed << ": " << outcome.errors[0];
    ASSERT_TRUE(outcome.ended) << "seed " << seed;
    ASSERT_EQ(outcome.losses, kLosses) << "seed " << seed;
    times.insert(outcome.time_ns);
  }
  EXPECT_GT(times.size(), 300u) << "the seeds do not differ";
}

TEST(SimulatedJob, ASeedRepeatsExactly) {
  EXPECT_EQ(RunJob(17, Fault::kNone).time_ns, RunJob(17, Fault::kNone).time_ns);
}

TEST(SimulatedJob, AnyFaultLetsItCompleteOrEndsItWithASentence) {
  int completed = 0;
  int failed = 0;
  for (uint64_t seed = 0; seed < 600; ++seed) {
    const auto fault = static_cast<Fault>(1 + seed % 3);
    const Outcome outcome = RunJob(seed, fault);
    if (outcome.errors.empty()) {
      ASSERT_TRUE(outcome.ended) << "seed " << seed << " hangs without a word";
      ASSERT_EQ(outcome.losses, kLosses) << "seed " << seed;
      ++completed;
    } else {
      EXPECT_FALSE(outcome.errors[0].empty()) << "seed " << seed;
      ASSERT_NE(fault, Fault::kShortCut) << "seed " << seed << ": " << outcome.errors[0];
      ++failed;
    }
  }
  EXPECT_GT(completed, 200);
  EXPECT_GT(failed, 50);
}

}  // namespace
}  // namespace troupe
