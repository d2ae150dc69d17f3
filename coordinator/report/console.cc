#include "coordinator/report/console.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "coordinator/report/metrics_json.h"
#include "coordinator/report/plan_report.h"

namespace troupe {
namespace {

constexpr int64_t kLineEveryNs = 10'000'000'000;
constexpr int kBarColumns = 24;

std::string Seconds(double seconds) {
  if (seconds < 100) return fmt::format("{:.0f}s", seconds);
  return fmt::format("{}m{:02}s", static_cast<int64_t>(seconds) / 60,
                     static_cast<int64_t>(seconds) % 60);
}

std::string StepLine(const proto::StepMetrics& m, int64_t steps, int workers) {
  return fmt::format(
      "step {:>5}/{} | loss {:.4f} | grad_norm {:.3f} | lr {:.2e} | tok/s {} ({}/worker) | bubble "
      "{:.1f}% | {:.3f} s | eta {}",
      m.step(), steps, m.loss(), m.grad_norm(), m.lr(),
      WithThousands(static_cast<int64_t>(m.tokens_per_second())),
      WithThousands(static_cast<int64_t>(m.tokens_per_second() / workers)),
      100 * m.bubble_fraction(), m.step_seconds(),
      Seconds(static_cast<double>(steps - m.step()) * m.step_seconds()));
}

// Sampled bytes as people can read them: what is not printable is shown as its number.
std::string Readable(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == '\n' || (byte >= 0x20 && byte < 0x7f)) {
      text += c;
    } else {
      text += fmt::format("\\x{:02x}", byte);
    }
  }
  return text;
}

}  // namespace

bool ShowsBar(std::FILE* file) {
  const char* term = std::getenv("TERM");
  return ::isatty(::fileno(file)) != 0 && term != nullptr && std::string_view(term) != "dumb";
}

Console::Console(ConsoleOptions options, Clock& clock, std::FILE* data, std::FILE* talk)
    : options_(std::move(options)), clock_(clock), data_(data), talk_(talk) {}

void Console::ClearBar() {
  if (std::exchange(bar_shown_, false)) fmt::print(talk_, "\r\x1b[K");
}

void Console::Say(const std::string& line) {
  ClearBar();
  fmt::print(talk_, "{}\n", line);
  std::fflush(talk_);
}

void Console::Show(const proto::JobEvent& event) {
  switch (event.event_case()) {
    case proto::JobEvent::kState:
      return ShowState(event.state());
    case proto::JobEvent::kRank:
      return ShowRank(event.rank());
    case proto::JobEvent::kResult:
      return ShowResult(event.result());
    default:
      return;
  }
}

void Console::ShowState(const proto::JobSummary& summary) {
  const bool news = summary.state() != state_ || summary.reason() != reason_;
  state_ = summary.state();
  reason_ = summary.reason();
  if (!news) return;
  if (state_ == proto::JOB_STATE_QUEUED && !reason_.empty()) {
    Say(fmt::format("job {} is queued: {}", summary.job(), reason_));
  } else if (state_ == proto::JOB_STATE_STARTING) {
    Say(fmt::format("job {}: starting {} worker{}", summary.job(), options_.num_workers,
                    options_.num_workers == 1 ? "" : "s"));
  }
}

void Console::ShowRank(const proto::RankMessage& rank) {
  const proto::FromRank& message = rank.message();
  switch (message.message_case()) {
    case proto::FromRank::kMetrics:
      return ShowStep(message.metrics(), rank.reference_run());
    case proto::FromRank::kEval:
      if (options_.jsonl) fmt::print(data_, "{}\n", EvalJson(message.eval(), clock_.WallUs()));
      return Say(fmt::format("step {:>5} | val/loss {:.4f}", message.eval().step(),
                             message.eval().val_loss()));
    case proto::FromRank::kHappening:
      if (message.happening().level() != "info" || rank.rank() == 0) {
        Say(fmt::format("[rank {}] {}", rank.rank(), message.happening().text()));
      }
      return;
    case proto::FromRank::kCheckpoint:
      hf_directory_ = message.checkpoint().hf_directory();
      return;
    case proto::FromRank::kSampled:
      return Say(fmt::format("\nsampled:\n{}{}\n", Readable(message.sampled().prompt()),
                             Readable(message.sampled().continuation())));
    default:
      return;
  }
}

void Console::ShowStep(const proto::StepMetrics& m, bool reference_run) {
  const bool last = m.step() >= options_.steps;
  if (reference_run) {
    if (!std::exchange(reference_announced_, true)) {
      Say("running the same steps on one worker, to compare");
    }
  } else if (options_.jsonl) {
    fmt::print(data_, "{}\n", MetricsJson(m, options_.num_workers, clock_.WallUs()));
    std::fflush(data_);
  }
  if (!reference_run && !std::exchange(any_step_, true)) first_loss_ = m.loss();
  if (options_.bar) {
    const auto done =
        static_cast<int>(kBarColumns * m.step() / std::max<int64_t>(1, options_.steps));
    fmt::print(talk_, "\r\x1b[K[{}{}] {}", std::string(static_cast<size_t>(done), '#'),
               std::string(static_cast<size_t>(kBarColumns - done), '.'),
               reference_run ? fmt::format("one worker: step {}/{}", m.step(), options_.steps)
                             : StepLine(m, options_.steps, options_.num_workers));
    bar_shown_ = true;
    std::fflush(talk_);
    return;
  }
  // A line every log_every steps, but not more than one every ten seconds beside the first, the
  // last and every tenth of the way.
  const int64_t now_ns = clock_.NowNs();
  const int64_t tenth = std::max<int64_t>(options_.log_every, options_.steps / 10);
  if (reference_run && !last) return;
  if (m.step() == 1 || last || m.step() % tenth == 0 || now_ns - last_line_ns_ > kLineEveryNs) {
    last_line_ns_ = now_ns;
    Say((reference_run ? "one worker: " : "") +
        StepLine(m, options_.steps, reference_run ? 1 : options_.num_workers));
  }
}

void Console::ShowResult(const proto::JobResult& result) {
  ClearBar();
  if (!result.parity().empty()) Say(fmt::format("parity with 1 worker: {}", result.parity()));
  if (result.state() == proto::JOB_STATE_CANCELLED) {
    Say(fmt::format("cancelled{}", result.checkpoint().empty()
                                       ? ""
                                       : fmt::format("; checkpoint {}", result.checkpoint())));
    if (!options_.resume_command.empty() && !result.checkpoint().empty()) {
      Say(fmt::format("go on with: {}", options_.resume_command));
    }
  } else if (result.state() == proto::JOB_STATE_FAILED) {
    Say(fmt::format("failed: {}", result.reason()));
  }
  Say(fmt::format("run directory: {}", result.run_directory()));
  if (options_.jsonl) {
    fmt::print(data_, "{}\n", ResultJson(result));
    std::fflush(data_);
  }
}

}  // namespace troupe
