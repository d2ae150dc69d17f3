#include "coordinator/job/job_checks.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "actors/plan/batch_arithmetic.h"
#include "actors/plan/data_order.h"
#include "actors/plan/job_plan.h"
#include "actors/plan/model_config.h"
#include "actors/schedule/generators.h"
#include "actors/schedule/schedule_choice.h"
#include "coordinator/job/yaml_walker.h"
#include "runtime/format/token_file.h"

namespace troupe {
namespace {

class Checker {
 public:
  Checker(FileSystem& files, const proto::JobSpec& spec) : files_(files), spec_(spec) {}

  std::vector<Error> Run() {
    Plan();
    Identity();
    Training();
    Resources();
    Output();
    Data();
    return std::move(errors_);
  }

 private:
  void Add(Error error) { errors_.push_back(std::move(error)); }
  template <typename... Args>
  void Refuse(fmt::format_string<Args...> format, Args&&... args) {
    Add(MakeError(ErrorCode::kInvalidSpec, format, std::forward<Args>(args)...));
  }

  // What a plan is made of, then what does not go together.
  void Plan() {
    const proto::Parallelism& p = spec_.parallelism();
    Mesh::Read(p, errors_);
    if (errors_.empty()) {
      for (Error& error : ReadBatch(spec_.batch(), p.dp()).errors) Add(std::move(error));
    }
    for (Error& error : ReadModelConfig(spec_.model()).errors) Add(std::move(error));
    // A file's lists go under a name of their own.
    if (!p.has_schedule_actions() && p.schedule() != kAutoSchedule &&
        !CanonicalScheduleName(p.schedule()).ok()) {
      std::vector<std::string_view> known = {kAutoSchedule};
      for (const ScheduleInfo& schedule : KnownSchedules()) known.push_back(schedule.name);
      Refuse("parallelism.schedule = {}: use one of {}", Shown(p.schedule()),
             fmt::join(known, ", "));
    }
    LearningRate::Read(spec_, errors_);
    if (auto widths = WidthsOf(spec_.train().dtype()); !widths.ok()) {
      Add(std::move(widths).error());
    }
    if (!errors_.empty()) return;
    if (auto plan = MakeJobPlan(spec_); !plan.ok()) Add(std::move(plan).error());
  }

  void Identity() {
    if (spec_.spec_version() != 1) Refuse("spec_version = {}: use 1", spec_.spec_version());
    if (spec_.kind() != "pretrain") Refuse("kind = {}: use pretrain", spec_.kind());
    // The name becomes a folder.
    const std::string& name = spec_.name();
    const bool plain = std::ranges::all_of(name, [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
    });
    if (name.empty() || name.size() > 100 || name[0] == '.' || !plain) {
      Refuse(
          "name = {}: use up to 100 letters, digits, dots, hyphens and underscores, no dot first",
          Shown(name));
    }
  }

  void Training() {
    const proto::Train& train = spec_.train();
    if (!train.has_steps()) {
      Refuse("train.steps is missing: give the number of optimizer updates");
    } else if (train.steps() < 1) {
      Refuse("train.steps = {}: use 1 or more", train.steps());
    }
    if (train.stop_after() < 0 || (train.steps() > 0 && train.stop_after() > train.steps())) {
      Refuse("train.stop_after = {}: use 1 to train.steps = {}, or 0 to run to the end",
             train.stop_after(), train.steps());
    }
    const proto::Optimizer& optimizer = spec_.optimizer();
    if (optimizer.name() != "adamw") Refuse("optimizer.name = {}: use adamw", optimizer.name());
    if (optimizer.betas_size() != 2 || !(optimizer.betas(0) >= 0 && optimizer.betas(0) < 1) ||
        !(optimizer.betas(1) >= 0 && optimizer.betas(1) < 1)) {
      Refuse("optimizer.betas = [{}]: use two numbers from 0 to below 1, as [0.9, 0.95]",
             fmt::join(optimizer.betas(), ", "));
    }
    if (!(optimizer.eps() > 0)) Refuse("optimizer.eps = {}: use 1e-8", optimizer.eps());
    if (!(optimizer.weight_decay() >= 0)) {
      Refuse("optimizer.weight_decay = {}: use 0 or more", optimizer.weight_decay());
    }
    if (!(optimizer.grad_clip() >= 0)) {
      Refuse("optimizer.grad_clip = {}: use 0 (off) or more", optimizer.grad_clip());
    }
  }

