#include "coordinator/report/console.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "coordinator/report/plan_report.h"
#include "runtime/base/standard_streams.h"
#include "runtime/base/talk.h"

namespace troupe {
namespace {

constexpr int64_t kLineEveryNs = 10'000'000'000;
constexpr int64_t kBarColumns = 24;
constexpr size_t kColumnsWithoutTerminal = 100;

std::string Duration(double seconds) {
  if (!(seconds < 1e9)) return "?";
  const auto whole = static_cast<int64_t>(seconds);
  if (seconds < 100) return fmt::format("{:.0f}s", seconds);
  if (whole < 6000) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  return fmt::format("{}h{:02}m", whole / 3600, whole % 3600 / 60);
}

std::string StepLine(const proto::StepMetrics& m, int64_t steps, int workers, double seconds_left) {
  const auto rate = static_cast<int64_t>(m.tokens_per_second());
  const std::string per_worker =
      workers > 1 ? fmt::format(" ({}/worker)", WithThousands(rate / workers)) : "";
  return fmt::format(
      "step {:>5}/{} | loss {:.4f} | grad_norm {:.3f} | lr {:.2e} | tok/s {}{} | bubble {:.1f}% | "
      "{:.3f} s | eta {}",
      m.step(), steps, m.loss(), m.grad_norm(), m.lr(), WithThousands(rate), per_worker,
      100 * m.bubble_fraction(), m.step_seconds(), Duration(seconds_left));
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

// A checkpoint of an earlier run is known by its folder alone: "step-00000040".
int64_t CommittedStep(const proto::JobResult& result) {
  if (result.checkpoint_step() > 0) return result.checkpoint_step();
  const std::string& folder = result.checkpoint();
  int64_t step = 0;
  std::from_chars(folder.data() + folder.rfind('-') + 1, folder.data() + folder.size(), step);
  return step;
}

size_t ColumnsOf(std::FILE* file) {
  winsize size{};
  const bool known = ::ioctl(::fileno(file), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : kColumnsWithoutTerminal;
}

}  // namespace

std::string GoOnText(int64_t committed_step, bool committed, const std::string& command) {
  if (!committed) return "no step is committed: there is nothing to go on from";
  return fmt::format("step {} is committed; go on with: {}", committed_step, command);
}

bool ShowsBar(std::FILE* file) {
  const char* term = std::getenv("TERM");
  return ::isatty(::fileno(file)) != 0 && term != nullptr && std::string_view(term) != "dumb";
}

Console::Console(ConsoleOptions options, Clock& clock, std::FILE* data, std::FILE* talk)
    : options_(std::move(options)), clock_(clock), data_(data), talk_(talk) {}

// ---- lines -----------------------------------------------------------------------------------

void Console::ClearBar() {
  if (std::exchange(bar_shown_, false)) Talk("\r\x1b[K");
}

void Console::Say(const std::string& line) {
  ClearBar();
  Talk(line + "\n");
}

void Console::Talk(const std::string& text) { troupe::Say(::fileno(talk_), text, TalkPatience()); }

void Console::Data(const std::string& line) {
  if (options_.output == OutputFormat::kText || !printed_.ok()) return;
  printed_ = WriteWhole(::fileno(data_), line + "\n");
  if (!printed_.ok()) {
    Say(
        fmt::format("stdout takes no more: {}: the job goes on, its numbers are in its run "
                    "directory alone",
                    printed_.error().message));
  }
}

void Console::StepData(const std::string& line) {
  if (options_.output == OutputFormat::kJsonl) Data(line);
}

void Console::DrawBar(int64_t step, const std::string& text) {
  const int64_t steps = std::max<int64_t>(1, options_.steps);
  const int64_t done = std::clamp<int64_t>(kBarColumns * step / steps, 0, kBarColumns);
  std::string line = fmt::format("[{}{}] {}", std::string(static_cast<size_t>(done), '#'),
                                 std::string(static_cast<size_t>(kBarColumns - done), '.'), text);
  // A line that wraps could not be drawn over.
  const size_t columns = ColumnsOf(talk_) - 1;
  if (line.size() > columns) line.resize(columns);
  Talk("\r\x1b[K" + line);
  bar_shown_ = true;
}

bool Console::IsLineDue(int64_t step) {
  const int64_t every = std::max<int64_t>({1, options_.log_every, options_.steps / 10});
  const int64_t now_ns = clock_.NowNs();
  const bool due = step >= options_.steps || step % every == 0 ||
                   (any_step_ && step == first_.step()) || now_ns - last_line_ns_ > kLineEveryNs;
  if (due) last_line_ns_ = now_ns;
  return due;
}

// ---- events ----------------------------------------------------------------------------------

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
  if (message.has_happening()) return ShowHappening(rank.rank(), message.happening());
  if (rank.reference_run()) {
    if (message.has_metrics()) ShowReferenceStep(message.metrics());
    return;
  }
  switch (message.message_case()) {
    case proto::FromRank::kMetrics:
      return ShowStep(message.metrics());
    case proto::FromRank::kEval:
      return ShowEval(message.eval());
    case proto::FromRank::kMemory:
      memory_[rank.rank()] = message.memory();
      return NotePeak(peaks_, rank.rank(), message.memory());
    case proto::FromRank::kCheckpoint:
      if (!message.checkpoint().hf_directory().empty()) {
        hf_directory_ = message.checkpoint().hf_directory();
      }
      return;
    case proto::FromRank::kSampled:
      return Say(fmt::format("\nsampled:\n{}{}\n", Readable(message.sampled().prompt()),
                             Readable(message.sampled().continuation())));
    default:
      return;
  }
}

// The same words again and again are said once.
void Console::ShowHappening(int32_t rank, const proto::Happening& happening) {
  if (happening.level() == "info" && rank != 0) return;
  std::string line = fmt::format("[rank {}] {}", rank, happening.text());
  if (line == last_happening_) return;
  Say(line);
  last_happening_ = std::move(line);
}

double Console::SecondsLeft(const proto::StepMetrics& m) const {
  const int64_t done = m.step() - first_.step();
  const double each =
      done > 0 ? static_cast<double>(last_ns_ - first_ns_) * 1e-9 / static_cast<double>(done)
               : m.step_seconds();
  return each * static_cast<double>(std::max<int64_t>(0, options_.steps - m.step()));
}

void Console::ShowStep(const proto::StepMetrics& m) {
  last_ns_ = clock_.NowNs();
  last_ = m;
  if (!std::exchange(any_step_, true)) {
    first_ = m;
    first_ns_ = last_ns_;
  }
  StepData(MetricsJson(m, options_.num_workers, clock_.WallUs(), peaks_));
  const std::string line = StepLine(m, options_.steps, options_.num_workers, SecondsLeft(m));
  if (options_.bar) {
    DrawBar(m.step(), line);
  } else if (IsLineDue(m.step())) {
    Say(line);
  }
}

void Console::ShowReferenceStep(const proto::StepMetrics& m) {
  if (!std::exchange(reference_announced_, true)) {
    Say("running the same steps on one worker, to compare");
    last_line_ns_ = clock_.NowNs();
  }
  const std::string line = fmt::format("one worker: step {:>5}/{} | loss {:.4f} | {:.3f} s",
                                       m.step(), options_.steps, m.loss(), m.step_seconds());
  if (options_.bar) {
    DrawBar(m.step(), line);
  } else if (m.step() >= options_.steps || clock_.NowNs() - last_line_ns_ > kLineEveryNs) {
    last_line_ns_ = clock_.NowNs();
    Say(line);
  }
}

void Console::ShowEval(const proto::EvalMetrics& m) {
  StepData(EvalJson(m, clock_.WallUs()));
  Say(fmt::format("step {:>5}/{} | val/loss {:.4f}", m.step(), options_.steps, m.val_loss()));
}

// ---- the end ---------------------------------------------------------------------------------

void Console::ShowWhatWasTrained() {
  if (!any_step_) return;
  Say(fmt::format(
      "trained steps {} to {}: loss {:.4f} -> {:.4f}, {} tokens in {}", first_.step(), last_.step(),
      first_.loss(), last_.loss(), WithThousands(last_.tokens()),
      Duration(static_cast<double>(last_ns_ - first_ns_) * 1e-9 + first_.step_seconds())));
  if (const std::string table = MemoryText(memory_); !table.empty()) {
    Say("\nmemory, measured/predicted at the peak");
    Say(table);
  }
}

void Console::ShowWhatWasMade(const std::string& run_directory) {
  Say(fmt::format("run directory: {}", run_directory));
  if (!any_step_) return;
  Say("  pictures   schedule.svg loss.svg memory.svg");
  Say(fmt::format("  numbers    metrics.jsonl{}", options_.tensorboard ? " tb/" : ""));
  if (options_.trace) Say("  trace      trace/ (open the file in ui.perfetto.dev)");
  if (!hf_directory_.empty()) Say(fmt::format("  model      {}", hf_directory_));
}

void Console::ShowResult(const proto::JobResult& result) {
  ClearBar();
  ShowWhatWasTrained();
  if (!result.parity().empty()) Say(fmt::format("parity with 1 worker: {}", result.parity()));
  const std::string why = result.reason().empty() ? "" : ": " + result.reason();
  const std::string checkpoint =
      result.checkpoint().empty() ? "" : "; checkpoint " + result.checkpoint();
  if (result.state() == proto::JOB_STATE_CANCELLED) Say("cancelled" + why + checkpoint);
  if (result.state() == proto::JOB_STATE_PREEMPTED) Say("preempted" + why + checkpoint);
  if (result.state() == proto::JOB_STATE_FAILED) Say("failed" + why);
  ShowWhatWasMade(result.run_directory());
  if (result.state() != proto::JOB_STATE_SUCCEEDED && !options_.resume_command.empty()) {
    Say(GoOnText(CommittedStep(result), !result.checkpoint().empty(), options_.resume_command));
  }
  Data(ResultJson(result));
}

}  // namespace troupe
