// troupe: command line, coordinator and host agent in one program. stdout is data, stderr is talk.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>

#include "coordinator/cli/client.h"
#include "coordinator/cli/daemons.h"
#include "coordinator/cli/run_command.h"
#include "coordinator/job/yaml_walker.h"
#include "coordinator/report/metrics_json.h"
#include "runtime/base/result.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

constexpr int kUsage = 2;

int ListAll(const std::string& address, bool json) {
  auto reply = ConnectControl(address)->ListJobs();
  if (!reply.ok()) {
    Talk("{}\n", reply.error().message);
    return ExitCode(reply.error().code);
  }
  if (json) {
    for (const auto& job : reply->jobs()) {
      fmt::print(R"({{"job":{},"name":{},"state":"{}","step":{},"steps":{},"loss":{:.17g},)"
                 R"("tokens_per_second":{:.17g},"layout":{},"run_dir":{}}})"
                 "\n",
                 job.job(), JsonText(job.name()), JobStateName(job.state()), job.step(),
                 job.steps(), job.loss(), job.tokens_per_second(), JsonText(job.layout()),
                 JsonText(job.run_directory()));
    }
    return 0;
  }
  fmt::print("{:<5} {:<20} {:<10} {:>11} {:>8} {:>9} {}\n", "JOB", "NAME", "STATE", "STEP", "LOSS",
             "TOK/S", "LAYOUT");
  for (const auto& job : reply->jobs()) {
    fmt::print("{:<5} {:<20} {:<10} {:>11} {:>8.4f} {:>9.0f} {}\n", job.job(), job.name(),
               JobStateName(job.state()), fmt::format("{}/{}", job.step(), job.steps()), job.loss(),
               job.tokens_per_second(), job.layout());
  }
  for (const auto& host : reply->hosts()) {
    Talk("host {}: {} of {} slots in use\n", host.name(), host.slots_used(), host.slots());
  }
  return 0;
}

int ShowStatus(const std::string& address, uint64_t job, bool why) {
  constexpr auto kRanksAnswer = std::chrono::milliseconds(300);
  const auto client = ConnectControl(address);
  proto::GetStatusRequest request;
  request.set_job(job);
  request.set_why(why);
  auto reply = client->GetStatus(request);
  if (why && reply.ok()) {  // the first one asked the ranks
    std::this_thread::sleep_for(kRanksAnswer);
    request.set_why(false);
    reply = client->GetStatus(request);
  }
  if (!reply.ok()) {
    Talk("{}\n", reply.error().message);
    return ExitCode(reply.error().code);
  }
  const auto& s = reply->summary();
  fmt::print("job {} {}: {}, step {}/{}, loss {:.4f}\n", s.job(), s.name(), JobStateName(s.state()),
             s.step(), s.steps(), s.loss());
  if (!s.reason().empty()) fmt::print("  {}\n", s.reason());
  for (const auto& edge : reply->waits()) {
    fmt::print("  {} waits {} ms for {} from {}\n", edge.waiter(), edge.waited_ms(), edge.owed(),
               edge.from());
  }
  return 0;
}

int CancelJob(const std::string& address, uint64_t job, bool kill) {
  proto::CancelRequest request;
  request.set_job(job);
  request.set_checkpoint(!kill);
  request.set_kill(kill);
  auto reply = ConnectControl(address)->Cancel(request);
  if (!reply.ok()) {
    Talk("{}\n", reply.error().message);
    return ExitCode(reply.error().code);
  }
  fmt::print("{}\n", JobStateName(reply->state()));
  return 0;
}

// A verb that does not exist gets a suggestion, which CLI11 does not make.
int RefuseVerb(const CLI::App& app, const std::string& word) {
  std::vector<std::string> verbs;
  for (const CLI::App* verb : app.get_subcommands({})) verbs.push_back(verb->get_name());
  const std::string nearest = Nearest(word, verbs);
  fmt::print(
      stderr, "troupe: there is no command {}{}\n", word,
      nearest.empty() ? ": troupe --help lists them" : fmt::format(": did you mean {}?", nearest));
  return kUsage;
}

