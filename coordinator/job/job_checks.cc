#include "coordinator/job/job_checks.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <iterator>
#include <limits>

#include "actors/plan/job_plan.h"
#include "coordinator/job/job_bounds.h"
#include "coordinator/job/job_defaults.h"
#include "coordinator/job/provenance.h"
#include "coordinator/job/yaml_walker.h"
#include "runtime/format/token_file.h"

namespace troupe {
namespace {

// Rounds of an evaluation, tokens of a sample, seconds: counts that nobody means to be larger.
constexpr int kCountMax = 1 << 20;

class Checker {
 public:
  explicit Checker(const proto::JobSpec& spec) : spec_(spec) {}

  std::vector<Error> Run() {
    errors_ = CheckBounds(spec_);
    const size_t unbounded = errors_.size();
    // Lists beyond their bound are not read; other values are judged one by one.
    const auto is_list = [](const Error& error) {
      const std::string_view key = LeadingKey(error.message);
      return key == "parallelism.stage_layers" || key == "parallelism.schedule_actions";
    };
    if (std::ranges::none_of(errors_, is_list)) Layout();
    Identity();
    Training();
    Resources();
    Evaluation();
    Checkpoints();
    Trace(spec_.log().trace());
    Files();
    // A value out of bounds has been told.
    const auto told = [this, unbounded](const Error& error) {
      return std::any_of(errors_.begin(), errors_.begin() + static_cast<int64_t>(unbounded),
                         [&](const Error& bound) {
                           return LeadingKey(bound.message) == LeadingKey(error.message);
                         });
    };
    errors_.erase(
        std::remove_if(errors_.begin() + static_cast<int64_t>(unbounded), errors_.end(), told),
        errors_.end());
    return std::move(errors_);
  }

 private:
  template <typename... Args>
  void Refuse(fmt::format_string<Args...> format, Args&&... args) {
    errors_.push_back(MakeError(ErrorCode::kInvalidSpec, format, std::forward<Args>(args)...));
  }
  void Count(std::string_view key, int value, int least, int most, std::string_view meaning = "") {
    if (value < least || value > most) {
      Refuse("{} = {}: use {}{} to {}", key, value, least, meaning, most);
    }
  }

  void Layout() {
    const proto::Parallelism& p = spec_.parallelism();
    if (p.has_schedule_csv()) {
      Refuse("parallelism.schedule_csv = {}: send what the file holds, as schedule_actions",
             Shown(p.schedule_csv()));
    }
    JobPlanReading plan = ReadJobPlan(spec_);
    std::ranges::move(plan.errors, std::back_inserter(errors_));
    const proto::RopeScaling& rope = spec_.model().rope_scaling();
    if (rope.has_rope_theta() && !(rope.rope_theta() > 0)) {
      Refuse("model.rope_scaling.rope_theta = {}: use a positive number", rope.rope_theta());
    }
  }

