// What a job makes of ranks that are silent, lost or not to be killed: the part of JobLife that
// waits for a cause before it names one.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "coordinator/job_life.h"

namespace troupe {
namespace {

constexpr int kPeerSilenceSeconds = 30;  // of a spec without the key
constexpr int64_t kMsPerSecond = 1000;

}  // namespace

int64_t JobLife::PeerSilenceMs() const {
  const proto::Resources& resources = request_.spec().resources();
  const int seconds =
      resources.has_peer_silence_seconds() ? resources.peer_silence_seconds() : kPeerSilenceSeconds;
  return seconds * kMsPerSecond;
}

void JobLife::Happened(int32_t rank, const std::string& text) {
  proto::JobEvent event;
  event.mutable_rank()->set_rank(rank);
  event.mutable_rank()->set_reference_run(reference_run_);
  auto* happening = event.mutable_rank()->mutable_message()->mutable_happening();
  happening->set_level("warning");
  happening->set_text(text);
  if (recorder_) recorder_->RankSaid(rank, reference_run_, event.rank().message());
  Emit(std::move(event));
}

std::string JobLife::WhatItDid(int32_t rank) const {
  const RankState& state = ranks_[static_cast<size_t>(rank)];
  if (!state.progress.action().empty()) {
    return fmt::format("at step {} during {}", state.progress.step(), state.progress.action());
  }
  return state.ready ? "before the first step" : "while starting";
}

std::string JobLife::SilenceInWords(int32_t rank, int64_t silent_ms) const {
  const RankState& state = ranks_[static_cast<size_t>(rank)];
  return fmt::format("{} has said nothing for {} s {}: {}", RankInWords(rank),
                     silent_ms / kMsPerSecond, WhatItDid(rank),
                     state.stopped ? "it is stopped (SIGSTOP)"
                                   : "its process is there, its thread does not get on");
}

void JobLife::RankSilent(const proto::RankSilent& news) {
  if (!Heeds(news.epoch(), news.rank()) || killing_) return;
  RankState& rank = ranks_[static_cast<size_t>(news.rank())];
  seams_.scheduler.Cancel(rank.silence_timer);
  const int64_t limit_ms = PeerSilenceMs();
  const int64_t silent_ms = std::clamp<int64_t>(news.silent_ms(), 0, limit_ms);
  const int64_t before_ms = std::exchange(rank.silent_ms, silent_ms);
  if (silent_ms == 0) {
    if (before_ms > 0) {
      Happened(news.rank(),
               fmt::format("{} speaks again: the job goes on", RankInWords(news.rank())));
    }
    return;
  }
  rank.stopped = news.stopped();
  if (before_ms == 0) {
    Happened(news.rank(),
             fmt::format("{}; the job waits up to {} s for it "
                         "(resources.peer_silence_seconds)",
                         SilenceInWords(news.rank(), silent_ms), limit_ms / kMsPerSecond));
  }
  rank.silence_timer =
      seams_.scheduler.After(limit_ms - silent_ms, [this, limit_ms, rank = news.rank()] {
        Fail(ErrorCode::kDeadlineExceeded, SilenceInWords(rank, limit_ms));
      });
}

void JobLife::ForgetSilence() {
  for (RankState& rank : ranks_) seams_.scheduler.Cancel(rank.silence_timer);
}

// J1. What a rank says of another is a consequence: the other's own end, or silence, is the cause.
void JobLife::SuspectPeer(int32_t rank, const proto::Finished& finished) {
  if (failure_ || suspicion_) return;
  const int32_t lost = finished.has_lost_peer() ? finished.lost_peer() : rank;
  const bool named = lost != rank && lost >= 0 && lost < static_cast<int32_t>(ranks_.size());
  std::string sentence = fmt::format("{}: {}", RankInWords(rank), finished.error());
  if (named) {
    sentence = fmt::format("{} was lost {}, says {}", RankInWords(lost), WhatItDid(lost), sentence);
  }
  const auto code = static_cast<ErrorCode>(finished.error_code() - 1);
  suspicion_ =
      Error{code == ErrorCode::kUnavailable ? ErrorCode::kPeerDown : code, std::move(sentence)};
  suspicion_timer_ = seams_.scheduler.After(kCauseWaitMs, [this, lost, named] {
    if (!suspicion_ || failure_) return;
    const int64_t silent_ms = named ? ranks_[static_cast<size_t>(lost)].silent_ms : 0;
    if (silent_ms > 0) suspicion_->message = SilenceInWords(lost, silent_ms);
    Fail(suspicion_->code, suspicion_->message);
  });
}

// A process in an uninterruptible wait (a dead file server, a driver) outlives SIGKILL. Its client
// is told and its slot stays taken until it has gone.
void JobLife::GiveUpKilling() {
  if (ended()) return;
  std::vector<std::string> there;
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    if (!ranks_[rank].exited) there.push_back(RankInWords(static_cast<int32_t>(rank)));
  }
  const std::string why = failure_ ? failure_->message + "; and " : "";
  const ErrorCode code = failure_ ? failure_->code : ErrorCode::kDeadlineExceeded;
  CancelTimers();
  End(proto::JOB_STATE_FAILED, ExitCode(code),
      fmt::format("{}{} s after it was killed there is still {}: its slot stays taken", why,
                  kKillMs / kMsPerSecond, fmt::join(there, ", ")));
}

}  // namespace troupe
