// What must hold after every event of a simulated cluster. The first thing that does not is kept, a
// sentence.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "actors/messages.h"
#include "runtime/actor/wait_record.h"

namespace troupe::testing {

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
  // What rank 0 says of it.
  void StepTold(uint64_t job, uint64_t epoch, int64_t step, double loss, double expected_loss);

  // ---- no wait past its deadline unsaid
  // ----------------------------------------------------------
  void WarningSaid(int64_t process, const std::string& text);
  void LookAtWaits(int64_t process, const WaitBoard& waits, int64_t now_ns);

 private:
  struct Start {
    std::map<int32_t, int64_t> step_of_stage{};
    std::map<int64_t, double> factor_of_step{};
    int64_t step_told = -1;
  };

  std::string violation_{};
  std::map<std::pair<uint64_t, uint64_t>, Start> starts_{};
  std::map<int64_t, std::set<std::string>> warnings_{};  // by process
};

}  // namespace troupe::testing
