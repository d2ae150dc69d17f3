// troupe: command line, coordinator and host agent in one program. stdout is data, stderr is talk.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "coordinator/cli/ckpt_command.h"
#include "coordinator/cli/daemons.h"
#include "coordinator/cli/job_commands.h"
#include "coordinator/cli/run_command.h"
#include "coordinator/cli/schedule_command.h"
#include "coordinator/cli/schedule_flags.h"
#include "coordinator/job/yaml_walker.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

constexpr int kUsage = 2;

// What the words of the command line are read into.
struct CommandLine {
  CoordinatorCommand coordinator{};
  WorkerCommand worker{};
  RunCommand run{};
  bool no_wait = false;
  JobsCommand jobs{};
  ScheduleOptions schedule{};
  CkptCommand ckpt{};
  std::string output = "text";
  int exit_code = 0;

  OutputFormat format() const {
    return output == "json"    ? OutputFormat::kJson
           : output == "jsonl" ? OutputFormat::kJsonl
                               : OutputFormat::kText;
  }
};

// Help begins with examples, which each command keeps as its footer.
class ExamplesFirst : public CLI::Formatter {
 public:
  std::string make_description(const CLI::App* app) const override {
    return fmt::format("examples:\n{}\n{}", app->get_footer(),
                       CLI::Formatter::make_description(app));
  }
  std::string make_footer(const CLI::App*) const override { return ""; }
};

// `examples` are what follows "troupe ".
void SetExamples(CLI::App* command, const std::vector<std::string>& examples) {
  std::string lines;
  for (const std::string& example : examples) lines += fmt::format("  troupe {}\n", example);
  command->footer(lines);
}

// ---- options that several verbs have ----------------------------------------------------------

void AddOutput(CLI::App* verb, CommandLine& line) {
  verb->add_option("-o,--output", line.output, "text, json or jsonl")
      ->check(CLI::IsMember({"text", "json", "jsonl"}));
}

void AddCoordinator(CLI::App* verb, std::string& address) {
  verb->add_option("--coordinator", address, "HOST:PORT")->envname("TROUPE_COORDINATOR");
}

void AddJobFile(CLI::App* verb, RunCommand& run) {
  verb->add_option("job", run.job_file, "JOB.yaml")->required();
  verb->add_option("--set", run.sets, "override, as train.steps=10")->allow_extra_args(false);
}

void AddRunDirectory(CLI::App* verb, RunCommand& run) {
  verb->add_option("--run-dir", run.run_directory, "folder for what the run leaves");
}

// ---- verbs that take a job file ---------------------------------------------------------------

void AddRun(CLI::App& app, CommandLine& line) {
  auto* verb = app.add_subcommand("run", "run a job to its end, starting what is missing");
  SetExamples(verb, {"run examples/pretrain-tiny.yaml",
                     "run examples/pretrain-tiny.yaml --set train.steps=10 -o jsonl",
                     "run job.yaml --run-dir runs/first --resume"});
  AddJobFile(verb, line.run);
  AddOutput(verb, line);
  AddCoordinator(verb, line.run.coordinator);
  AddRunDirectory(verb, line.run);
  verb->add_option("--resume", line.run.resume, "checkpoint; alone: the newest of the run folder")
      ->expected(0, 1)
      ->default_str("auto");
  verb->callback([&line] {
    line.run.output = line.format();
    line.exit_code = RunJob(line.run);
  });
}

void AddSubmit(CLI::App& app, CommandLine& line) {
  auto* verb = app.add_subcommand("submit", "hand a job to a coordinator and follow it");
  SetExamples(verb,
              {"submit job.yaml --coordinator 127.0.0.1:7077", "submit job.yaml --no-wait -o json",
               "submit job.yaml --set parallelism.pp=4 --run-dir runs/deep"});
  AddJobFile(verb, line.run);
  AddOutput(verb, line);
  AddCoordinator(verb, line.run.coordinator);
  AddRunDirectory(verb, line.run);
  verb->add_flag("-d,--no-wait", line.no_wait, "print the job's number and return");
  verb->callback([&line] {
    line.run.follow = !line.no_wait;
    line.run.output = line.format();
    line.exit_code = SubmitJob(line.run);
  });
}

void AddPlanAndValidate(CLI::App& app, CommandLine& line) {
  auto* plan = app.add_subcommand("plan", "show what a job would do");
  SetExamples(plan,
              {"plan examples/pretrain-tiny.yaml",
               "plan examples/pretrain-tiny.yaml --set parallelism.pp=2", "plan job.yaml -o json"});
  AddJobFile(plan, line.run);
  AddOutput(plan, line);
  plan->callback([&line] {
    line.run.output = line.format();
    line.exit_code = PlanJob(line.run);
  });

  auto* validate = app.add_subcommand("validate", "name every error of a job file");
  SetExamples(validate,
              {"validate examples/every-key.yaml", "validate job.yaml --set parallelism.pp=8"});
  AddJobFile(validate, line.run);
  validate->callback([&line] { line.exit_code = ValidateJob(line.run); });
}

