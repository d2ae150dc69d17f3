// troupe: command line, coordinator and host agent in one program. stdout is data, stderr is talk.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "actors/schedule/generators.h"
#include "coordinator/cli/address.h"
#include "coordinator/cli/answer.h"
#include "coordinator/cli/bench_command.h"
#include "coordinator/cli/ckpt_command.h"
#include "coordinator/cli/completion.h"
#include "coordinator/cli/daemons.h"
#include "coordinator/cli/job_commands.h"
#include "coordinator/cli/run_command.h"
#include "coordinator/cli/run_start.h"
#include "coordinator/cli/schedule_command.h"
#include "coordinator/cli/schedule_flags.h"
#include "coordinator/cli/set_words.h"
#include "coordinator/cli/stop_signals.h"
#include "coordinator/cli/usage.h"
#include "coordinator/cli/validate_command.h"
#include "runtime/base/standard_streams.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

// What the words of the command line are read into.
struct CommandLine {
  CoordinatorCommand coordinator{};
  WorkerCommand worker{};
  RunCommand run{};
  bool no_wait = false;
  JobsCommand jobs{};
  ScheduleFlags schedule{};
  CollectivesRequest collectives{};
  CkptCommand ckpt{};
  std::string output = "text";
  std::string shell{};
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

// An address in the form that gRPC takes; anything else is refused as it is read.
CLI::Option* AsAddress(CLI::Option* option, AddressUse use) {
  return option->transform(CLI::Validator(
      [use](std::string& given) -> std::string {
        auto address = ParseAddress(given, use);
        if (!address.ok()) return address.error().message;
        given = *std::move(address);
        return "";
      },
      ""));
}

void AddCoordinator(CLI::App* verb, std::string& address) {
  AsAddress(verb->add_option("--coordinator", address, "HOST:PORT"), AddressUse::kConnect)
      ->envname("TROUPE_COORDINATOR");
}

// `otherwise`: what to write in place of another word.
CLI::Validator WholeNumber(int32_t least, const std::string& otherwise) {
  return {[=](const std::string& given) {
            int32_t number = -1;
            const char* const end = given.data() + given.size();
            const auto [read, code] = std::from_chars(given.data(), end, number);
            const bool good = code == std::errc() && read == end && number >= least;
            return good ? "" : fmt::format("{}: {}", given, otherwise);
          },
          ""};
}

void AddJobFile(CLI::App* verb, RunCommand& run) {
  verb->add_option("job", run.job_file, "JOB.yaml")->required();
  verb->add_option("--set", run.sets, "overrides, as train.steps=10 name=x; model.config= unsets")
      ->allow_extra_args(false);
}

void AddRunDirectory(CLI::App* verb, RunCommand& run) {
  verb->add_option("--run-dir", run.run_directory, "folder for what the run leaves");
  auto* resume = verb->add_option("--resume", run.resume,
                                  "checkpoint; alone: the newest of the run folder, or of the "
                                  "newest run; auto: that, or anew where there is none")
                     ->expected(0, 1)
                     ->default_str(std::string(kResumeNewest));
  verb->add_flag("--overwrite", run.overwrite, "move an earlier run in the folder aside, whole")
      ->excludes(resume);
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
    if (line.run.coordinator.empty()) line.run.coordinator = kDefaultAddress;
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
  auto* flops = plan->add_option("--flops-per-second", line.run.flops_per_second,
                                 "of a worker's attention, as 6e14: says when hops are hidden");
  auto* bytes = plan->add_option("--bytes-per-second", line.run.bytes_per_second, "of a link");
  flops->check(AboveZero())->needs(bytes);
  bytes->check(AboveZero())->needs(flops);
  plan->callback([&line] {
    line.run.output = line.format();
    line.exit_code = PlanJob(line.run);
  });

  auto* validate = app.add_subcommand("validate", "name every error of a job file");
  SetExamples(validate, {"validate examples/every-key.yaml",
                         "validate job.yaml --set parallelism.pp=8", "validate job.yaml -o json"});
  AddJobFile(validate, line.run);
  AddOutput(validate, line);
  validate->callback([&line] {
    line.run.output = line.format();
    line.exit_code = ValidateJob(line.run);
  });
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
  verb->add_option("--run-dir", line.jobs.run_directory, "the run's folder, in place of a number");
  verb->callback([&line, ask] {
    line.jobs.output = line.format();
    line.exit_code = ask(line.jobs);
  });
  return verb;
}

void AddJob(CLI::App* verb, CommandLine& line) {
  verb->add_option("job", line.jobs.job, "number; not needed with --run-dir, or for the only job")
      ->check(WholeNumber(1, "give its number, which `troupe ps` lists, or --run-dir DIR"));
}

void AddQuestions(CLI::App& app, CommandLine& line) {
  auto* verb = AddQuestion(app, line, "ps", "list jobs", ShowJobs);
  SetExamples(verb, {"ps", "ps --coordinator 10.0.0.1:7077", "ps --watch", "ps -o json"});
  AddOutput(verb, line);
  verb->add_option("--watch", line.jobs.watch_seconds, "again and again, every so many seconds")
      ->expected(0, 1)
      ->default_str("2")
      ->check(CLI::Range(0.1, 86400.0));

  verb = AddQuestion(app, line, "status", "show one job", ShowStatus);
  SetExamples(verb, {"status 1", "status 1 --why", "status --run-dir runs/first -o json"});
  AddJob(verb, line);
  AddOutput(verb, line);
  verb->add_flag("--why", line.jobs.why, "who waits for whom");

  verb = AddQuestion(app, line, "attach", "follow a job again; Ctrl-C detaches", AttachToJob);
  SetExamples(verb, {"attach 1", "attach --run-dir runs/first", "attach 1 -o jsonl"});
  AddJob(verb, line);
  AddOutput(verb, line);

  verb = AddQuestion(app, line, "logs", "show what a job's ranks print", ShowLogs);
  SetExamples(verb, {"logs 1", "logs 1 --follow --rank 3"});
  AddJob(verb, line);
  verb->add_flag("-f,--follow", line.jobs.follow, "until the job has ended");
  verb->add_option("--rank", line.jobs.rank, "of one rank alone")
      ->check(WholeNumber(0, "give a rank's number"));

  verb = AddQuestion(app, line, "cancel", "stop a job, with a checkpoint", CancelJob);
  SetExamples(verb, {"cancel 1", "cancel 1 --kill"});
  AddJob(verb, line);
  AddOutput(verb, line);
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

// ---- measuring ----------------------------------------------------------------------------------

void AddBench(CLI::App& app, CommandLine& line) {
  auto* bench = app.add_subcommand("bench", "measure what this host can do");
  bench->require_subcommand(1);
  SetExamples(bench, {"bench collectives --workers 4"});
  auto* verb = bench->add_subcommand("collectives", "operations among workers, as nccl-tests does");
  SetExamples(verb, {"bench collectives --workers 4",
                     "bench collectives --operation all-gather --min-bytes 1M --max-bytes 64M",
                     "bench collectives --dtype bfloat16 --buffers private -o json"});
  AddCollectivesFlags(verb, line.collectives);
  verb->add_option("-o,--output", line.output, "text or json")
      ->check(CLI::IsMember({"text", "json"}));
  verb->callback([&line] { line.exit_code = BenchCollectives(line.collectives, line.format()); });
}

// ---- daemons ------------------------------------------------------------------------------------

void AddDaemons(CLI::App& app, CommandLine& line) {
  auto* verb = app.add_subcommand("coordinator", "start a coordinator");
  SetExamples(verb, {"coordinator --state state",
                     "coordinator --listen 10.0.0.1:7077 --state /var/lib/troupe"});
  AsAddress(verb->add_option("--listen", line.coordinator.listen,
                             "HOST:PORT, or a port of this machine alone"),
            AddressUse::kListen)
      ->capture_default_str();
  verb->add_option("--state", line.coordinator.state_directory, "folder")->required();
  verb->add_option("--host-silence-seconds", line.coordinator.host_silence_seconds,
                   "a host that says nothing for so long is lost")
      ->check(CLI::Range(3, 86'400))
      ->capture_default_str();
  verb->callback([&line] { line.exit_code = RunCoordinator(line.coordinator); });

  verb = app.add_subcommand("worker", "start this host's agent");
  SetExamples(verb, {"worker --join 10.0.0.1:7077 --slots 4",
                     "worker --join 10.0.0.1:7077 --slots 4 --name rack1-a"});
  AsAddress(verb->add_option("--join", line.worker.join, "coordinator's HOST:PORT"),
            AddressUse::kConnect)
      ->required();
  verb->add_option("--slots", line.worker.slots, "workers this host may run")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  verb->add_option("--name", line.worker.name, "host name to show");
  verb->callback([&line] { line.exit_code = RunWorker(line.worker); });
}

void AddCompletion(CLI::App& app, CommandLine& line) {
  auto* verb = app.add_subcommand("completion", "print a script that completes commands and flags");
  SetExamples(verb, {"completion bash > ~/.local/share/bash-completion/completions/troupe",
                     "completion zsh > ~/.zfunc/_troupe"});
  verb->add_option("shell", line.shell, "bash or zsh")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh"}));
  verb->callback([&app, &line] {
    VerbWords schedules{.outputs = {"text", "json", "csv", "svg"}};
    for (const ScheduleInfo& info : KnownSchedules()) schedules.words.emplace_back(info.name);
    schedules.words.insert(schedules.words.end(), {"auto", "compare"});
    const Shell shell = line.shell == "zsh" ? Shell::kZsh : Shell::kBash;
    line.exit_code = PrintAnswer(CompletionScript(app, shell,
                                                  {{"schedule", schedules},
                                                   {"bench", {.outputs = {"text", "json"}}},
                                                   {"completion", {.words = {"bash", "zsh"}}}}));
  });
}

// What these start, or write, ends as it should however early they are told to.
bool EndsInOrder(std::string_view verb) {
  return verb == "run" || verb == "submit" || verb == "bench" || verb == "coordinator" ||
         verb == "worker";
}

int Main(int argc, char** argv) {
  if (argc > 1 && EndsInOrder(argv[1])) BlockStopSignals();
  CommandLine line;
  for (int i = 0; i < argc; ++i) {
    line.run.command_line += (i == 0 ? "" : " ") + ShellWord(argv[i]);
  }
  if (argc > 0) line.run.program = line.jobs.program = argv[0];
  // What gRPC has to say of a connection is said in a sentence of ours.
  ::setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  CLI::App app("Trains transformers on pipelines of worker actors.");
  app.formatter(std::make_shared<ExamplesFirst>());
  app.name("troupe");
  app.set_version_flag("--version", VersionLine());
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
  AddBench(app, line);
  AddDaemons(app, line);
  AddCompletion(app, line);
  std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  const int refused = Parse(app, WithEachSet(WithoutHelpVerb(std::move(words))));
  return refused != 0 ? refused : line.exit_code;
}

// No exception leaves the program: what no function of ours turned into a Result is a sentence.
int SafeMain(int argc, char** argv) {
  SecureStandardStreams();
  int exit_code = 1;
  try {
    exit_code = Main(argc, argv);
  } catch (const std::bad_alloc&) {
    Talk("troupe: out of memory\n");
  } catch (const std::exception& error) {
    Talk("troupe: {}\n", error.what());
  }
  if (TalkLost() > 0) Talk("{} times something could not be said here\n", TalkLost());
  return exit_code;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::SafeMain(argc, argv); }
