// JobLife: one job from submission to result. Sees what its ranks say and what becomes of them;
// commands agents; tells followers.
// Thread: the coordinator's event loop.
//
//   queued --slots--> starting --every rank ready--> running --rank 0 finished--> draining --all
//   exited--> [checking: the single worker runs the same job] --> succeeded | failed | cancelled
//   draining --rank 0 finished with other stage_layers--> starting again, from its checkpoint
//   starting, running, draining --a rank lost, a rank failed--> draining (killing) --> failed
//
//   J1. The first cause is the headline: what fails because of it is only logged. A rank that says
//       its peer is gone waits kCauseWaitMs for the peer's own end to be known.
//   J2. A job ends once; its slots are free when its last rank has exited or its host is gone. Its
//       result is told when everything is recorded, or when that takes longer than kRecordMs.
//   J3. Messages of another epoch change nothing.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/decided_orders.h"
#include "coordinator/parity.h"
#include "coordinator/state.h"

namespace troupe {

// Where a job writes what its ranks say: the run directory. Null in tests of the life alone.
class JobRecorder {
 public:
  virtual ~JobRecorder() = default;
  virtual Status Open(const proto::SubmitRequest& request) = 0;
  // The host of every rank, before any of them speaks.
  virtual void Placed(const std::vector<std::string>& hosts) = 0;
  // What the ranks will run, before they say Ready; again where they start anew.
  virtual void Planned(const std::vector<proto::Parallelism>& orders) = 0;
  virtual void RankSaid(int32_t rank, bool reference_run, const proto::FromRank& message) = 0;
  virtual void RankLogged(int32_t rank, bool reference_run, const std::string& lines) = 0;
  virtual void StateChanged(const proto::JobSummary& summary) = 0;
  // `done` runs on the loop when everything is recorded; it may end the recorder.
  virtual void Ended(const proto::JobResult& result, std::function<void()> done) = 0;
};

class JobLife {
 public:
  static constexpr int kCauseWaitMs = 1000;
  static constexpr int kDrainMs = 10'000;
  static constexpr int kHelloMs = 60'000;           // from spawning to the last rank's Hello …
  static constexpr int kMeasuredHelloMs = 300'000;  // … where ranks measure before
  static constexpr int kCancelMs = 30'000;          // a clean stop that stands still becomes a kill
  static constexpr int kRecordMs = 60'000;          // a result is told no later, recorded or not
  static constexpr size_t kHistoryMax = 100'000;  // events; who follows later has the run directory

  JobLife(State& state, Seams seams, uint64_t id, proto::SubmitRequest request,
          std::unique_ptr<JobRecorder> recorder);
  ~JobLife();

  // ---- commands ----
  void Start(std::vector<Placement> places);
  void StayQueued(const std::string& why);
  void Cancel(bool checkpoint, bool kill);
  FollowerId Follow(FollowerPort* port);
  void Unfollow(FollowerId follower);
  void AskWaits();

  // ---- what happened ----
  void RankSaid(uint64_t epoch, int32_t rank, const proto::FromRank& message);
  void RankExited(const proto::RankExited& exited);
  void RankLogged(const proto::RankLog& log);
  void HostLost(HostId host, const std::string& why);

  // ---- facts ----
  uint64_t id() const { return id_; }
  proto::JobState state() const { return summary_.state(); }
  const proto::JobSummary& summary() const { return summary_; }
  int num_workers() const { return request_.spec().resources().workers(); }
  const std::vector<proto::WaitEdge>& waits() const { return waits_; }
  bool ended() const;

 private:
  struct RankState {
    Placement place{};
    bool exited = false;
    bool ready = false;
    std::optional<proto::Hello> hello{};
    std::optional<proto::Finished> finished{};
    proto::Progress progress{};
  };

  void Spawn(const proto::JobSpec& spec);
  void Tell(int32_t rank, const proto::ToRank& order);
  void TellAll(const proto::ToRank& order);
  void OnHello(int32_t rank, const proto::Hello& hello);
  void IntroducePeers();
  void OnReady(int32_t rank);
  void OnFinished(int32_t rank, const proto::Finished& finished);
  // Kills what still runs; the job ends as failed when everything has exited.
  void Fail(ErrorCode code, std::string sentence);
  void FailSoon(ErrorCode code, std::string sentence);
  void KillRanks();
  // Kills the ranks when they have said nothing of an action, a step or a checkpoint for kCancelMs.
  void AwaitCleanStop();
  void PhaseOver();
  void FreeSlots();
  void MoveLayers(const proto::Finished& finished);
  std::string ReferenceStart() const;
  void CheckAgainstSingleWorker();
  void End(proto::JobState state, int exit_code, std::string reason);
  void Record(const proto::JobEvent& result);  // then tells it
  void TellResult(proto::JobEvent result);
  void SetState(proto::JobState state);
  void Emit(proto::JobEvent event, bool keep = true);
  std::string RankInWords(int32_t rank) const;
  std::string HowItEnded(const proto::RankExited& exited) const;
  bool AllExited() const;

  State& state_;
  const Seams seams_;
  const uint64_t id_;
  const proto::SubmitRequest request_;
  std::unique_ptr<JobRecorder> recorder_;  // null once it has recorded the end
  proto::JobSummary summary_{};
  std::deque<proto::JobEvent> history_{};  // for those who follow late; no spans
  std::map<FollowerId, FollowerPort*> followers_{};
  uint64_t epoch_ = 0;
  bool reference_run_ = false;
  bool began_ = false;
  bool cancelling_ = false;
  bool killing_ = false;
  bool result_told_ = false;
  std::vector<RankState> ranks_{};
  std::optional<Error> failure_{};
  std::optional<Error> suspicion_{};  // J1: waits for its cause
  TimerId suspicion_timer_{};
  TimerId drain_timer_{};
  TimerId hello_timer_{};
  TimerId cancel_timer_{};
  TimerId record_timer_{};
  RunTrace main_trace_{};
  RunTrace reference_trace_{};
  DecidedOrders decided_{};
  std::string resume_from_{};
  std::string parity_{};
  std::string checkpoint_{};
  std::vector<proto::WaitEdge> waits_{};
};

}  // namespace troupe
