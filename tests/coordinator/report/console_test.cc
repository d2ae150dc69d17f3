#include "coordinator/report/console.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>
#include <vector>

#include <nlohmann/json.hpp>

#include "runtime/base/check.h"
#include "runtime/base/talk.h"
#include "tests/runtime/actor/manual_clock.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

class ConsoleTest : public ::testing::Test {
 protected:
  ~ConsoleTest() override {
    std::fclose(data_);
    std::fclose(talk_);
  }
  Console& With(ConsoleOptions options) {
    options.steps = 100;
    options.num_workers = 4;
    console_.emplace(options, clock_, data_, talk_);
    return *console_;
  }
  static proto::JobEvent Step(int64_t step, double loss, bool reference_run = false) {
    proto::JobEvent event;
    event.mutable_rank()->set_reference_run(reference_run);
    auto* metrics = event.mutable_rank()->mutable_message()->mutable_metrics();
    metrics->set_step(step);
    metrics->set_loss(loss);
    metrics->set_grad_norm(0);
    metrics->set_step_seconds(0.5);
    metrics->set_tokens_per_second(12345);
    return event;
  }
  static proto::JobEvent Result(proto::JobState state) {
    proto::JobEvent event;
    event.mutable_result()->set_state(state);
    event.mutable_result()->set_run_directory("/runs/a");
    return event;
  }
  // A run's folder that has these files.
  std::string MadeRun(const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      CHECK(SystemFiles().CreateDirectories(FolderOf(folder_ / name)).ok());
      folder_.Write(name, "x");
    }
    return folder_.path();
  }
  static std::string Text(std::FILE* file) {
    std::fflush(file);
    std::rewind(file);
    std::string text;
    for (int c = 0; (c = std::fgetc(file)) != EOF;) text += static_cast<char>(c);
    return text;
  }
  std::vector<std::string> Lines(std::FILE* file) {
    std::vector<std::string> lines;
    std::istringstream stream(Text(file));
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
  }

  testing::TemporaryFolder folder_;
  ManualClock clock_;
  std::FILE* data_ = std::tmpfile();
  std::FILE* talk_ = std::tmpfile();
  std::optional<Console> console_{};
};

TEST_F(ConsoleTest, PlainLinesComeEveryTenthAndHaveNoCarriageReturn) {
  Console& console = With({});
  for (int64_t step = 1; step <= 100; ++step) console.Show(Step(step, 3.0));
  const auto lines = Lines(talk_);
  EXPECT_THAT(lines, SizeIs(11)) << "the first, then every tenth";
  EXPECT_THAT(lines[0], StartsWith("step     1/100 | loss 3.0000 | grad_norm 0.000 | lr "));
  EXPECT_THAT(lines[0], HasSubstr("tok/s 12,345 (3,086/worker)"));
  EXPECT_THAT(lines[0], EndsWith("eta 50s"));
  EXPECT_THAT(Text(talk_), Not(HasSubstr("\r")));
  EXPECT_EQ(Text(data_), "");
}

