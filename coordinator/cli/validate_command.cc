#include "coordinator/cli/validate_command.h"

#include <algorithm>
#include <iterator>

#include <nlohmann/json.hpp>

#include "coordinator/cli/answer.h"
#include "coordinator/cli/run_start.h"
#include "coordinator/job/resume.h"
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
  std::vector<Finding> no_overrides;
  for (const std::string& text : command.sets) {
    auto one = ParseOverride(text);
    if (one.ok()) {
      overrides.push_back(*std::move(one));
    } else {
      no_overrides.push_back({.message = one.error().message, .code = one.error().code});
    }
  }
  if (!command.resume.empty() && command.resume != kResumeNewest) {
    overrides.push_back({.path = "checkpoint.resume",
                         .value = command.resume,
                         .flag = "--resume " + command.resume});
  }
  JobReading reading = ReadJob(SystemFiles(), command.job_file, overrides);
  reading.errors.insert(reading.errors.begin(), no_overrides.begin(), no_overrides.end());
  if (!reading.errors.empty()) {
    std::ranges::move(CheckNamedCheckpoint(SystemFiles(), reading.job),
                      std::back_inserter(reading.errors));
  }
  return reading;
}

std::vector<std::string> JudgeResume(JobReading& reading) {
  if (!reading.errors.empty()) return {};
  ResumeReading resume = ReadResume(SystemFiles(), /*run_directory=*/"", reading.job);
  reading.errors = std::move(resume.errors);
  return std::move(resume.point.notes);
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
  JobReading reading = ReadJobOf(command);
  const std::vector<std::string> notes = JudgeResume(reading);
  int printed = 0;
  if (command.output == OutputFormat::kText) {
    TalkWarnings(reading.job.warnings);
    for (const Finding& error : reading.errors) Talk("{}\n", error.Line());
    if (!reading.errors.empty()) return ExitCode(Joined(reading.errors).code);
    for (const std::string& note : notes) Talk("{}\n", note);
    Talk("{}: ok\n", command.job_file);
  } else {
    const int indent = command.output == OutputFormat::kJson ? 2 : -1;
    printed = PrintAnswer(ValidationJson(reading, indent) + "\n");
  }
  return reading.errors.empty() ? printed : ExitCode(Joined(reading.errors).code);
}

}  // namespace troupe
