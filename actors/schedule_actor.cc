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

void ScheduleActor::AwaitRanks(std::string_view activity, std::string_view owed, int64_t step) {
  answered_.assign(ranks_.size(), false);
  wait_ = context().BeginWait(
      {.waiter = "schedule",
       .activity = activity,
       .owed = owed,
       .from = "ranks",
       .step = step,
       .deadline_ms = options_.wait_deadline_ms,
       .detail =
           [](const void* self) { return static_cast<const ScheduleActor*>(self)->Missing(); },
       .owing = [](const void* self) { return static_cast<const ScheduleActor*>(self)->Owing(); },
       .about = this});
}

void ScheduleActor::AwaitDisk(std::string_view owed) {
  wait_ = context().BeginWait({.waiter = "schedule",
                               .activity = "checkpoint",
                               .owed = owed,
                               .from = "the disk",
                               .step = save_.progress.step,
                               .deadline_ms = options_.wait_deadline_ms});
}

std::vector<int> ScheduleActor::Owing() const {
  std::vector<int> owing;
  for (size_t rank = 0; rank < answered_.size(); ++rank) {
    if (!answered_[rank]) owing.push_back(static_cast<int>(rank));
  }
  return owing;
}

std::string ScheduleActor::Missing() const {
  return fmt::format("missing: {} of {}", fmt::join(Owing(), ", "), answered_.size());
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
  auto deed = program_->Next(context().clock().NowNs());
  if (!deed) return End({});
  return std::visit([this](auto& next) { return Start(std::move(next)); }, *deed);
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
  return job_.Send(TrainingEnded{
      .end = std::move(status), .last_step = program_->last_step(), .cancelled = cancelled_});
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
  if (!verdict.ok()) return End(std::move(verdict).error());
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

Status ScheduleActor::Start(const Save& save) {
  save_ = save;
  state_ = State::kOpening;
  AwaitDisk("folders");
  return job_.Send(OpenFolders{save_.progress.step});
}

Status ScheduleActor::On(FoldersOpened opened) {
  CHECK(state_ == State::kOpening, "folders come when they are asked for");
  wait_.Reset();
  if (!opened.folders.ok()) return End(std::move(opened.folders).error());
  if (opened.folders->checkpoint.empty() && opened.folders->exported.empty()) return Next();
  state_ = State::kSaving;
  shards_.clear();
  proto::CheckpointStart start;
  start.set_step(save_.progress.step);
  start.set_directory(opened.folders->checkpoint);
  start.set_hf_directory(opened.folders->exported);
  AwaitRanks("checkpoint", "shards", save_.progress.step);
  return Broadcast(start);
}

Status ScheduleActor::On(proto::CheckpointDone done) {
  if (state_ != State::kSaving || done.step() != save_.progress.step) return {};
  ASSIGN_OR_RETURN(const bool all, Answered(done.rank()));
  shards_.push_back(std::move(done));
  if (!all) return {};
  std::ranges::sort(shards_, {}, &proto::CheckpointDone::rank);
  for (const auto& shard : shards_) {
    if (shard.error().empty()) continue;
    return End(Error{static_cast<ErrorCode>(shard.error_code()),
                     fmt::format("rank {}: checkpoint of step {}: {}", shard.rank(),
                                 save_.progress.step, shard.error())});
  }
  state_ = State::kCommitting;
  AwaitDisk("commit");
  return job_.Send(CommitShards{
      .progress = save_.progress, .steps_left = save_.steps_left, .shards = std::move(shards_)});
}

Status ScheduleActor::On(ShardsCommitted committed) {
  CHECK(state_ == State::kCommitting, "a commit ends when one was asked for");
  wait_.Reset();
  if (!committed.status.ok()) return End(std::move(committed.status));
  program_->Saved(context().clock().NowNs());
  return committed.moves ? End({}) : Next();
}

}  // namespace troupe
