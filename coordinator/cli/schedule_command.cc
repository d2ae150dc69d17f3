#include "coordinator/cli/schedule_command.h"

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string_view>
#include <vector>

#include "coordinator/cli/answer.h"
#include "coordinator/cli/schedule_report.h"
#include "runtime/base/clock.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

constexpr int kUsage = 2;

int TerminalColumns() {
  constexpr int kOtherwise = 100;
  constexpr int kMost = 1000;
  const char* given = std::getenv("COLUMNS");
  if (given == nullptr) return kOtherwise;
  const std::string_view text(given);
  int columns = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), columns);
  const bool whole = code == std::errc() && end == text.data() + text.size();
  return whole && columns > 0 && columns <= kMost ? columns : kOtherwise;
}

Result<std::string> Report(const ScheduleRequest& request,
                           const std::vector<ScheduleFigures>& figures) {
  switch (request.output) {
    case ScheduleOutput::kText:
      return ScheduleText(request, figures, TerminalColumns());
    case ScheduleOutput::kJson:
      return ScheduleJson(request, figures);
    case ScheduleOutput::kCsv:
      return ScheduleCsv(request, figures.front());
    case ScheduleOutput::kSvg:
      return ScheduleSvg(request, figures);
  }
  return std::string();
}

// Says every few seconds how far a long sampling is.
std::function<void(int)> Progress(const std::string& name, int num_samples) {
  constexpr int64_t kEveryNs = 3'000'000'000;
  return [name, num_samples, said_ns = SystemClock().NowNs()](int done) mutable {
    if (SystemClock().NowNs() - said_ns < kEveryNs) return;
    said_ns = SystemClock().NowNs();
    Talk("{}: sample {} of {}\n", name, done, num_samples);
  };
}

Result<std::string> Show(const ScheduleFlags& options) {
  if (options.list) {
    ASSIGN_OR_RETURN(const ScheduleOutput output, ParseScheduleOutput(options.output));
    return ScheduleList(output);
  }
  ASSIGN_OR_RETURN(const ScheduleRequest request, MakeScheduleRequest(options, SystemFiles()));
  std::vector<ScheduleFigures> figures;
  for (const RequestedSchedule& requested : request.schedules) {
    FigureOptions options_of_one = request.figures;
    options_of_one.on_sample = Progress(requested.name, request.figures.num_samples);
    auto one = FiguresOf(requested.executable, requested.costs, options_of_one);
    if (!one.ok()) return Context(requested.name, std::move(one).error());
    figures.push_back(*std::move(one));
  }
  for (const std::string& remark : ScheduleRemarks(request, figures)) Talk("{}\n", remark);
  return Report(request, figures);
}

}  // namespace

int ShowSchedule(const ScheduleFlags& options) {
  const auto text = Show(options);
  if (!text.ok()) {
    Talk("{}\n", text.error().message);
    return kUsage;  // nothing in it can fail but what the user gave
  }
  return PrintAnswer(*text);
}

}  // namespace troupe
