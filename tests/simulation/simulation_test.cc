// A whole cluster by seed: coordinator, host agents and ranks, and one fault or two a run. Whatever
// the seed, the invariants hold after every event, and every job ends with its true cause.
//
// TROUPE_SIM_SEED=N runs that seed alone and says everything that happened. TROUPE_SIM_SEEDS=N runs
// so many, TROUPE_SIM_FIRST=N begins at another one. A seed repeats exactly.
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
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
  const auto end = fmt::format_to_n(text.data(), text.size(), "TROUPE_SIM_SEED={}\n",
                                    static_cast<int>(running_seed));
  Say(2, {text.data(), static_cast<size_t>(end.out - text.data())}, 1000);
}

SimOutcome OutcomeOf(uint64_t seed) {
  running_seed = static_cast<int>(seed);
  return RunSeed(seed);
}

void ExpectToHold(uint64_t seed, const SimOutcome& outcome) {
  EXPECT_TRUE(outcome.violation.empty())
      << "TROUPE_SIM_SEED=" << seed << ": " << outcome.violation << "\n"
      << fmt::format("{}", fmt::join(outcome.log, "\n"));
}

// Of the runs that were to meet a kind of fault.
struct Count {
  int runs = 0;
  int struck = 0;
  int jobs_succeeded = 0;
  int jobs_failed = 0;
};

// A fault that never strikes proves nothing.
void ExpectToStrike(const std::map<SimFault, Count>& by_fault) {
  for (const auto& [fault, count] : by_fault) {
    fmt::print("{:24} {:4} runs, {:4} struck: {:4} jobs succeeded, {:4} failed\n", NameOf(fault),
               count.runs, count.struck, count.jobs_succeeded, count.jobs_failed);
    if (fault == SimFault::kNone) continue;
    EXPECT_GE(count.struck * 2, count.runs) << NameOf(fault);
  }
  EXPECT_EQ(by_fault.size(), size_t{kSimFaults});
}

TEST(Simulation, EverySeedKeepsTheInvariants) {
  (void)std::signal(SIGABRT, SayTheSeed);
  if (const int64_t only = FromEnvironment("TROUPE_SIM_SEED", -1); only >= 0) {
    const SimOutcome outcome = OutcomeOf(static_cast<uint64_t>(only));
    fmt::print("{}\n", fmt::join(outcome.log, "\n"));
    for (const Faults::Fault& fault : outcome.faults) {
      fmt::print("{}: {}\n", NameOf(fault.kind), fault.struck ? "struck" : "did not strike");
    }
    EXPECT_EQ(outcome.violation, "");
    return;
  }
  const int64_t first = FromEnvironment("TROUPE_SIM_FIRST", 0);
  const int64_t seeds = FromEnvironment("TROUPE_SIM_SEEDS", kSeeds);
  std::map<SimFault, Count> by_fault;
  int with_two = 0;
  for (int64_t seed = first; seed < first + seeds; ++seed) {
    const SimOutcome outcome = OutcomeOf(static_cast<uint64_t>(seed));
    ExpectToHold(static_cast<uint64_t>(seed), outcome);
    if (HasFatalFailure()) return;
    for (const Faults::Fault& fault : outcome.faults) {
      Count& count = by_fault[fault.kind];
      count.runs += 1;
      count.struck += fault.struck ? 1 : 0;
      count.jobs_succeeded += outcome.jobs_succeeded;
      count.jobs_failed += outcome.jobs_failed;
    }
    with_two += std::ranges::count(outcome.faults, true, &Faults::Fault::struck) == 2 ? 1 : 0;
  }
  fmt::print("two faults struck in {} runs\n", with_two);
  if (seeds < kSeeds) return;
  ExpectToStrike(by_fault);
  EXPECT_GE(with_two * 10, seeds);
}

// The first of the seeds of a fault whose job meets it.
SimOutcome StruckBy(SimFault fault) {
  constexpr int kTries = 50;
  for (int i = 0; i < kTries; ++i) {
    SimOutcome outcome = OutcomeOf(static_cast<uint64_t>(fault) + i * kSimFaults);
    if (outcome.faults.front().struck) return outcome;
  }
  ADD_FAILURE() << "the fault struck in none of " << kTries << " seeds";
  return OutcomeOf(0);
}

// resources.hang_seconds, with the real ranks, agents and coordinator. Which message it was, and
// that its wait is among those told, faults.cc says of every seed.
TEST(Simulation, ALostMessageEndsItsJobWithTheWaitsThatItLeaves) {
  const SimOutcome outcome = StruckBy(SimFault::kLoseMessage);
  EXPECT_EQ(outcome.violation, "");
  EXPECT_THAT(
      outcome.first_reason,
      ::testing::MatchesRegex(
          "nothing has moved for 2[0-9] s \\(resources.hang_seconds = 20\\): .*rank [0-9] waits "
          "for microbatch [0-9]+ [A-Za-z]+: (activation|gradient) from stage [0-9]+ \\(rank "
          "[0-9]\\) "
          "for 2[0-9] s.*: each waits for the next, the last for the first, so a message between "
          "two of them was most likely lost"));
}

TEST(Simulation, AStuckStreamEndsItsJobWithTheActionThatNeverEnds) {
  const SimOutcome outcome = StruckBy(SimFault::kStuckStream);
  EXPECT_EQ(outcome.violation, "");
  EXPECT_THAT(outcome.first_reason,
              ::testing::MatchesRegex(
                  "nothing has moved for 2[0-9] s \\(resources.hang_seconds = 20\\): rank [0-9] "
                  "waits for the end of [A-Za-z]+ of microbatch [0-9]+ on stage [0-9]+ from its "
                  "compute stream for 2[0-9] s"));
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