void AddCheckpoints(CLI::App& app, CommandLine& line) {
  auto* ckpt = app.add_subcommand("ckpt", "look into checkpoints, and check their bytes");
  ckpt->require_subcommand(1);
  SetExamples(ckpt, {"ckpt list runs/pretrain-tiny/latest", "ckpt verify runs/pretrain-tiny/latest",
                     "ckpt show runs/first/checkpoints/step-00000120 -o json"});
  const auto add = [&](const char* name, const char* description,
                       int (*answer)(const CkptCommand&)) {
    auto* verb = ckpt->add_subcommand(name, description);
    SetExamples(verb, {fmt::format("ckpt {} runs/pretrain-tiny/latest", name)});
    verb->add_option("path", line.ckpt.path, "a checkpoint, or a run directory")->required();
    AddOutput(verb, line);
    verb->callback([&line, answer] {
      line.ckpt.output = line.format();
      line.exit_code = answer(line.ckpt);
    });
  };
  add("verify", "compare every byte with the digests that were written", VerifyCheckpoints);
  add("list", "the checkpoints of a run, the newest first", ListCheckpoints);
  add("show", "what one holds", ShowCheckpoint);
}

// ---- verbs that ask about jobs ----------------------------------------------------------------

// A verb that asks a coordinator, by `ask`.
CLI::App* AddQuestion(CLI::App& app, CommandLine& line, const std::string& name,
                      const std::string& description, int (*ask)(const JobsCommand&)) {
  auto* verb = app.add_subcommand(name, description);
  AddCoordinator(verb, line.jobs.coordinator);
  AddOutput(verb, line);
  verb->callback([&line, ask] {
    line.jobs.output = line.format();
    line.exit_code = ask(line.jobs);
  });
  return verb;
}

void AddQuestions(CLI::App& app, CommandLine& line) {
  auto* verb = AddQuestion(app, line, "ps", "list jobs", ShowJobs);
  SetExamples(verb, {"ps --coordinator 127.0.0.1:7077", "ps -o json"});

  verb = AddQuestion(app, line, "status", "show one job", ShowStatus);
  SetExamples(verb, {"status 1", "status 1 --why", "status 1 -o json"});
  verb->add_option("job", line.jobs.job, "number")->required();
  verb->add_flag("--why", line.jobs.why, "who waits for whom");

  verb = AddQuestion(app, line, "cancel", "stop a job, with a checkpoint", CancelJob);
  SetExamples(verb, {"cancel 1", "cancel 1 --kill"});
  verb->add_option("job", line.jobs.job, "number")->required();
  verb->add_flag("--kill", line.jobs.kill, "at once, without a checkpoint");
}

// ---- schedules ----------------------------------------------------------------------------------

void AddSchedule(CLI::App& app, CommandLine& line) {
  auto* verb = app.add_subcommand("schedule", "simulate, judge and draw pipeline schedules");
  SetExamples(verb, {"schedule zb-v --stages 4 --microbatches 8",
                     "schedule compare 1f1b zb-h1 zb-v --stages 4 --microbatches 8 -o svg",
                     "schedule mine.csv -o json", "schedule --list"});
  AddScheduleFlags(verb, line.schedule);
  verb->callback([&line] { line.exit_code = ShowSchedule(line.schedule); });
}

// ---- daemons ------------------------------------------------------------------------------------

void AddDaemons(CLI::App& app, CommandLine& line) {
  auto* verb = app.add_subcommand("coordinator", "start a coordinator");
  SetExamples(verb, {"coordinator --state state",
                     "coordinator --listen 10.0.0.1:7077 --state /var/lib/troupe"});
  verb->add_option("--listen", line.coordinator.listen, "HOST:PORT")->capture_default_str();
  verb->add_option("--state", line.coordinator.state_directory, "folder")->required();
  verb->callback([&line] { line.exit_code = RunCoordinator(line.coordinator); });

  verb = app.add_subcommand("worker", "start this host's agent");
  SetExamples(verb, {"worker --join 10.0.0.1:7077 --slots 4",
                     "worker --join 10.0.0.1:7077 --slots 4 --name rack1-a"});
  verb->add_option("--join", line.worker.join, "coordinator's HOST:PORT")->required();
  verb->add_option("--slots", line.worker.slots, "workers this host may run")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  verb->add_option("--name", line.worker.name, "host name to show");
  verb->callback([&line] { line.exit_code = RunWorker(line.worker); });
}

// A verb that does not exist gets a suggestion, which CLI11 does not make.
int RefuseVerb(const CLI::App& app, const std::string& word) {
  std::vector<std::string> verbs;
  for (const CLI::App* verb : app.get_subcommands({})) verbs.push_back(verb->get_name());
  const std::string nearest = Nearest(word, verbs);
  Talk("troupe: there is no command {}{}\n", word,
       nearest.empty() ? ": troupe --help lists them" : fmt::format(": did you mean {}?", nearest));
  return kUsage;
}

int Main(int argc, char** argv) {
  CommandLine line;
  for (int i = 0; i < argc; ++i) {
    line.run.command_line += (i == 0 ? "" : " ") + ShellWord(argv[i]);
  }
  if (argc > 0) line.run.program = argv[0];
  CLI::App app("Trains transformers on pipelines of worker actors.");
  app.formatter(std::make_shared<ExamplesFirst>());
  app.set_version_flag("--version", "troupe " TROUPE_VERSION);
  SetExamples(&app, {"run examples/pretrain-tiny.yaml",
                     "plan examples/pretrain-tiny.yaml --set parallelism.pp=2",
                     "coordinator --listen 127.0.0.1:7077 --state state"});
  app.require_subcommand(1);
  AddRun(app, line);
  AddSubmit(app, line);
  AddPlanAndValidate(app, line);
  AddCheckpoints(app, line);
  AddQuestions(app, line);
  AddSchedule(app, line);
  AddDaemons(app, line);
  const auto is_verb = [&](const CLI::App* v) { return v->get_name() == argv[1]; };
  if (argc > 1 && argv[1][0] != '-' && std::ranges::none_of(app.get_subcommands({}), is_verb)) {
    return RefuseVerb(app, argv[1]);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  return line.exit_code;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main(argc, argv); }
