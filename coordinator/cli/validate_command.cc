#include "coordinator/cli/validate_command.h"

#include <nlohmann/json.hpp>

#include "coordinator/cli/answer.h"
#include "coordinator/cli/run_start.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

using nlohmann::ordered_json;

ordered_json JsonOf(const std::vector<Finding>& findings) {
  auto list = ordered_json::array();
  for (const Finding& finding : findings) {
    ordered_json one;
    one["file"] = finding.place.where;
    one["line"] = finding.place.line > 0 ? ordered_json(finding.place.line) : ordered_json();
    one["column"] = finding.place.line > 0 ? ordered_json(finding.place.column) : ordered_json();
    one["key"] = finding.key.empty() ? ordered_json() : ordered_json(finding.key);
    one["message"] = finding.message;
    list.push_back(std::move(one));
  }
  return list;
}

}  // namespace

JobReading ReadJobOf(const RunCommand& command) {
  std::vector<Override> overrides;
  for (const std::string& text : command.sets) {
    auto one = ParseOverride(text);
    if (!one.ok()) {
      return {.job = {.path = command.job_file},
              .errors = {{.message = one.error().message, .code = one.error().code}}};
    }
    overrides.push_back(*std::move(one));
  }
  if (!command.resume.empty() && command.resume != kResumeNewest) {
    overrides.push_back({.path = "checkpoint.resume",
                         .value = command.resume,
                         .flag = "--resume " + command.resume});
  }
  return ReadJob(SystemFiles(), command.job_file, overrides);
}

void TalkWarnings(const std::vector<Finding>& warnings) {
  for (const Finding& warning : warnings) Talk("warning: {}\n", warning.Line());
}

std::string ValidationJson(const JobReading& reading, int indent) {
  ordered_json report;
  report["ok"] = reading.errors.empty();
  report["job"] = reading.job.path;
  report["errors"] = JsonOf(reading.errors);
  report["warnings"] = JsonOf(reading.job.warnings);
  return report.dump(indent, ' ', false, ordered_json::error_handler_t::replace);
}

int ValidateJob(const RunCommand& command) {
  const JobReading reading = ReadJobOf(command);
  int printed = 0;
  if (command.output == OutputFormat::kText) {
    TalkWarnings(reading.job.warnings);
    for (const Finding& error : reading.errors) Talk("{}\n", error.Line());
    if (reading.errors.empty()) Talk("{}: ok\n", command.job_file);
  } else {
    const int indent = command.output == OutputFormat::kJson ? 2 : -1;
    printed = PrintAnswer(ValidationJson(reading, indent) + "\n");
  }
  return reading.errors.empty() ? printed : ExitCode(Joined(reading.errors).code);
}

}  // namespace troupe