int Main(int argc, char** argv) {
  CLI::App app(
      "Trains transformers on pipelines of worker actors.\n\nexamples:\n"
      "  troupe run examples/pretrain-tiny.yaml\n"
      "  troupe plan examples/pretrain-tiny.yaml --set parallelism.pp=2\n"
      "  troupe coordinator --listen 127.0.0.1:7077 --state state\n");
  app.require_subcommand(1);
  const char* environment = std::getenv("TROUPE_COORDINATOR");
  const std::string known = environment == nullptr ? "" : environment;

  CoordinatorCommand coordinator;
  auto* verb = app.add_subcommand("coordinator", "start a coordinator");
  verb->add_option("--listen", coordinator.listen, "HOST:PORT")->capture_default_str();
  verb->add_option("--state", coordinator.state_directory, "folder")->required();
  int exit_code = 0;
  verb->callback([&] { exit_code = RunCoordinator(coordinator); });

  WorkerCommand worker;
  verb = app.add_subcommand("worker", "start this host's agent");
  verb->add_option("--join", worker.join, "coordinator's HOST:PORT")->required();
  verb->add_option("--slots", worker.slots, "workers this host may run")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  verb->add_option("--name", worker.name, "host name to show");
  verb->callback([&] { exit_code = RunWorker(worker); });

  RunCommand run{.coordinator = known};
  for (int i = 0; i < argc; ++i) run.command_line += (i == 0 ? "" : " ") + std::string(argv[i]);
  const auto job_options = [&](CLI::App* to) {
    to->add_option("job", run.job_file, "JOB.yaml")->required();
    to->add_option("--set", run.sets, "override, as train.steps=10")->allow_extra_args(false);
    to->add_option("-o,--output", run.output, "text, json or jsonl")
        ->check(CLI::IsMember({"text", "json", "jsonl"}));
  };
  verb = app.add_subcommand("run", "run a job to its end, starting what is missing");
  job_options(verb);
  verb->add_option("--coordinator", run.coordinator, "HOST:PORT of a running one");
  verb->add_option("--run-dir", run.run_directory, "folder for what the run leaves");
  verb->add_option("--resume", run.resume, "checkpoint; alone: the newest of the run folder")
      ->expected(0, 1)
      ->default_str("auto");
  verb->callback([&] { exit_code = RunJob(run); });
  verb = app.add_subcommand("submit", "hand a job to a coordinator and follow it");
  job_options(verb);
  verb->add_option("--coordinator", run.coordinator, "HOST:PORT");
  verb->add_option("--run-dir", run.run_directory, "folder for what the run leaves");
  bool no_wait = false;
  verb->add_flag("-d,--no-wait", no_wait, "print the job's number and return");
  verb->callback([&] {
    run.follow = !no_wait;
    exit_code = SubmitJob(run);
  });
  verb = app.add_subcommand("plan", "show what a job would do");
  job_options(verb);
  verb->callback([&] { exit_code = PlanJob(run); });

  std::string address = known;
  bool json = false;
  verb = app.add_subcommand("ps", "list jobs");
  verb->add_option("--coordinator", address, "HOST:PORT");
  verb->add_flag("--json", json, "one JSON object a line");
  verb->callback([&] { exit_code = ListAll(address, json); });
  uint64_t job = 0;
  bool why = false;
  verb = app.add_subcommand("status", "show one job");
  verb->add_option("job", job, "number")->required();
  verb->add_option("--coordinator", address, "HOST:PORT");
  verb->add_flag("--why", why, "who waits for whom");
  verb->callback([&] { exit_code = ShowStatus(address, job, why); });
  bool kill = false;
  verb = app.add_subcommand("cancel", "stop a job, with a checkpoint");
  verb->add_option("job", job, "number")->required();
  verb->add_option("--coordinator", address, "HOST:PORT");
  verb->add_flag("--kill", kill, "at once, without a checkpoint");
  verb->callback([&] { exit_code = CancelJob(address, job, kill); });

  const auto is_verb = [&](const CLI::App* v) { return v->get_name() == argv[1]; };
  if (argc > 1 && argv[1][0] != '-' && std::ranges::none_of(app.get_subcommands({}), is_verb)) {
    return RefuseVerb(app, argv[1]);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  return exit_code;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main(argc, argv); }
