// A whole cluster by seed: coordinator, host agents and ranks, and one fault a run. Whatever the
// seed, the invariants hold after every event, and every job ends with its true cause.
//
// TROUPE_SIM_SEEDS=N runs so many seeds, TROUPE_SIM_FIRST=N begins at another one. A seed that
// fails says everything that happened, and repeats exactly.
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <map>

#include "runtime/base/talk.h"
#include "tests/simulation/scenario.h"

namespace troupe::testing {
namespace {

constexpr int64_t kSeeds = 1000;

int64_t FromEnvironment(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoll(text);
}

// Where a check of the product ends the process, the seed is the way back to it.
volatile std::sig_atomic_t running_seed = -1;
void SayTheSeed(int) {
  std::array<char, 64> text{};
  const auto end = fmt::format_to_n(text.data(), text.size(), "TROUPE_SIM_FIRST={}\n",
                                    static_cast<int>(running_seed));
  Say(2, {text.data(), static_cast<size_t>(end.out - text.data())}, 1000);
}

SimOutcome OutcomeOf(uint64_t seed) {
  running_seed = static_cast<int>(seed);
  return RunSeed(seed);
}

TEST(Simulation, EverySeedKeepsTheInvariants) {
  (void)std::signal(SIGABRT, SayTheSeed);
  const int64_t first = FromEnvironment("TROUPE_SIM_FIRST", 0);
  const int64_t seeds = FromEnvironment("TROUPE_SIM_SEEDS", kSeeds);
  std::map<SimFault, std::array<int, 4>> by_fault;
  for (int64_t seed = first; seed < first + seeds; ++seed) {
    const SimOutcome outcome = OutcomeOf(static_cast<uint64_t>(seed));
    ASSERT_TRUE(outcome.violation.empty())
        << "TROUPE_SIM_FIRST=" << seed << " (" << NameOf(outcome.fault)
        << "): " << outcome.violation << "\n"
        << fmt::format("{}", fmt::join(outcome.log, "\n"));
    auto& counts = by_fault[outcome.fault];
    counts[0] += 1;
    counts[1] += outcome.struck ? 1 : 0;
    counts[2] += outcome.jobs_succeeded;
    counts[3] += outcome.jobs_failed;
  }
  for (const auto& [fault, counts] : by_fault) {
    fmt::print("{:24} {:5} runs, {:5} struck: {:5} jobs succeeded, {:5} failed\n", NameOf(fault),
               counts[0], counts[1], counts[2], counts[3]);
  }
}

TEST(Simulation, ASeedRepeatsExactly) {
  for (uint64_t seed = 0; seed < 2 * kSimFaults; ++seed) {
    const SimOutcome once = OutcomeOf(seed);
    const SimOutcome again = OutcomeOf(seed);
    ASSERT_EQ(once.log, again.log) << "seed " << seed;
    ASSERT_EQ(once.end_ns, again.end_ns) << "seed " << seed;
  }
}

}  // namespace
}  // namespace troupe::testing