TEST_F(ConsoleTest, SlowStepsAreToldAfterTenSeconds) {
  Console& console = With({});
  console.Show(Step(1, 3.0));
  console.Show(Step(2, 3.0));
  clock_.AdvanceMs(10'001);
  console.Show(Step(3, 3.0));
  EXPECT_THAT(Lines(talk_), SizeIs(2));
}

TEST_F(ConsoleTest, TheBarIsDrawnOverAndClearedBeforeALine) {
  Console& console = With({.bar = true});
  console.Show(Step(50, 3.0));
  console.Show(Step(200, 3.0));  // beyond the end: a full bar
  console.Show(Result(proto::JOB_STATE_SUCCEEDED));
  const std::string text = Text(talk_);
  EXPECT_THAT(text, HasSubstr("[############............] step    50/100"));
  EXPECT_THAT(text, HasSubstr("[########################] step"));
  EXPECT_THAT(text, HasSubstr("\r\x1b[Ktrained steps 50 to 200"));
  std::istringstream bars(text);
  for (std::string bar; std::getline(bars, bar, '\r');) {
    EXPECT_LE(bar.substr(0, bar.find('\n')).size(), 103u) << bar;
  }
}

TEST_F(ConsoleTest, ALineComesWhereStepsAreLong) {
  Console& console = With({});
  proto::JobEvent starting;
  starting.mutable_state()->set_state(proto::JOB_STATE_STARTING);
  console.Show(starting);
  clock_.AdvanceMs(29'500);
  console.Tick();
  console.Tick();
  console.Show(Step(1, 3.0));
  clock_.AdvanceMs(28'000);
  console.Tick();
  clock_.AdvanceMs(2'000);
  console.Tick();
  const auto lines = Lines(talk_);
  ASSERT_THAT(lines, SizeIs(4));
  EXPECT_EQ(lines[1], "starting for 30s");
  EXPECT_THAT(lines[3],
              StartsWith("step     1/100 was 30s ago | loss 3.0000 | tok/s 12,345 | eta"));
}

// A terminal of so many columns, as a program sees it.
class Terminal {
 public:
  explicit Terminal(unsigned short columns) : master_(::posix_openpt(O_RDWR | O_NOCTTY)) {
    CHECK(master_ >= 0 && ::grantpt(master_) == 0 && ::unlockpt(master_) == 0);
    const winsize size{.ws_row = 24, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    const int fd = ::open(::ptsname(master_), O_RDWR | O_NOCTTY);
    CHECK(::ioctl(fd, TIOCSWINSZ, &size) == 0);
    file_ = ::fdopen(fd, "w");
  }
  ~Terminal() {
    std::fclose(file_);
    ::close(master_);
  }
  std::FILE* file() const { return file_; }
  std::string Shown() const {
    std::string text(4096, '\0');
    const ssize_t got = ::read(master_, text.data(), text.size());
    text.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return text;
  }

 private:
  const int master_;
  std::FILE* file_ = nullptr;
};

TEST_F(ConsoleTest, TheBarFitsAnyTerminalAndKeepsWhatPeopleLookFor) {
  for (const unsigned short columns : {40, 52, 60, 80, 100, 132, 250}) {
    const Terminal terminal(columns);
    Console console({.num_workers = 4, .steps = 100, .bar = true}, clock_, data_, terminal.file());
    console.Show(Step(50, 3.0));
    const std::string shown = terminal.Shown();
    ASSERT_THAT(shown, StartsWith("\r\x1b[K"));
    const std::string line = shown.substr(4);
    EXPECT_LT(line.size(), columns) << line;
    for (const char* word : {"loss 3.0000", "tok/s 12,345", "eta 25s"}) {
      EXPECT_THAT(line, HasSubstr(word)) << columns;
    }
    EXPECT_EQ(columns >= 60, line.find("step    50/100") != std::string::npos) << line;
    EXPECT_EQ(columns >= 80, line.find("lr 0.00e+00") != std::string::npos) << line;
  }
}

TEST_F(ConsoleTest, OnANarrowTerminalWhatIsThereIsWhole) {
  const std::vector<std::pair<unsigned short, std::string>> cases = {
      {14, "loss 3.0000"},
      {24, "loss 3.0000 | eta 25s"},
      {38, "loss 3.0000 | tok/s 12,345 | eta 25s"}};
  for (const auto& [columns, line] : cases) {
    const Terminal terminal(columns);
    Console console({.num_workers = 4, .steps = 100, .bar = true}, clock_, data_, terminal.file());
    console.Show(Step(50, 3.0));
    EXPECT_EQ(terminal.Shown(), "\r\x1b[K" + line) << columns;
  }
  const Terminal terminal(30);
  Console console({.steps = 100, .bar = true}, clock_, data_, terminal.file());
  console.Show(Step(7, 3.0, /*reference_run=*/true));
  std::string shown;
  while (shown.find("/100") == std::string::npos) shown += terminal.Shown();
  EXPECT_THAT(shown, EndsWith("\r\x1b[Kone worker: step     7/100"));
}

TEST_F(ConsoleTest, NothingIsSaidAfterTheEnd) {
  Console& console = With({});
  console.Show(Result(proto::JOB_STATE_FAILED));
  const size_t said = Lines(talk_).size();
  clock_.AdvanceMs(100'000);
  console.Tick();
  EXPECT_THAT(Lines(talk_), SizeIs(said));
}

TEST_F(ConsoleTest, TokensAreThisRuns) {
  Console& console = With({});
  for (const int64_t step : {151, 152}) {
    proto::JobEvent event = Step(step, 2.0);
    auto* metrics = event.mutable_rank()->mutable_message()->mutable_metrics();
    metrics->set_tokens(step * 2048);
    metrics->set_step_tokens(2048);
    console.Show(event);
  }
  console.Show(Result(proto::JOB_STATE_SUCCEEDED));
  EXPECT_THAT(Text(talk_), HasSubstr("trained steps 151 to 152"));
  EXPECT_THAT(Text(talk_), HasSubstr(", 4,096 tokens in "));
  EXPECT_THAT(Text(talk_), HasSubstr("(311,296 in all)"));
}

TEST_F(ConsoleTest, ASkippedStepHasNoLoss) {
  Console& console = With({.log_every = 1});
  proto::JobEvent skipped;
  skipped.mutable_rank()->mutable_message()->mutable_metrics()->set_step(1);
  console.Show(skipped);
  EXPECT_THAT(Text(talk_), StartsWith("step     1/100 | no loss | lr "));
  proto::JobEvent evaluated;
  evaluated.mutable_rank()->mutable_message()->mutable_eval()->set_step(1);
  console.Show(evaluated);
  EXPECT_THAT(Text(talk_), HasSubstr("step     1/100 | no val/loss\n"));
  console.Show(Step(2, 3.0));
  console.Show(Step(3, 2.0));
  skipped.mutable_rank()->mutable_message()->mutable_metrics()->set_step(4);
  console.Show(skipped);
  console.Show(Result(proto::JOB_STATE_SUCCEEDED));
  EXPECT_THAT(Text(talk_), HasSubstr("trained steps 1 to 4: loss 3.0000 -> 2.0000, "));
}

TEST_F(ConsoleTest, ARunOfSkippedStepsSaysSo) {
  Console& console = With({});
  proto::JobEvent skipped;
  skipped.mutable_rank()->mutable_message()->mutable_metrics()->set_step(1);
  console.Show(skipped);
  console.Show(Result(proto::JOB_STATE_SUCCEEDED));
  EXPECT_THAT(Text(talk_), HasSubstr("trained steps 1 to 1: no loss, 0 tokens in "));
}

TEST_F(ConsoleTest, StepsSeenBeforeAreNotToldAgain) {
  Console& console = With({.output = OutputFormat::kJsonl, .seen_through = 7});
  for (int64_t step = 1; step <= 9; ++step) console.Show(Step(step, 3.0));
  EXPECT_THAT(Lines(data_), SizeIs(2));
}

TEST_F(ConsoleTest, WhoFollowsSeesTheNextStepAtOnce) {
  Console& console = With({.seen_through = 11});
  for (int64_t step = 1; step <= 11; ++step) console.Show(Step(step, 3.0));
  EXPECT_EQ(Text(talk_), "");
  for (int64_t step = 12; step < 20; ++step) console.Show(Step(step, 3.0));
  EXPECT_THAT(Lines(talk_), SizeIs(1));
  EXPECT_THAT(Text(talk_), HasSubstr("step    12/100"));
}

TEST_F(ConsoleTest, StepsOfThePastTellTheirOwnTime) {
  Console& console = With({.seen_through = 40});
  for (int64_t step = 1; step <= 40; ++step) console.Show(Step(step, 3.0));  // all at once
  clock_.AdvanceMs(200);
  console.Show(Step(41, 3.0));
  for (int64_t step = 42; step <= 50; ++step) {
    clock_.AdvanceMs(1000);
    console.Show(Step(step, 3.0));
  }
  const auto lines = Lines(talk_);
  ASSERT_THAT(lines, SizeIs(2));
  EXPECT_THAT(lines[0], EndsWith("eta 30s"))
      << "59 steps like the one that was seen: half a second";
  EXPECT_THAT(lines[1], EndsWith("eta 50s")) << "as they came: one a second";
  console.Show(Result(proto::JOB_STATE_SUCCEEDED));
  EXPECT_THAT(Text(talk_), HasSubstr("trained steps 1 to 50: loss 3.0000 -> 3.0000"));
  EXPECT_THAT(Text(talk_), HasSubstr(" tokens in 30s")) << "41 x 0.5 s, then 9 x 1 s";
}

TEST_F(ConsoleTest, AnEndedJobsStepsTookWhatTheyTook) {
  Console& console = With({.seen_through = 100, .seen_state = proto::JOB_STATE_SUCCEEDED});
  proto::JobEvent starting;
  starting.mutable_state()->set_state(proto::JOB_STATE_STARTING);
  console.Show(starting);
  for (int64_t step = 1; step <= 100; ++step) console.Show(Step(step, 3.0));
  EXPECT_EQ(Text(talk_), "") << "nothing starts any more";
  console.Show(Result(proto::JOB_STATE_SUCCEEDED));
  EXPECT_THAT(Text(talk_), HasSubstr("trained steps 1 to 100"));
  EXPECT_THAT(Text(talk_), HasSubstr(" tokens in 50s"));
}

TEST_F(ConsoleTest, ATickerEndsWithItsConsole) {
  for (int i = 0; i < 3; ++i) Console console({.ticks = true}, clock_, data_, talk_);
  EXPECT_EQ(Text(talk_), "");
}

TEST_F(ConsoleTest, JsonlIsOneObjectAStepAndLastTheResult) {
  Console& console = With({.output = OutputFormat::kJsonl});
  console.Show(Step(1, 3.0));
  console.Show(Step(2, 0.1));
  console.Show(Step(1, 3.0, /*reference_run=*/true));
  console.Show(Result(proto::JOB_STATE_SUCCEEDED));
  const auto lines = Lines(data_);
  ASSERT_THAT(lines, SizeIs(3)) << "the reference run is talk";
  EXPECT_EQ(nlohmann::json::parse(lines[1])["loss"], 0.1);
  const auto result = nlohmann::json::parse(lines[2]);
  EXPECT_EQ(result["event"], "result");
  EXPECT_EQ(result["state"], "SUCCEEDED");
  EXPECT_EQ(result["run_dir"], "/runs/a");
}

TEST_F(ConsoleTest, JsonIsTheResultAlone) {
  Console& console = With({.output = OutputFormat::kJson});
  console.Show(Step(1, 3.0));
  console.Show(Result(proto::JOB_STATE_SUCCEEDED));
  EXPECT_EQ(nlohmann::json::parse(Text(data_))["state"], "SUCCEEDED");
}

TEST_F(ConsoleTest, TheEndSaysWhatWasTrainedAndMade) {
  Console& console = With({});
  console.Show(Step(1, 5.5));
  proto::JobEvent memory;
  auto* tag = memory.mutable_rank()->mutable_message()->mutable_memory()->add_tags();
  tag->set_tag("params");
  tag->set_peak_bytes(1 << 20);
  tag->set_predicted_bytes(1 << 20);
  console.Show(memory);
  proto::JobEvent finished;
  auto* sent =
      finished.mutable_rank()->mutable_message()->mutable_finished()->mutable_communication();
  sent->set_steps(2);
  auto* row = sent->add_rows();
  row->set_axis("dp");
  row->set_operation("all-reduce");
  row->set_predicted_bytes(96 << 10);
  row->set_measured_bytes(2 * (96 << 10));
  console.Show(finished);
  console.Show(Step(2, 2.25));
  proto::JobEvent result = Result(proto::JOB_STATE_SUCCEEDED);
  result.mutable_result()->set_parity("2 losses, 2 gradient norms and 9 parameters bit-equal");
  result.mutable_result()->set_run_directory(MadeRun({"loss.svg", "metrics.jsonl"}));
  console.Show(result);
  const std::string text = Text(talk_);
  EXPECT_THAT(text, HasSubstr("loss 5.5000 -> 2.2500"));
  EXPECT_THAT(text, HasSubstr("1.0/1.0 MiB"));
  EXPECT_THAT(text, HasSubstr("dp all-reduce"));
  EXPECT_THAT(text, HasSubstr("96.0/96.0 KiB"));
  EXPECT_LT(text.find("memory, measured"), text.find("communication, measured"));
  EXPECT_THAT(text, HasSubstr("parity with 1 worker: 2 losses, 2 gradient norms and 9 parameters"));
  EXPECT_THAT(text, HasSubstr("run directory: " + folder_.path() +
                              "\n"
                              "  pictures   loss.svg\n"
                              "  numbers    metrics.jsonl\n"))
      << "what is there, and nothing else";
  EXPECT_THAT(text, Not(HasSubstr("perfetto")));
}

TEST_F(ConsoleTest, TracesAreNamedWhereThereAreAny) {
  const std::string one = "trace/step-00000002.json";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {one, "  trace      " + one + " (open it in ui.perfetto.dev)\n"},
      {"trace/step-00000007.json", "  trace      trace/ (2 files: open one in ui.perfetto.dev)\n"}};
  for (const auto& [file, line] : cases) {
    proto::JobEvent result = Result(proto::JOB_STATE_SUCCEEDED);
    result.mutable_result()->set_run_directory(MadeRun({file}));
    Console& console = With({});
    console.Show(Step(1, 5.5));
    console.Show(result);
    EXPECT_THAT(Text(talk_), HasSubstr(line));
  }
}

TEST_F(ConsoleTest, ACancelledJobSaysHowToGoOn) {
  Console& console = With({.resume_command = "troupe run a.yaml --resume"});
  proto::JobEvent result = Result(proto::JOB_STATE_CANCELLED);
  result.mutable_result()->set_checkpoint("/runs/a/checkpoints/step-00000007");
  console.Show(result);
  EXPECT_THAT(Text(talk_), HasSubstr("cancelled; checkpoint /runs/a/checkpoints/step-00000007"));
  EXPECT_THAT(Text(talk_), HasSubstr("go on with: troupe run a.yaml --resume"));
}

TEST_F(ConsoleTest, TheLastLineAfterAnyEndButSuccessSaysHowToGoOn) {
  const std::string command = "troupe run a.yaml --resume";
  for (const auto state :
       {proto::JOB_STATE_FAILED, proto::JOB_STATE_CANCELLED, proto::JOB_STATE_PREEMPTED}) {
    Console& console = With({.resume_command = command});
    proto::JobEvent result = Result(state);
    console.Show(Step(9, 3.0));
    console.Show(result);
    EXPECT_EQ(Lines(talk_).back(), "no step is committed: there is nothing to go on from");
    result.mutable_result()->set_checkpoint("/runs/a/checkpoints/step-00000007");
    console.Show(result);
    EXPECT_EQ(Lines(talk_).back(), "step 7 is committed; go on with: " + command);
    result.mutable_result()->set_checkpoint_step(8);
    console.Show(result);
    EXPECT_EQ(Lines(talk_).back(), "step 8 is committed; go on with: " + command);
  }
}

TEST_F(ConsoleTest, DataThatCannotBeWrittenIsSaidOnceAndKept) {
  std::FILE* full = std::fopen("/dev/full", "w");
  Console console({.output = OutputFormat::kJsonl, .steps = 1000}, clock_, full, talk_);
  EXPECT_TRUE(console.printed().ok());
  for (int64_t step = 1; step <= 3; ++step) console.Show(Step(step, 3.0));
  EXPECT_FALSE(console.printed().ok());
  EXPECT_EQ(console.printed().error().code, ErrorCode::kOutOfSpace);
  const auto lines = Lines(talk_);
  EXPECT_EQ(std::ranges::count_if(lines,
                                  [](const std::string& line) {
                                    return line.starts_with(
                                        "stdout takes no more: No space left on device");
                                  }),
            1);
  std::fclose(full);
}

TEST_F(ConsoleTest, TalkThatCannotBeSaidIsCounted) {
  std::FILE* full = std::fopen("/dev/full", "w");
  Console console({.steps = 1000}, clock_, data_, full);
  const int64_t before = TalkLost();
  console.Show(Step(1, 3.0));
  EXPECT_EQ(TalkLost(), before + 1);
  std::fclose(full);
}

TEST_F(ConsoleTest, AFailedJobSaysWhyAndPromisesNoPictures) {
  Console& console = With({});
  proto::JobEvent result = Result(proto::JOB_STATE_FAILED);
  result.mutable_result()->set_reason("rank 2 was killed by signal 9 (SIGKILL)");
  console.Show(result);
  EXPECT_THAT(Text(talk_), HasSubstr("failed: rank 2 was killed"));
  EXPECT_THAT(Text(talk_), Not(HasSubstr("schedule.svg")));
}

TEST_F(ConsoleTest, TheSameWarningIsSaidOnceAndOtherRanksInformQuietly) {
  Console& console = With({});
  proto::JobEvent event;
  event.mutable_rank()->set_rank(3);
  auto* happening = event.mutable_rank()->mutable_message()->mutable_happening();
  happening->set_level("info");
  happening->set_text("hello");
  console.Show(event);
  happening->set_level("warning");
  happening->set_text("slow");
  for (int i = 0; i < 5; ++i) console.Show(event);
  EXPECT_EQ(Text(talk_), "[rank 3] slow\n");
}

TEST_F(ConsoleTest, SampledBytesAreReadable) {
  Console& console = With({});
  proto::JobEvent event;
  event.mutable_rank()->mutable_message()->mutable_sampled()->set_prompt("The ");
  event.mutable_rank()->mutable_message()->mutable_sampled()->set_continuation("end\x1b[31m\n");
  console.Show(event);
  EXPECT_THAT(Text(talk_), HasSubstr("The end\\x1b[31m\n")) << "no escape reaches the terminal";
}

}  // namespace
}  // namespace troupe