  void Identity() {
    if (spec_.spec_version() != 1) Refuse("spec_version = {}: use 1", spec_.spec_version());
    if (spec_.kind() == "evaluate" || spec_.kind() == "sample") {
      WithoutTraining();
    } else if (spec_.kind() != "pretrain") {
      Refuse("kind = {}: use pretrain, evaluate or sample", Shown(spec_.kind()));
    }
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

  // It runs the weights of a folder once, and trains nothing.
  void WithoutTraining() {
    if (!spec_.model().has_init_from()) {
      Refuse("kind = {} needs weights: give a Hugging Face folder as model.init_from",
             spec_.kind());
    }
    if (spec_.checkpoint().resume() != "never") {
      Refuse(
          "kind = {}: checkpoint.resume = {}: use never, and model.init_from with what "
          "checkpoint.save_hf exported",
          spec_.kind(), Shown(spec_.checkpoint().resume()));
    }
    if (spec_.kind() == "sample" && !spec_.eval().has_sample()) {
      Refuse("kind = sample needs eval.sample: give it prompt and tokens");
    }
    if (spec_.kind() == "evaluate" && spec_.data().val_fraction() == 0) {
      Refuse("kind = evaluate needs data to evaluate on: set data.val_fraction, as 0.05");
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
    if (spec_.lr_scheduler().decay_steps() < 0) {
      Refuse("lr_scheduler.decay_steps = {}: use 0 or more", spec_.lr_scheduler().decay_steps());
    }
    const proto::Optimizer& optimizer = spec_.optimizer();
    if (optimizer.name() != "adamw") {
      Refuse("optimizer.name = {}: use adamw", Shown(optimizer.name()));
    }
    if (optimizer.betas_size() != 2 || !(optimizer.betas(0) >= 0 && optimizer.betas(0) < 1) ||
        !(optimizer.betas(1) >= 0 && optimizer.betas(1) < 1)) {
      Refuse("optimizer.betas = [{}]: use two numbers from 0 to below 1, as [0.9, 0.95]",
             fmt::join(optimizer.betas().begin(),
                       optimizer.betas().begin() + std::min(optimizer.betas_size(), 4), ", "));
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
    const int dp = p.has_dp() ? p.dp() : 1;
    const int cp = p.has_cp() ? p.cp() : 1;
    const int tp = p.has_tp() ? p.tp() : 1;
    const int pp = p.has_pp() ? p.pp() : 1;
    // Axes may be out of range here, and their product with them.
    const double product = double{1} * dp * cp * tp * pp;
    if (product >= 1 && product < 1e9 && resources.workers() != product) {
      Refuse(
          "resources.workers = {}, but parallelism.dp x parallelism.cp x parallelism.tp x "
          "parallelism.pp = {} x {} x {} x {} = {}: leave it out, or set {}",
          resources.workers(), dp, cp, tp, pp, product, product);
    }
    Count("resources.threads_per_worker", resources.threads_per_worker(), 1, 1024);
    if (resources.has_peer_silence_seconds()) {
      Count("resources.peer_silence_seconds", resources.peer_silence_seconds(), 3, 86'400);
    }
    if (resources.has_hang_seconds()) {
      Count("resources.hang_seconds", resources.hang_seconds(), 3, 604'800);
    }
    Count("log.every", spec_.log().every(), 1, std::numeric_limits<int32_t>::max());
  }

  void Evaluation() {
    const proto::Eval& eval = spec_.eval();
    if (eval.every() < 0) Refuse("eval.every = {}: use 0 (never) or more", eval.every());
    Count("eval.batches", eval.batches(), 1, kCountMax);
    const double val_fraction = spec_.data().val_fraction();
    if (!(val_fraction >= 0 && val_fraction < 1)) {
      Refuse("data.val_fraction = {}: use 0 to below 1 (the share of the file's tail)",
             val_fraction);
    } else if (eval.every() > 0 && val_fraction == 0) {
      Refuse("eval.every = {} needs data to evaluate on: set data.val_fraction, as 0.05",
             eval.every());
    }
    if (eval.has_check_against() && eval.check_against() != "single_worker" &&
        eval.check_against() != "single-worker") {
      Refuse("eval.check_against = {}: use single_worker", Shown(eval.check_against()));
    } else if (eval.has_check_against() && spec_.parallelism().reduction() == kRingReduction &&
               spec_.parallelism().cp() <= 1 && NumRingMembers() > 2) {
      Refuse(
          "eval.check_against = {} compares bits, and parallelism.reduction = ring adds in another "
          "order than one worker: use ordered, or leave the comparison out",
          eval.check_against());
    }
    if (!eval.has_sample()) return;
    Prompt(eval.sample().prompt());
    Count("eval.sample.tokens", eval.sample().tokens(), 1, kCountMax);
    if (!(eval.sample().temperature() >= 0)) {
      Refuse("eval.sample.temperature = {}: use 0 (greedy) or more", eval.sample().temperature());
    }
  }

  // Data-parallel ranks, and of each its directions: once a step every one adds a group.
  int NumRingMembers() const {
    const proto::Parallelism& p = spec_.parallelism();
    const auto reduce = GradReduceOf(p);
    const bool once = p.dp() > 1 && reduce.ok() && *reduce == GradReduce::kStep;
    return once ? std::max(p.dp(), spec_.batch().gradient_groups()) : p.dp();
  }

  void Trace(const proto::TraceWindow& window) {
    if (window.first() < 1) Refuse("log.trace.first = {}: use 1 or more", window.first());
    if (window.steps() < 0) {
      Refuse("log.trace.steps = {}: use 0 (no trace) or more", window.steps());
    }
    if (window.every() < 0 || (window.every() > 0 && window.every() < window.steps())) {
      Refuse("log.trace.every = {}: use 0 (one window), or log.trace.steps = {} or more",
             window.every(), window.steps());
    }
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

  void Checkpoints() {
    const proto::Checkpoint& checkpoint = spec_.checkpoint();
    if (checkpoint.every() < 0) {
      Refuse("checkpoint.every = {}: use 0 (at the end only) or more", checkpoint.every());
    }
    if (checkpoint.every_seconds() < 0) {
      Refuse("checkpoint.every_seconds = {}: use 0 (never) or more", checkpoint.every_seconds());
    }
    if (spec_.parallelism().rebalance() && checkpoint.every() == 0) {
      Refuse(
          "parallelism.rebalance = true: layers move at a checkpoint, and checkpoint.every = 0 "
          "writes none before the end; give it steps");
    }
    if (checkpoint.keep() < 1) Refuse("checkpoint.keep = {}: use 1 or more", checkpoint.keep());
    const std::string& resume = checkpoint.resume();
    if (resume != "never" && resume != "auto") Path("checkpoint.resume", resume, "never, auto or ");
    const std::string& as = checkpoint.resume_as();
    if (checkpoint.has_resume_as() && as != "same_run" && as != "new_run") {
      Refuse("checkpoint.resume_as = {}: use same_run or new_run", Shown(as));
    }
  }

  // Every host opens it, from another working directory.
  void Path(std::string_view key, const std::string& path, std::string_view also = "") {
    if (!path.starts_with('/')) Refuse("{} = {}: use {}an absolute path", key, Shown(path), also);
  }

  void Token(std::string_view key, int token) {
    const int vocab_size = spec_.model().vocab_size();
    if (vocab_size > 0 && (token < 0 || token >= vocab_size)) {
      Refuse("{} = {}: use a token of the vocabulary, 0 to {}", key, token, vocab_size - 1);
    } else if (token < 0) {
      Refuse("{} = {}: use a token of the vocabulary, 0 or more", key, token);
    }
  }

  void Files() {
    const proto::Data& data = spec_.data();
    const proto::Model& model = spec_.model();
    if (!model.config().empty()) {
      Refuse("model.config = {}: send the keys that the file holds", Shown(model.config()));
    }
    if (model.has_init_from()) Path("model.init_from", model.init_from());
    if (data.has_ignore_label()) Token("data.ignore_label", data.ignore_label());
    if (data.has_document_separator()) {
      Token("data.document_separator", data.document_separator());
    }
    const auto format = ParseTokenFormat(data.format());
    if (!format.ok()) Refuse("data.format = {}: {}", Shown(data.format()), format.error().message);
    if (!data.has_train()) return Refuse("data.train is missing: give a .txt or .bin file");
    Path("data.train", data.train());
    if (format.ok() && BytesAreTokens(*format, data.train()) && model.vocab_size() > 0 &&
        model.vocab_size() < 256) {
      Refuse("model.vocab_size = {}: bytes as tokens (.txt) need 256", model.vocab_size());
    }
  }

  const proto::JobSpec& spec_;
  std::vector<Error> errors_{};
};

}  // namespace

std::vector<Error> CheckJob(const proto::JobSpec& spec) { return Checker(spec).Run(); }

Result<proto::JobSpec> AcceptSpec(proto::JobSpec spec) {
  std::vector<Error> errors = CheckBounds(spec);
  if (errors.empty()) {
    Provenance unused;
    ApplyDefaults(spec, unused);
    errors = CheckJob(spec);
  }
  if (errors.empty()) return spec;
  Error first = std::move(errors.front());
  if (errors.size() > 1) {
    first.message += fmt::format("; and {} more", errors.size() - 1);
  }
  return first;
}

}  // namespace troupe
