// JobLife: one job from submission to result. Sees what its ranks say and what becomes of them;
// commands agents; tells followers.
// Thread: the coordinator's event loop.
//
//   queued --slots--> starting --every rank ready--> running --rank 0 finished--> draining --all
//   exited--> [checking: the single worker runs the same job] --> succeeded | failed | cancelled |
//     preempted
//   draining --rank 0 finished with other stage_layers--> starting again, from its checkpoint
//   starting, running, draining --a rank lost, a rank failed--> draining (killing) --> failed
//
//   J1. The first cause is the headline: what fails because of it is only logged. A rank that says
//       its peer is gone waits kCauseWaitMs for the peer's own end to be known. A silent rank is
//       told at once and lost after resources.peer_silence_seconds.
//   J2. A job ends once; its slots are free when its last rank has exited or its host is gone. A
//       rank that stays kKillMs after its kill ends the job and keeps its slot. Its
//       result is told when everything is recorded, or when that takes longer than kRecordMs.
//   J3. Messages of another epoch, of a rank that has exited and of a job that has ended change
//       nothing; what a rank says once (Hello, Finished) counts once. Hosts may be gone at any
//       time.
//   J4. Where no rank has got on for resources.hang_seconds, the ranks are asked for their waits,
//   and
//       the job fails with the root of the stall, once that has waited as long.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/decided_orders.h"
#include "coordinator/job_history.h"
#include "coordinator/job_recorder.h"
#include "coordinator/parity.h"
#include "coordinator/rank_agreement.h"
#include "coordinator/state.h"
#include "coordinator/wait_root.h"

namespace troupe {

// Why and how a job is to stop before its end.
struct StopOrder {
  bool checkpoint = true;
  bool kill = false;       // at once
  bool preempted = false;  // for its machine's sake: PREEMPTED, not CANCELLED
  std::string cause{};     // "SIGTERM at host agent alpha"; empty: a person's wish
};

class JobLife {
 public:
  static constexpr int kPreemptedExitCode = 143;  // what a shell calls the end by SIGTERM
  static constexpr int kCauseWaitMs = 4000;       // a host's silence is known by then too
  static constexpr int kDrainMs = 10'000;
  static constexpr int kHelloMs = 60'000;           // from spawning to the last rank's Hello …
  static constexpr int kMeasuredHelloMs = 300'000;  // … where ranks measure before
  static constexpr int kCancelMs = 30'000;          // a clean stop that stands still becomes a kill
  static constexpr int kKillMs = 15'000;            // until a rank that is killed has gone
  static constexpr int kFolderMs = 10'000;          // then a folder that does not answer is told
  static constexpr int kRecordMs = 60'000;          // a result is told no later, recorded or not
  static constexpr int kWaitsMs = 1000;             // for every rank's answer to `status --why`
  static constexpr int kHangAnswerMs = 10'000;      // the same where a hang is judged, at most
  static constexpr int kWaitEdgesMax = 10'000;

  JobLife(State& state, Seams seams, uint64_t id, proto::SubmitRequest request,
          std::shared_ptr<JobRecorder> recorder);
  ~JobLife();

  // ---- commands ----
  void Start(std::vector<Placement> places);
  void StayQueued(const std::string& why);
  // The first order is the result's cause, but for a person's wish: that counts whenever it comes.
  void Cancel(const StopOrder& order);
  FollowerId Follow(FollowerPort* port);
  void Unfollow(FollowerId follower);
  // Who waits for whom, now.
  void AskWaits(Answer<proto::GetStatusReply> answer);
  // A sentence for followers, and for events.jsonl.
  void Warn(const std::string& sentence);
  void ShrinkHistory();

  // ---- what happened ----
  void RankSaid(uint64_t epoch, int32_t rank, const proto::FromRank& message);
  void RankExited(const proto::RankExited& exited);
  void RankSilent(const proto::RankSilent& news);
  void RankLogged(const proto::RankLog& log);
  void HostLost(HostId host, const std::string& why);

  // ---- facts ----
  uint64_t id() const { return id_; }
  proto::JobState state() const { return summary_.state(); }
  const proto::JobSummary& summary() const { return summary_; }
  // Null for a job that ended long ago.
  const proto::JobSpec* spec() const { return request_.has_spec() ? &request_.spec() : nullptr; }
  int num_workers() const { return summary_.workers(); }
  bool ended() const { return ended_; }
  const JobHistory& history() const { return history_; }
  bool RunsOn(HostId host) const;     // has ranks there that have not exited
  HostId HostOf(int32_t rank) const;  // 0: there is no such rank

