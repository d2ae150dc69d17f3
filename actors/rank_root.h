// RankRoot: one rank from its seams and the job's plan. It takes orders (proto::ToRank) as calls
// and says its news (proto::FromRank) through a seam; builds the rank's actors and supervises them.
//
//   awaiting start --StartRank--> connecting (Hello said) --Peers--> loading
//     --weights are there--> ready (Ready said)
//   rank 0:     ready --Begin--> training --the job actor's end--> finished (Finished said)
//   the others: ready --ShutDown--> finished (Finished said)
//   all:        finished --Leave--> left
//
//   R1. An actor that ends other than normally, a lost peer, a dropped message of this job or an
//       order out of its place ends the job: Finished carries the sentence. What crosses the end of
//       this rank changes nothing any more.
//   R2. What waits for a disk (weights, tokens, checkpoints) and what takes long (hashing) is the
//       stream's work: the peers hear from this rank meanwhile.
// Thread: the scheduler's.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/rank_actors.h"
#include "actors/rank_news.h"
#include "actors/rank_seams.h"
#include "actors/rank_waits.h"
#include "runtime/actor/remote.h"

namespace troupe {

class RankRoot {
 public:
  explicit RankRoot(RankSeams seams);
  ~RankRoot();  // waits for the work under way
  RankRoot(const RankRoot&) = delete;
  RankRoot& operator=(const RankRoot&) = delete;

  void Take(proto::ToRank order);

  // For tests that look into a rank or speak in its name; null until it is ready.
  RankActors* actors() { return actors_ ? &*actors_ : nullptr; }

 private:
  enum class State : uint8_t {
    kAwaitingStart,
    kConnecting,
    kLoading,
    kReady,
    kTraining,
    kFinished,
    kLeft
  };
  static std::string_view StateName(State state);

  // ---- orders ----
  Status Obey(proto::ToRank order);
  // An error where the order is out of its place.
  Status Expect(State state, std::string_view order) const;
  Status OnStart(proto::StartRank start);
  Status OnPeers(const proto::Peers& peers);
  Status OnBegin();

  Status OpenRouter(const proto::Peers& peers);
  void Load();
  Status OnLoaded(Result<LoadedRank> result);
  Status SpawnJob();
  void SayReady();
  void OnDown(const Down& down);
  void OnJobEnd(JobEnd end);

  // ---- the end ----
  bool finished() const { return state_ >= State::kFinished; }
  void Finish(const JobEnd& end);
  void Fail(Error error);

  const RankSeams seams_;
  RankNews news_;
  RankWaits waits_;
  State state_ = State::kAwaitingStart;
  proto::StartRank start_{};
  Rank self_{};
  std::string name_{};  // "rank 2", for the wait below
  std::optional<JobPlan> plan_{};
  MemoryLedger ledger_{};
  std::unique_ptr<Transport> transport_{};
  std::unique_ptr<RankRouter> router_{};
  std::unique_ptr<Stream> stream_{};
  std::unique_ptr<Stream> disk_{};  // null: the stream's work includes the disk's
  std::optional<RankActors> actors_{};
  WaitHandle disk_wait_{};
  double product_flops_ = 0;              // a second, of all ranks; 0: not known
  std::vector<ModelCosts> rank_costs_{};  // of every rank, where they were measured
  std::vector<int> hosts_{};              // by rank
  std::optional<Rank> lost_peer_{};       // why this rank fails
  TimerId loss_timer_{};
  int64_t last_step_ = 0;
};

}  // namespace troupe
