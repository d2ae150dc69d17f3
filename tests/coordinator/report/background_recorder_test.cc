#include "coordinator/report/background_recorder.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <string>
#include <vector>

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kMebibyte = int64_t{1} << 20;

// Notes what it is told; Placed stands still until the gate opens, as a disk may.
class SlowRecorder : public JobRecorder {
 public:
  SlowRecorder(std::vector<std::string>& told, std::shared_future<void> gate)
      : told_(told), gate_(std::move(gate)) {}
  Status Open(const proto::SubmitRequest&) override {
    told_.push_back("open");
    return {};
  }
  void Begin(const std::vector<std::string>&, std::function<void(Status)> done) override {
    gate_.wait();
    told_.push_back("begin");
    done({});
  }
  void Planned(const std::vector<proto::Parallelism>&) override { told_.push_back("planned"); }
  void RankSaid(int32_t rank, bool, const proto::FromRank& message) override {
    told_.push_back(fmt::format("rank {} {}", rank, message.has_metrics() ? "step" : "spans"));
  }
  void RankLogged(int32_t, bool, const std::string& lines) override { told_.push_back(lines); }
  void StateChanged(const proto::JobSummary&) override { told_.push_back("state"); }
  void Ended(const proto::JobResult& result,
             std::function<void(const proto::JobResult&)> done) override {
    told_.push_back("ended");
    done(result);
  }

 private:
  std::vector<std::string>& told_;
  std::shared_future<void> gate_;
};

class BackgroundRecorderTest : public ::testing::Test {
 protected:
  BackgroundRecorderTest()
      : recorder_(std::make_unique<BackgroundRecorder>(
            *stream_, std::make_unique<SlowRecorder>(told_, gate_.get_future().share()),
            [this](const std::string& trouble) { troubles_.push_back(trouble); })) {}
  // Until everything so far is recorded.
  void CatchUp() {
    stream_->Launch([] {}, [this](const WorkTime&) { scheduler_.Stop(); });
    scheduler_.Run();
  }
  void Say(bool step, size_t num_bytes = 0) {
    proto::FromRank message;
    if (step) {
      message.mutable_metrics();
    } else {
      message.mutable_spans()->add_spans()->set_name(std::string(num_bytes, 's'));
    }
    recorder_->RankSaid(1, /*reference_run=*/false, message);
  }

  Scheduler scheduler_;
  std::promise<void> gate_;
  std::vector<std::string> told_;
  std::vector<std::string> troubles_;
  std::unique_ptr<ThreadStream> stream_ =
      std::make_unique<ThreadStream>(scheduler_, "disk", /*spin_us=*/0);
  std::unique_ptr<BackgroundRecorder> recorder_;
};

TEST_F(BackgroundRecorderTest, RecordsInOrderWhileTheLoopGoesOn) {
  ASSERT_TRUE(recorder_->Open({}).ok());
  EXPECT_THAT(told_, ElementsAre("open")) << "a job that cannot be recorded is refused at once";
  bool done = false;
  bool begun = false;
  recorder_->Begin({}, [&](const Status&) { begun = true; });
  recorder_->Planned({});
  Say(/*step=*/true);
  recorder_->RankLogged(0, false, "line");
  recorder_->StateChanged({});
  recorder_->Ended({}, [&](const proto::JobResult&) {
    done = true;
    scheduler_.Stop();
  });
  scheduler_.RunUntilIdle();
  EXPECT_FALSE(begun || done) << "the disk stands still, the loop does not";
  gate_.set_value();
  scheduler_.Run();
  EXPECT_TRUE(begun && done);
  EXPECT_THAT(told_,
              ElementsAre("open", "begin", "planned", "rank 1 step", "line", "state", "ended"));
}

TEST_F(BackgroundRecorderTest, LeavesOutSpansBeforeStepsWhenTheDiskFallsBehind) {
  recorder_->Begin({}, [](const Status&) {});
  constexpr int kMebibytes = 20;
  for (int i = 0; i < kMebibytes; ++i) Say(/*step=*/false, kMebibyte);
  Say(/*step=*/true);
  proto::FromRank progress;
  progress.mutable_progress();
  recorder_->RankSaid(0, false, progress);
  gate_.set_value();
  recorder_.reset();
  stream_.reset();
  EXPECT_LE(told_.size(), size_t{BackgroundRecorder::kTelemetryBytesMax / kMebibyte} + 2)
      << "the one that stood still, the spans that had room, the step";
  EXPECT_GT(told_.size(), size_t{4});
  EXPECT_EQ(told_.back(), "rank 1 step") << "though the recorder has ended meanwhile";
  EXPECT_THAT(troubles_, IsEmpty()) << "spans are not missed";
}

TEST_F(BackgroundRecorderTest, TellsAtOnceAndAtTheEndWhatADiskThatStandsStillHasCost) {
  recorder_->Begin({}, [](const Status&) {});
  const std::string piece(kMebibyte, 'x');
  const int fit = static_cast<int>(BackgroundRecorder::kWaitingBytesMax / kMebibyte);
  for (int i = 0; i < fit; ++i) recorder_->RankLogged(0, false, piece);
  EXPECT_THAT(troubles_, IsEmpty());
  for (int i = 0; i < 11; ++i) recorder_->RankLogged(0, false, piece);
  EXPECT_THAT(troubles_, ElementsAre(HasSubstr("the disk is behind by 64.0 MiB")));
  proto::JobResult result;
  recorder_->Ended({}, [&](const proto::JobResult& recorded) {
    result = recorded;
    scheduler_.Stop();
  });
  gate_.set_value();
  scheduler_.Run();
  ASSERT_EQ(result.missing_records_size(), 1);
  EXPECT_EQ(result.missing_records(0), "11 messages of ranks came while the disk stood still");
}

TEST_F(BackgroundRecorderTest, ALogEndsWithALineThatSaysSo) {
  gate_.set_value();
  const auto rest = static_cast<size_t>(BackgroundRecorder::kLogBytesMax % kMebibyte);
  ASSERT_EQ(rest, 0u);
  const std::string piece(kMebibyte, 'x');
  const int fit = static_cast<int>(BackgroundRecorder::kLogBytesMax / kMebibyte);
  for (int i = 0; i < fit + 3; ++i) {
    recorder_->RankLogged(4, false, piece);
    if (i % 32 == 0) CatchUp();
  }
  recorder_->RankLogged(5, false, "another's");
  recorder_->RankLogged(4, true, "the reference run's");
  CatchUp();
  int64_t logged = 0;
  for (const std::string& text : told_) logged += std::ranges::count(text, 'x');
  EXPECT_EQ(logged, BackgroundRecorder::kLogBytesMax);
  const auto end = told_.end();
  EXPECT_THAT(*(end - 3), EndsWith("\n[rank 4 has printed 256 MiB: what follows is left out]\n"));
  EXPECT_EQ(*(end - 2), "another's");
  EXPECT_EQ(*(end - 1), "the reference run's");
}

}  // namespace
}  // namespace troupe
