#include "coordinator/report/background_recorder.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <string>
#include <vector>

namespace troupe {
namespace {

using ::testing::ElementsAre;

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
            *stream_, std::make_unique<SlowRecorder>(told_, gate_.get_future().share()))) {}
  void Say(bool step) {
    proto::FromRank message;
    if (step) {
      message.mutable_metrics();
    } else {
      message.mutable_spans();
    }
    recorder_->RankSaid(1, /*reference_run=*/false, message);
  }

  Scheduler scheduler_;
  std::promise<void> gate_;
  std::vector<std::string> told_;
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
  for (int i = 0; i < BackgroundRecorder::kTelemetryMax + 10; ++i) Say(/*step=*/false);
  Say(/*step=*/true);
  proto::FromRank progress;
  progress.mutable_progress();
  recorder_->RankSaid(0, false, progress);
  gate_.set_value();
  recorder_.reset();
  stream_.reset();
  EXPECT_EQ(told_.size(), static_cast<size_t>(BackgroundRecorder::kTelemetryMax) + 1)
      << "the one that stood still, the spans that had room, the step";
  EXPECT_EQ(told_.back(), "rank 1 step") << "though the recorder has ended meanwhile";
}

TEST_F(BackgroundRecorderTest, TellsWhatADiskThatStandsStillForLongHasCost) {
  recorder_->Begin({}, [](const Status&) {});
  for (int i = 0; i < BackgroundRecorder::kWaitingMax + 10; ++i) Say(/*step=*/true);
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

}  // namespace
}  // namespace troupe
