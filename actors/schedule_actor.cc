#include "actors/schedule_actor.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

namespace troupe {

ScheduleActor::ScheduleActor(ScheduleOptions options, std::unique_ptr<Program> program,
                             std::vector<RankRef> ranks, JobRef job)
    : options_(options), program_(std::move(program)), ranks_(std::move(ranks)), job_(job) {
  CHECK(!ranks_.empty() && program_ != nullptr);
}

template <typename M>
Status ScheduleActor::Broadcast(const M& message) {
  for (const RankRef& rank : ranks_) RETURN_IF_ERROR(rank.Send(message));
  return {};
}

namespace {

// Who has not answered, of a wait for all ranks.
std::vector<int> Owing(const void* answered) {
  const auto& all = *static_cast<const std::vector<bool>*>(answered);
  std::vector<int> owing;
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (!all[rank]) owing.push_back(static_cast<int>(rank));
  }
  return owing;
}

// "missing: 1, 3 of 4"
std::string Missing(const void* answered) {
  return fmt::format("missing: {} of {}", fmt::join(Owing(answered), ", "),
                     static_cast<const std::vector<bool>*>(answered)->size());
}

// `answered` outlives the wait.
WaitSubject ForRanks(std::string_view activity, std::string_view owed, int64_t step,
                     int64_t deadline_ms, const std::vector<bool>& answered) {
  return {.waiter = "schedule",
          .activity = activity,
          .owed = owed,
          .from = "ranks",
          .step = step,
          .deadline_ms = deadline_ms,
          .detail = Missing,
          .owing = Owing,
          .about = &answered};
}

}  // namespace

void ScheduleActor::AwaitRanks(std::string_view activity, std::string_view owed, int64_t step) {
  answered_.assign(ranks_.size(), false);
  wait_ = context().BeginWait(ForRanks(activity, owed, step, options_.wait_deadline_ms, answered_));
}

void ScheduleActor::AwaitShards() {
  Checkpoint& open = *checkpoint_;
  open.answered.assign(ranks_.size(), false);
  open.wait = context().BeginWait(ForRanks("checkpoint", "shards", open.save.progress.step,
                                           options_.wait_deadline_ms, open.answered));
}

WaitHandle ScheduleActor::AwaitDisk(std::string_view owed, int64_t step) {
  return context().BeginWait({.waiter = "schedule",
                              .activity = "checkpoint",
                              .owed = owed,
                              .from = "the disk",
                              .step = step,
                              .deadline_ms = options_.wait_deadline_ms});
}

Result<bool> ScheduleActor::Answered(int32_t rank) {
  const auto index = static_cast<size_t>(rank);
  if (rank < 0 || index >= answered_.size() || answered_[index]) {
    return MakeError(ErrorCode::kFailed, "rank {} answered where no answer of it was due", rank);
  }
  answered_[index] = true;
  if (!std::ranges::all_of(answered_, std::identity{})) return false;
  wait_.Reset();
  return true;
}

// ---- what comes next ---------------------------------------------------------------------------

Status ScheduleActor::On(BeginTraining begin) {
  if (state_ == State::kEnded) return {};  // cancelled before
  CHECK(state_ == State::kIdle, "training begins once");
  program_->Begin(begin.progress, context().clock().NowNs());
  return Next();
}

Status ScheduleActor::Next() {
  auto deed = over_ ? std::nullopt : program_->Next(context().clock().NowNs());
  if (deed) return std::visit([this](auto& next) { return Start(std::move(next)); }, *deed);
  over_ = true;
  if (!checkpoint_) return End(std::exchange(end_, {}));
  state_ = State::kSaving;
  return {};
}

Status ScheduleActor::Tell(ProgramNews news) {
  return std::visit([this](auto& message) { return job_.Send(std::move(message)); }, news);
}

// The open deed ends first: a cancelled job is one that stopped between two steps.
Status ScheduleActor::On(CancelTraining cancel) {
  cancelled_ = true;
  program_->Cancel(cancel.checkpoint);
  return state_ == State::kIdle ? End({}) : Status{};
}

Status ScheduleActor::On(OrderChosen chosen) {
  program_->Choose(chosen.order);
  return {};
}

Status ScheduleActor::End(Status status) {
  if (state_ == State::kEnded) return {};
  state_ = State::kEnded;
  wait_.Reset();
  checkpoint_.reset();
  return job_.Send(TrainingEnded{.end = end_.ok() ? std::move(status) : std::move(end_),
                                 .last_step = program_->last_step(),
                                 .cancelled = cancelled_});
}

// ---- a round -----------------------------------------------------------------------------------

Status ScheduleActor::Start(Round round) {
  state_ = State::kVoting;
  votes_.clear();
  round_start_ns_ = context().clock().NowNs();
  round.start.set_round(++round_);
  AwaitRanks("step", "votes", round.start.step());
  return Broadcast(round.start);
}

