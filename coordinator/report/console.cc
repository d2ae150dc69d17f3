#include "coordinator/report/console.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "actors/plan/batch_arithmetic.h"
#include "coordinator/report/attention_report.h"
#include "coordinator/report/step_line.h"
#include "runtime/base/file_system.h"
#include "runtime/base/standard_streams.h"
#include "runtime/base/talk.h"
#include "runtime/base/thread.h"

namespace troupe {
namespace {

constexpr int64_t kLineEveryNs = 10'000'000'000;
constexpr int64_t kQuietNs = 29'000'000'000;  // then a line says that it goes on
constexpr int kTickMs = 500;
constexpr int64_t kBarColumnsMin = 8;  // a shorter bar says nothing
constexpr size_t kColumnsWithoutTerminal = 100;

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

std::string Lowered(std::string_view text) {
  std::string lowered(text);
  std::ranges::transform(lowered, lowered.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lowered;
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
    : options_(std::move(options)),
      clock_(clock),
      data_(data),
      talk_(talk),
      last_line_ns_(clock.NowNs()) {
  if (!options_.ticks || options_.bar) return;
  auto ticker = StartThread("the console", [this] {
    std::unique_lock lock(mutex_);
    const auto pause = std::chrono::milliseconds(kTickMs);
    while (!wake_.wait_for(lock, pause, [this] { return closing_; })) SayWhereNothingWas();
  });
  // A job that was handed over is followed without it, too.
  if (ticker.ok()) ticker_ = *std::move(ticker);
}

Console::~Console() {
  if (!ticker_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  wake_.notify_one();
  ticker_.join();
}

// ---- lines -----------------------------------------------------------------------------------

void Console::ClearBar() {
  if (std::exchange(bar_shown_, false)) Talk("\r\x1b[K");
}

void Console::Say(const std::string& line) {
  ClearBar();
  Talk(line + "\n");
  last_line_ns_ = clock_.NowNs();
}

void Console::Tick() {
  const std::lock_guard lock(mutex_);
  SayWhereNothingWas();
}

void Console::SayWhereNothingWas() {
  if (options_.bar || ended_ || clock_.NowNs() - last_line_ns_ <= kQuietNs) return;
  if (!any_step_) {
    const double seconds = static_cast<double>(clock_.NowNs() - state_since_ns_) * 1e-9;
    return Say(fmt::format("{} for {}", Lowered(JobStateName(state_)), DurationText(seconds)));
  }
  const double seconds = static_cast<double>(clock_.NowNs() - last_ns_) * 1e-9;
  Say(fmt::format("step {:>5}/{} was {} ago | {} | tok/s {} | eta {}", last_.step(), options_.steps,
                  DurationText(seconds), LossText(last_),
                  WithThousands(static_cast<int64_t>(last_.tokens_per_second())),
                  DurationText(SecondsLeft())));
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
  // A line that wraps could not be drawn over.
  const auto columns = static_cast<int64_t>(ColumnsOf(talk_)) - 1;
  const int64_t room = std::min(kBarColumns, columns - std::ssize(text) - 3);
  std::string line = text;
  if (room >= kBarColumnsMin) {
    const int64_t steps = std::max<int64_t>(1, options_.steps);
    const int64_t done = std::clamp<int64_t>(room * step / steps, 0, room);
    line = fmt::format("[{}{}] {}", std::string(static_cast<size_t>(done), '#'),
                       std::string(static_cast<size_t>(room - done), '.'), text);
  }
  if (std::ssize(line) > columns) line.resize(static_cast<size_t>(std::max<int64_t>(columns, 0)));
  Talk("\r\x1b[K" + line);
  bar_shown_ = true;
}

bool Console::IsLineDue(int64_t step) {
  const int64_t every = std::max<int64_t>({1, options_.log_every, options_.steps / 10});
  const int64_t now_ns = clock_.NowNs();
  return step >= options_.steps || step % every == 0 || step == first_shown_ ||
         now_ns - last_line_ns_ > kLineEveryNs;
}

// ---- events ----------------------------------------------------------------------------------

void Console::Show(const proto::JobEvent& event) {
  const std::lock_guard lock(mutex_);
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
  if (summary.state() != state_) state_since_ns_ = clock_.NowNs();
  state_ = summary.state();
  reason_ = summary.reason();
  const bool past = state_ < options_.seen_state && first_shown_ == 0;
  if (!news || past) return;
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
    case proto::FromRank::kFinished:
      if (message.finished().has_communication()) {
        communication_[rank.rank()] = message.finished().communication();
      }
      return;
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

// Of training since the first step that was shown. What came at once was not made at once.
double Console::SecondsSinceFirst() const {
  if (first_timed_ == 0) return 0;
  return std::max(static_cast<double>(last_ns_ - first_timed_ns_) * 1e-9, seconds_since_first_);
}

double Console::SecondsLeft() const {
  const int64_t done = first_timed_ == 0 ? 0 : last_.step() - first_timed_;
  const double each =
      done > 0 ? SecondsSinceFirst() / static_cast<double>(done) : last_.step_seconds();
  return each * static_cast<double>(std::max<int64_t>(0, options_.steps - last_.step()));
}

void Console::ShowStep(const proto::StepMetrics& m) {
  last_ns_ = clock_.NowNs();
  last_ = m;
  if (!std::exchange(any_step_, true)) first_ = m;
  if (m.has_loss()) {
    if (!first_loss_) first_loss_ = m.loss();
    last_loss_ = m.loss();
  }
  const bool any_timed = first_timed_ != 0;
  (any_timed ? seconds_since_first_ : seconds_through_first_) += m.step_seconds();
  if (m.step() <= options_.seen_through) return;
  if (first_shown_ == 0) first_shown_ = m.step();
  if (!any_timed) {
    first_timed_ = m.step();
    first_timed_ns_ = last_ns_;
  }
  StepData(MetricsJson(m, options_.num_workers, clock_.WallUs(), peaks_));
  const std::vector<LinePiece> pieces =
      StepPieces(m, options_.steps, options_.num_workers, SecondsLeft());
  if (options_.bar) {
    DrawBar(m.step(), FittedBesideBar(pieces, ColumnsOf(talk_) - 1));
  } else if (IsLineDue(m.step())) {
    Say(WholeLine(pieces));
  }
}

void Console::ShowReferenceStep(const proto::StepMetrics& m) {
  if (!std::exchange(reference_announced_, true)) {
    Say("running the same steps on one worker, to compare");
    last_line_ns_ = clock_.NowNs();
  }
  const std::vector<LinePiece> pieces = ReferenceStepPieces(m, options_.steps);
  if (options_.bar) {
    DrawBar(m.step(), FittedBesideBar(pieces, ColumnsOf(talk_) - 1));
  } else if (m.step() >= options_.steps || clock_.NowNs() - last_line_ns_ > kLineEveryNs) {
    last_line_ns_ = clock_.NowNs();
    Say(WholeLine(pieces));
  }
}

void Console::ShowEval(const proto::EvalMetrics& m) {
  const bool of_a_step = m.step() > 0;
  if (of_a_step && m.step() <= options_.seen_through) return;
  if (first_shown_ == 0) first_shown_ = m.step();
  StepData(EvalJson(m, clock_.WallUs()));
  const std::string loss =
      m.has_val_loss() ? fmt::format("val/loss {:.4f}", m.val_loss()) : "no val/loss";
  if (!of_a_step) return Say(fmt::format("{} over {} labels", loss, WithThousands(m.tokens())));
  Say(fmt::format("step {:>5}/{} | {}", m.step(), options_.steps, loss));
}

// ---- the end ---------------------------------------------------------------------------------

void Console::ShowWhatWasTrained() {
  if (!any_step_) return;
  const int64_t before = first_.tokens() - first_.step_tokens();
  const std::string in_all =
      before > 0 ? fmt::format(" ({} in all)", WithThousands(last_.tokens())) : "";
  const std::string loss =
      first_loss_ ? fmt::format("loss {:.4f} -> {:.4f}", *first_loss_, *last_loss_) : "no loss";
  Say(fmt::format("trained steps {} to {}: {}, {} tokens in {}{}", first_.step(), last_.step(),
                  loss, WithThousands(last_.tokens() - before),
                  DurationText(seconds_through_first_ + SecondsSinceFirst()), in_all));
  if (const std::string table = MemoryText(memory_); !table.empty()) {
    Say("\nmemory, measured/predicted at the peak");
    Say(table);
  }
  if (const std::string table = CommunicationText(communication_); !table.empty()) {
    Say("communication, measured/predicted: what a rank sends in a training step");
    Say(table);
  }
  if (const std::string table = AttentionText(communication_); !table.empty()) {
    Say("attention, measured/predicted: pairs of query and key in a training step");
    Say(table);
  }
}

// What can be seen from here; a run on a machine with disks of its own leaves it there.
void Console::ShowWhatWasMade(const std::string& run_directory) {
  Say(fmt::format("run directory: {}", run_directory));
  if (!any_step_) return;
  FileSystem& files = SystemFiles();
  const auto say = [&](const char* what, std::initializer_list<const char*> names) {
    std::string line;
    for (const char* name : names) {
      if (files.Exists(JoinPath(run_directory, name))) line += fmt::format(" {}", name);
    }
    if (!line.empty()) Say(fmt::format("  {:<10}{}", what, line));
  };
  say("pictures", {"schedule.svg", "loss.svg", "memory.svg"});
  say("numbers", {"metrics.jsonl", "tb/"});
  const auto traces = files.List(JoinPath(run_directory, "trace"));
  if (traces.ok() && traces->size() == 1) {
    Say(fmt::format("  trace      trace/{} (open it in ui.perfetto.dev)", traces->front()));
  } else if (traces.ok() && !traces->empty()) {
    Say(fmt::format("  trace      trace/ ({} files: open one in ui.perfetto.dev)", traces->size()));
  }
  if (!hf_directory_.empty()) Say(fmt::format("  model      {}", hf_directory_));
}

void Console::ShowResult(const proto::JobResult& result) {
  ended_ = true;
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
