// From the words after `troupe schedule` to schedules with their times, ready to simulate. Reads
// the files that the words name; all else is pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "actors/schedule/csv.h"
#include "actors/schedule/drawing.h"
#include "actors/schedule/execution_settings.h"
#include "actors/schedule/schedule_figures.h"
#include "coordinator/cli/schedule_costs.h"
#include "coordinator/cli/schedule_noise.h"
#include "runtime/base/file_system.h"

namespace troupe {

inline constexpr int kSamplesMax = 1'000'000;

// As the command line has them; what is not given is unset or empty.
struct ScheduleFlags {
  std::vector<std::string> names{};  // NAME or FILE.csv, or "compare" and several of them
  bool list = false;
  std::optional<int> ranks{};  // --stages
  std::optional<int> microbatches{};
  std::optional<int> chunks{};
  std::optional<int> group{};
  std::optional<int> unshard{};
  CostOptions costs{};
  double rho = 1;
  std::optional<double> memory_limit{};
  ExecutionSettings execution{};  // without its limit, style and name
  NoiseOptions noise{};
  int samples = 1;
  std::string dialect = "troupe";
  bool with_communication = false;
  std::string output = "text";
};

enum class ScheduleOutput : uint8_t { kText, kJson, kCsv, kSvg };
// "text", "json", "csv" or "svg".
Result<ScheduleOutput> ParseScheduleOutput(const std::string& name);

struct RequestedSchedule {
  std::string name{};       // canonical, or the file's
  std::string placement{};  // "loop", "v", "bidirectional", or a file's "custom"
  ExecutableSchedule executable{};
  CostModel costs{};
};

struct ScheduleRequest {
  ScheduleOutput output = ScheduleOutput::kText;
  bool compare = false;
  std::vector<RequestedSchedule> schedules{};  // one, or with compare two and more
  TimeUnit unit{};                             // of every time that is shown
  FigureOptions figures{};
  Dialect dialect = Dialect::kTroupe;
  bool with_communication = false;
  std::vector<std::string> remarks{};  // for stderr, a sentence each
};

// Errors are one sentence with the flag or the file, and the valid values; exit code 2.
Result<ScheduleRequest> MakeScheduleRequest(const ScheduleFlags& options, FileSystem& files);

}  // namespace troupe