  void Resources() {
    const proto::Parallelism& p = spec_.parallelism();
    const proto::Resources& resources = spec_.resources();
    // Axes may be out of range here, and their product with them.
    const double product = double{1} * p.dp() * p.cp() * p.tp() * p.pp();
    if (product >= 1 && product < 1e9 && resources.workers() != product) {
      Refuse(
          "resources.workers = {}, but dp x cp x tp x pp = {} x {} x {} x {} = {}: leave it out, "
          "or set {}",
          resources.workers(), p.dp(), p.cp(), p.tp(), p.pp(), product, product);
    }
    if (resources.threads_per_worker() < 1 || resources.threads_per_worker() > 1024) {
      Refuse("resources.threads_per_worker = {}: use 1 to 1024", resources.threads_per_worker());
    }
  }

  void Output() {
    const proto::Eval& eval = spec_.eval();
    if (eval.every() < 0) Refuse("eval.every = {}: use 0 (never) or more", eval.every());
    if (eval.batches() < 1) Refuse("eval.batches = {}: use 1 or more", eval.batches());
    if (eval.every() > 0 && !(spec_.data().val_fraction() > 0)) {
      Refuse("eval.every = {} needs data to evaluate on: set data.val_fraction, as 0.05",
             eval.every());
    }
    if (eval.has_check_against() && eval.check_against() != "single_worker" &&
        eval.check_against() != "single-worker") {
      Refuse("eval.check_against = {}: use single_worker", eval.check_against());
    }
    if (eval.has_sample()) {
      Prompt(eval.sample().prompt());
      if (eval.sample().tokens() < 1) {
        Refuse("eval.sample.tokens = {}: use 1 or more", eval.sample().tokens());
      }
      if (!(eval.sample().temperature() >= 0)) {
        Refuse("eval.sample.temperature = {}: use 0 (greedy) or more", eval.sample().temperature());
      }
    }
    const proto::Checkpoint& checkpoint = spec_.checkpoint();
    if (checkpoint.every() < 0) {
      Refuse("checkpoint.every = {}: use 0 (at the end only) or more", checkpoint.every());
    }
    if (checkpoint.every_seconds() < 0) {
      Refuse("checkpoint.every_seconds = {}: use 0 (never) or more", checkpoint.every_seconds());
    }
    if (checkpoint.resume_as() != "same_run" && checkpoint.resume_as() != "new_run") {
      Refuse("checkpoint.resume_as = {}: use same_run or new_run", Shown(checkpoint.resume_as()));
    }
    if (spec_.parallelism().rebalance() && checkpoint.every() == 0) {
      Refuse(
          "parallelism.rebalance = true: layers move at a checkpoint, and checkpoint.every = 0 "
          "writes none before the end; give it steps");
    }
    if (checkpoint.keep() < 1) Refuse("checkpoint.keep = {}: use 1 or more", checkpoint.keep());
  }

  // Its bytes are tokens.
  void Prompt(const std::string& prompt) {
    if (prompt.empty()) return Refuse("eval.sample.prompt is missing: give some text");
    const int64_t vocab_size = spec_.model().vocab_size();
    for (const unsigned char byte : prompt) {
      if (vocab_size <= 0 || byte < vocab_size) continue;
      return Refuse(
          "eval.sample.prompt = {}: its bytes are tokens, and {} lies outside model.vocab_size = "
          "{}: use other text",
          Shown(prompt), byte, vocab_size);
    }
  }

  void Data() {
    const proto::Data& data = spec_.data();
    if (!data.has_train()) return Refuse("data.train is missing: give a .txt or .bin file");
    const bool text = !data.train().ends_with(".bin");
    if (text && spec_.model().vocab_size() > 0 && spec_.model().vocab_size() < 256) {
      Refuse("model.vocab_size = {}: bytes as tokens (.txt) need 256", spec_.model().vocab_size());
    }
    const auto file = TokenFile::Open(files_, data.train());
    if (!file.ok()) {
      return Add({file.error().code, fmt::format("data.train = {}: give a .txt or .bin file that "
                                                 "can be read",
                                                 file.error().message)});
    }
    if (spec_.batch().seq_len() < 1) return;
    const auto samples = CountSamples(*file, spec_.batch().seq_len());
    if (!samples.ok()) {
      return Add({samples.error().code, "data.train = " + samples.error().message});
    }
    auto order =
        DataOrder::Make({.num_samples = *samples,
                         .val_fraction = data.val_fraction(),
                         .validates = spec_.eval().every() > 0 && data.val_fraction() > 0});
    if (!order.ok()) Add(std::move(order).error());
  }

  FileSystem& files_;
  const proto::JobSpec& spec_;
  std::vector<Error> errors_{};
};

}  // namespace

std::vector<Error> CheckJob(FileSystem& files, const proto::JobSpec& spec) {
  return Checker(files, spec).Run();
}

}  // namespace troupe