Status ScheduleActor::On(proto::Vote vote) {
  if (state_ == State::kEnded) return {};
  if (vote.round() != round_) {  // I1
    return MakeError(ErrorCode::kFailed, "rank {} votes in round {}, round {} is open", vote.rank(),
                     vote.round(), round_);
  }
  if (state_ != State::kVoting) {
    return MakeError(ErrorCode::kFailed, "a vote of rank {} came while none was asked for",
                     vote.rank());
  }
  ASSIGN_OR_RETURN(const bool all, Answered(vote.rank()));
  votes_.push_back(std::move(vote));
  return all ? Decide() : Status{};
}

Status ScheduleActor::Decide() {
  std::ranges::sort(votes_, {}, &proto::Vote::rank);
  Result<Verdict> verdict = program_->Decide(std::exchange(votes_, {}));
  if (!verdict.ok()) {  // an open checkpoint, of a step that was sound, is brought to its end
    end_ = std::move(verdict).error();
    over_ = true;
    return Next();
  }
  if (verdict->news) RETURN_IF_ERROR(Tell(*std::move(verdict->news)));
  if (!verdict->commit) return Next();
  state_ = State::kUpdating;
  AwaitRanks("optimizer", "words that it is done", verdict->commit->step());
  return Broadcast(*verdict->commit);  // I2
}

Status ScheduleActor::On(proto::StepDone done) {
  if (state_ != State::kUpdating) return {};
  ASSIGN_OR_RETURN(const bool all, Answered(done.rank()));
  if (!all) return {};
  RETURN_IF_ERROR(Tell(program_->Committed(context().clock().NowNs() - round_start_ns_)));
  return Next();
}

// ---- a checkpoint ------------------------------------------------------------------------------

Status ScheduleActor::Start(Save save) {
  opening_ = std::move(save);
  state_ = checkpoint_ ? State::kSaving : State::kOpening;
  if (checkpoint_) return {};  // I3
  wait_ = AwaitDisk("folders", opening_->progress.step);
  return job_.Send(OpenFolders{opening_->progress.step});
}

Status ScheduleActor::On(FoldersOpened opened) {
  if (state_ == State::kEnded) return {};
  CHECK(state_ == State::kOpening, "folders come when they are asked for");
  wait_.Reset();
  Save save = *std::exchange(opening_, std::nullopt);
  if (!opened.folders.ok()) return End(std::move(opened.folders).error());
  if (opened.folders->checkpoint.empty() && opened.folders->exported.empty()) return Next();
  const bool alone =
      options_.saves_alone || save.steps_left == 0 || !opened.folders->exported.empty();
  proto::CheckpointStart start;
  start.set_step(save.progress.step);
  start.set_directory(opened.folders->checkpoint);
  start.set_hf_directory(opened.folders->exported);
  checkpoint_.emplace(Checkpoint{.save = std::move(save)});
  AwaitShards();
  RETURN_IF_ERROR(Broadcast(start));
  if (!alone) return Next();
  state_ = State::kSaving;
  return {};
}

Status ScheduleActor::On(proto::CheckpointDone done) {
  if (!checkpoint_ || checkpoint_->committing) return {};
  Checkpoint& open = *checkpoint_;
  const auto rank = static_cast<size_t>(done.rank());
  if (done.step() != open.save.progress.step) return {};
  if (done.rank() < 0 || rank >= open.answered.size() || open.answered[rank]) {
    return MakeError(ErrorCode::kFailed, "rank {} has written a shard where none was due",
                     done.rank());
  }
  open.answered[rank] = true;
  open.shards.push_back(std::move(done));
  if (open.shards.size() < ranks_.size()) return {};
  std::ranges::sort(open.shards, {}, &proto::CheckpointDone::rank);
  for (const auto& shard : open.shards) {
    if (shard.error().empty()) continue;
    return End(Error{static_cast<ErrorCode>(shard.error_code()),
                     fmt::format("rank {}: checkpoint of step {}: {}", shard.rank(), shard.step(),
                                 shard.error())});
  }
  open.committing = true;
  open.wait = AwaitDisk("commit", open.save.progress.step);
  return job_.Send(CommitShards{.progress = open.save.progress,
                                .steps_left = open.save.steps_left,
                                .shards = std::move(open.shards)});
}

Status ScheduleActor::On(ShardsCommitted committed) {
  if (state_ == State::kEnded) return {};
  CHECK(checkpoint_ && checkpoint_->committing, "a commit ends when one was asked for");
  checkpoint_.reset();
  if (!committed.status.ok()) return End(std::move(committed.status));
  program_->Saved(context().clock().NowNs());
  if (committed.moves) return End({});
  if (state_ != State::kSaving) return {};  // a round goes on beside it
  return opening_ ? Start(*std::exchange(opening_, std::nullopt)) : Next();
}

}  // namespace troupe