 private:
  struct RankState {
    Placement place{};
    std::string host_name{};  // known when the host has gone too
    bool exited = false;
    std::optional<proto::Ready> ready{};  // without its lanes
    std::optional<proto::Hello> hello{};
    std::optional<proto::Finished> finished{};
    proto::Progress progress{};
    int64_t silent_ms = 0;  // as its agent said last
    bool stopped = false;   // likewise
    TimerId silence_timer{};
  };

  void Begun(const Status& begun);
  // J3: a word of this epoch's rank, which has not exited, about a job that lives.
  bool Heeds(uint64_t epoch, int32_t rank) const;
  AgentPort* PortOf(HostId host) const;     // null: the host is gone
  std::string HostName(HostId host) const;  // empty: likewise
  void Spawn(const proto::JobSpec& spec);
  void Tell(int32_t rank, const proto::ToRank& order);
  void TellAll(const proto::ToRank& order);
  void OnHello(int32_t rank, const proto::Hello& hello);
  // Runs `decide` on the planner, then `go_on` where the job still stands where it stood.
  void Decide(std::function<Status(DecidedOrders&)> decide, std::function<void()> go_on);
  void IntroducePeers();
  void OnReady(int32_t rank, const proto::Ready& ready);
  std::vector<RankWords> Words() const;
  void OnFinished(int32_t rank, const proto::Finished& finished);
  ErrorCode InMidRun(ErrorCode code) const;
  // Kills what still runs; the job ends as failed when everything has exited.
  void Fail(ErrorCode code, std::string sentence);
  void SuspectPeer(int32_t rank, const proto::Finished& finished);
  void KillRanks();
  void GiveUpKilling();
  // Kills the ranks when they have said nothing of an action, a step or a checkpoint for kCancelMs.
  void AwaitCleanStop();
  void EndStopped();
  void PhaseOver();
  void FreeSlots();
  void FreeSlotOf(const proto::RankExited& exited);
  void MoveLayers(const proto::Finished& finished);
  std::string ReferenceStart() const;
  void CheckAgainstSingleWorker();
  void End(proto::JobState state, int exit_code, std::string reason);
  void TellResult(const proto::JobResult& result);
  void AskRanks(int64_t patience_ms);
  void OnWaits(int32_t rank, const proto::Waits& waits);
  std::vector<WaitsOfRank> WaitsNow() const;
  void AnswerWaits();
  void GotOn();
  void LookForHang(int64_t delay_ms);
  void Judge(const std::optional<WaitRoot>& root);
  int64_t HangMs() const;
  void SetState(proto::JobState state);
  void Emit(proto::JobEvent event, bool keep = true);
  void CancelTimers();
  void ForgetSilence();
  int64_t PeerSilenceMs() const;
  void Happened(int32_t rank, const std::string& text);  // a warning of the coordinator's own
  std::string WhatItDid(int32_t rank) const;
  std::string SilenceInWords(int32_t rank, int64_t silent_ms) const;
  std::string RankInWords(int32_t rank) const;
  std::string HowItEnded(const proto::RankExited& exited) const;
  bool AllExited() const;

  State& state_;
  const Seams seams_;
  const uint64_t id_;
  proto::SubmitRequest request_;
  std::shared_ptr<JobRecorder> recorder_;  // null once it has recorded the end
  proto::JobSummary summary_{};
  JobHistory history_;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for work off the loop
  uint64_t epoch_ = 0;
  bool reference_run_ = false;
  bool began_ = false;
  std::optional<StopOrder> stop_{};
  bool killing_ = false;
  bool introduced_ = false;  // every rank knows its peers
  bool ended_ = false;
  std::vector<RankState> ranks_{};
  std::optional<Error> failure_{};
  std::optional<Error> suspicion_{};  // J1: waits for its cause
  TimerId suspicion_timer_{};
  TimerId drain_timer_{};
  TimerId folder_timer_{};
  TimerId hello_timer_{};
  TimerId cancel_timer_{};
  TimerId kill_timer_{};
  TimerId record_timer_{};
  RunTrace main_trace_{};
  RunTrace reference_trace_{};
  DecidedOrders decided_{};
  std::string resume_from_{};
  proto::JobResult result_{};  // as far as it is known
  std::vector<Answer<proto::GetStatusReply>> wait_answers_{};
  bool asking_waits_ = false;
  std::map<int32_t, std::vector<proto::WaitEdge>> waits_{};  // by rank, while somebody asks
  TimerId waits_timer_{};
  int64_t got_on_ns_ = 0;  // J4
  TimerId hang_timer_{};
  bool judging_ = false;  // asks for itself
};

}  // namespace troupe
