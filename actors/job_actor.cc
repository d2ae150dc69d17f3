#include "actors/job_actor.h"

#include <fmt/format.h>

#include <utility>

namespace troupe {
namespace {

template <typename Work>
Task<Status> RunOnce(Work work) {
  work();
  co_return Status{};
}

}  // namespace

JobActor::JobActor(JobOptions options, std::optional<JobCheckpoints> checkpoints,
                   std::optional<Replanner> replanner, Stream& stream)
    : options_(std::move(options)),
      checkpoints_(checkpoints ? std::make_shared<JobCheckpoints>(*std::move(checkpoints))
                               : nullptr),
      replanner_(std::move(replanner)),
      stream_(stream) {}

void JobActor::Happened(std::string_view level, const std::string& text) const {
  proto::FromRank news;
  news.mutable_happening()->set_level(std::string(level));
  news.mutable_happening()->set_text(text);
  options_.say(news);
}

void JobActor::NothingCounted(const std::string& what, std::string_view so) const {
  Happened("warning", fmt::format("{} has no label that counts (data.ignore_label = {}): {}", what,
                                  options_.ignore_label.value_or(-1), so));
}

template <typename Work, typename Done>
void JobActor::OnDisk(std::string_view activity, std::string_view owed, Work work, Done done) {
  auto wait =
      std::make_shared<WaitHandle>(context().BeginWait({.waiter = "job (rank 0)",
                                                        .activity = activity,
                                                        .owed = owed,
                                                        .from = "files",
                                                        .deadline_ms = options_.disk_deadline_ms}));
  stream_.LaunchTask(scope_, RunOnce(std::move(work)),
                     [wait, done = std::move(done)](const WorkTime&, const Status&) mutable {
                       wait->Reset();
                       done();
                     });
}

Status JobActor::On(BeginJob begin) {
  schedule_ = begin.schedule;
  resumed_from_ = begin.progress;
  if (!checkpoints_) return schedule_.Send(BeginTraining{resumed_from_});
  auto moved = std::make_shared<Result<std::string>>(std::string());
  OnDisk(
      "start", "earlier checkpoints to be set aside",
      [checkpoints = checkpoints_, moved, step = resumed_from_.step] {
        *moved = checkpoints->StartFrom(step);
      },
      [this, moved] {
        if (!moved->ok()) {
          return TellEnd({.end = std::move(*moved).error(), .last_step = resumed_from_.step});
        }
        if (!(*moved)->empty()) Happened("info", **moved);
        (void)schedule_.Send(BeginTraining{resumed_from_});
      });
  return {};
}

Status JobActor::On(StepCommitted step) {
  proto::FromRank news;
  *news.mutable_metrics() = std::move(step.metrics);
  options_.say(news);
  if (!news.metrics().has_loss()) {
    NothingCounted(fmt::format("step {}", news.metrics().step()), "skipped, no update");
  }
  if (!replanner_) return {};
  replanner_->AddStep(step.votes);
  const auto changed = replanner_->ReconsiderOrder();
  if (!changed) return {};
  Happened("info", changed->reason);
  return schedule_.Send(OrderChosen{changed->order});
}

Status JobActor::On(proto::EvalMetrics metrics) {
  proto::FromRank news;
  *news.mutable_eval() = std::move(metrics);
  options_.say(news);
  if (!news.eval().has_val_loss()) {
    const int64_t step = news.eval().step();
    NothingCounted(step > 0 ? fmt::format("the evaluation after step {}", step) : "the evaluation",
                   "no validation loss");
  }
  return {};
}

Status JobActor::On(TokensSampled sampled) {
  proto::FromRank news;
  news.mutable_sampled()->set_prompt(options_.prompt);
  std::string bytes;
  for (const int32_t token : sampled.continuation) bytes.push_back(static_cast<char>(token));
  news.mutable_sampled()->set_continuation(bytes);
  options_.say(news);
  return {};
}

Status JobActor::On(OpenFolders open) {
  if (!checkpoints_) return schedule_.Send(FoldersOpened{CheckpointFolders{}});
  auto opened = std::make_shared<FoldersOpened>(FoldersOpened{CheckpointFolders{}});
  OnDisk(
      "checkpoint", "folders",
      [checkpoints = checkpoints_, opened, step = open.step] {
        opened->folders = checkpoints->Open(step);
      },
      [this, opened] { (void)schedule_.Send(std::move(*opened)); });
  return {};
}

Status JobActor::On(CommitShards commit) {
  auto committed =
      std::make_shared<Result<proto::CheckpointCommitted>>(proto::CheckpointCommitted{});
  const int64_t steps_left = commit.steps_left;
  OnDisk(
      "checkpoint", "commit",
      [checkpoints = checkpoints_, committed, commit = std::move(commit)] {
        *committed = checkpoints->Commit(commit.progress, commit.shards);
      },
      [this, committed, steps_left] {
        (void)schedule_.Send(committed->ok()
                                 ? Committed(**std::move(committed), steps_left)
                                 : ShardsCommitted{.status = std::move(*committed).error()});
      });
  return {};
}

ShardsCommitted JobActor::Committed(proto::CheckpointCommitted committed, int64_t steps_left) {
  newest_ = committed.directory();
  proto::FromRank news;
  *news.mutable_checkpoint() = std::move(committed);
  options_.say(news);
  if (!replanner_ || !options_.rebalance || steps_left <= 0) return {};
  auto moved = replanner_->ReconsiderLayers(steps_left);
  if (!moved) return {};
  Happened("warning", moved->reason);
  moved_layers_ = std::move(moved->stage_layers);
  return {.moves = true};
}

Status JobActor::On(TrainingEnded ended) {
  if (ended.end.ok() || !checkpoints_) {
    TellEnd(ended);
    return {};
  }
  OnDisk(
      "end", "removal of the open checkpoint",
      [checkpoints = checkpoints_] { checkpoints->Abandon(); },
      [this, ended = std::move(ended)] { TellEnd(ended); });
  return {};
}

void JobActor::TellEnd(const TrainingEnded& ended) const {
  JobEnd end{.end = ended.end,
             .last_step = ended.last_step,
             .cancelled = ended.cancelled,
             .checkpoint = newest_};
  if (!ended.cancelled) end.stage_layers = moved_layers_;
  options_.on_end(std::move(end));
}

}  // namespace troupe
