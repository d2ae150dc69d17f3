// What must hold after every event of a simulated cluster. The first thing that does not is kept, a
// sentence.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "actors/messages.h"
#include "runtime/actor/wait_record.h"

namespace troupe::testing {

// A living process of a rank, from outside.
struct SeenProcess {
  int64_t pid = 0;
  int host = 0;
  bool agent_lives = true;
  std::optional<int32_t> rank{};  // once it was started
  uint64_t job = 0;               // of that rank
  bool job_lives = true;          // a coordinator leads it, and it has not ended
};

// How a job ended, as its client heard of it.
struct SeenEnd {
  uint64_t job = 0;
  bool lost = false;  // its coordinator died before
  bool succeeded = false;
  std::string reason{};
  int64_t last_step = 0;
  int64_t num_steps = 0;
};
// How it may end, by what has struck it.
struct PossibleEnds {
  bool success = true;
  bool loss = false;  // of its coordinator
  // Of a failure: parts between stars, which follow one another in the reason.
  std::vector<std::string> causes{};
};

class Invariants {
 public:
  const std::string& violation() const { return violation_; }
  template <typename... Args>
  void Violate(fmt::format_string<Args...> format, Args&&... args) {
    if (violation_.empty()) violation_ = fmt::format(format, std::forward<Args>(args)...);
  }

  // ---- one commit a step -----------------------------------------------------------------------
  // A stage of a start of a job, with weights of this step; then its updates, before they are done.
  void StageLoaded(uint64_t job, uint64_t epoch, int32_t stage, int64_t step);
  void StageUpdates(uint64_t job, uint64_t epoch, int32_t stage, const ApplyUpdate& update);
  // What rank 0 says of it, from the first step after that of its weights.
  void StepTold(uint64_t job, uint64_t epoch, int64_t step, double loss, double expected_loss);

  // ---- no live process without a live agent, nor for long without a job ------------------------
  void LookAtAgentOf(const SeenProcess& process);
  void LookAtJobOf(const SeenProcess& process, int64_t now_ns);

  // ---- no wait past its deadline unsaid --------------------------------------------------------
  void WarningSaid(int64_t process, const std::string& text);
  void LookAtWaits(int64_t process, const WaitBoard& waits, int64_t now_ns);

  // ---- every job ends with its true cause ------------------------------------------------------
  void JobEnded(const SeenEnd& end, const PossibleEnds& possible);
  // It has not, for so long.
  void JobIsOpen(uint64_t job, int64_t since_ns, int64_t now_ns);

  // What an agent without a coordinator takes to know it, and to kill its ranks.
  static constexpr int64_t kOrphanNs = 36'000'000'000;
  static constexpr int64_t kJobLimitNs = 600'000'000'000;

 private:
  struct Start {
    std::optional<int64_t> loaded_step{};
    std::map<int32_t, int64_t> step_of_stage{};
    std::map<int64_t, double> factor_of_step{};
    std::optional<int64_t> step_told{};
  };

  std::string violation_{};
  std::map<std::pair<uint64_t, uint64_t>, Start> starts_{};
  std::map<int64_t, std::set<std::string>> warnings_{};  // by process
  std::map<int64_t, int64_t> orphan_since_ns_{};         // likewise
};

}  // namespace troupe::testing
