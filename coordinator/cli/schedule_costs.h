// What the actions of `troupe schedule` take: from times in the user's own unit to a cost model in
// whole ticks, which the simulator has as nanoseconds. Pure, but for reading the file of --costs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "actors/schedule/action_costs.h"
#include "runtime/base/file_system.h"
#include "runtime/format/costs_file.h"

namespace troupe {

// As the command line has them.
struct CostOptions {
  std::optional<double> forward{};  // of a rank's whole share, like the three below; 1 each
  std::optional<double> backward_input{};
  std::optional<double> backward_weight{};
  std::optional<double> unshard{};      // a gather of the whole share; 0
  std::optional<double> reduce_grad{};  // a reduction of its gradients; 0
  std::optional<double> pair{};         // an overlapped Forward and Backward; as long as both
  std::optional<double> hop{};          // one hop's latency; 0, or the file's
  std::string file{};                   // or a run's directory
};

// Times in the user's unit.
struct UserCosts {
  StageTimes whole_share{};          // of every rank alike
  std::vector<StageTimes> stages{};  // of a file, in its place
  std::string file{};                // its path, for messages
  double hop = 0;
  double pair_factor = 1;
  std::string unit{};  // "": plain numbers
};

// kInvalidSpec for flags that cannot be; the file's own errors.
Result<UserCosts> ReadUserCosts(const CostOptions& options, FileSystem& files);

// Every stage's times. A file's stages that are fewer than the schedule's are cut evenly, and a
// whole backward into equal halves where the schedule has halves; both are told in `remarks`. The
// two directions of a schedule are the same stages. kInvalidSpec where the numbers do not divide.
Result<std::vector<StageTimes>> StageTimesOf(const UserCosts& costs, const Schedule& schedule,
                                             std::vector<std::string>& remarks);

// All work of all ranks and every hop, one after the other: more than any step takes.
double TotalTime(const std::vector<StageTimes>& stages, const UserCosts& costs,
                 const Schedule& schedule);

// Ticks a unit, so that `total` units are counted in 54 bits: a multiple of the numbers 1 to 16, so
// that f/v is whole, and of a power of ten. kInvalidSpec where so many units cannot be counted.
Result<double> TicksPerUnit(double total);

CostModel InTicks(const std::vector<StageTimes>& stages, const UserCosts& costs, double ticks);

}  // namespace troupe
