// RankRing: a rank's place in the ring of those that share its sequences (cp), opened from the
// job's plan: its ring attention actor, and what passes over layers reach it through. Empty where
// the plan's queries meet other ranks' keys in another way, or in none.
// Thread: the rank's actor thread. Outlives the stages whose passes exchange blocks.
//
//   D1. All ranks of the group have opened their ring before one of them sends.
//   D2. Comm memory: kKvSlots slots of each channel, for the previous rank alone.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/model/kv_ring.h"
#include "actors/plan/communication_volume.h"
#include "actors/plan/job_plan.h"
#include "actors/rank_groups.h"
#include "actors/rank_traffic.h"
#include "actors/ring_attention_actor.h"
#include "proto/worker.pb.h"
#include "runtime/memory/buffer.h"

namespace troupe {

struct RankRingOptions {
  std::vector<Rank> ranks{};       // of the group, in its order; none: there is no ring
  TensorDescriptor keys_values{};  // of a block: (tokens, 2 · key channels)
  TensorDescriptor gradients{};
};
RankRingOptions RingOfRank(const JobPlan& plan, Rank rank);

class RankRing {
 public:
  // The router, the ledger and the traffic outlive it.
  RankRing(RankRouter& router, RankRingOptions options, const RankGroups::Deadlines& deadlines,
           MemoryLedger& ledger, const RankTraffic* traffic);
  ~RankRing();  // what is expected does not come any more
  RankRing(const RankRing&) = delete;
  RankRing& operator=(const RankRing&) = delete;

  // Posts the slots and spawns the actor. Before any rank sends. `trace`: the steps whose hops
  // leave spans. `on_hop`: a pass has come to this hop; null: no pass is open.
  Status Open(const TraceWindow& trace = {}, std::function<void(const KvHop*)> on_hop = {});

  KvRing* ring() const { return ring_.get(); }  // null: there is none
  AttentionWork& work() { return work_; }       // of the rank's passes, by any method
  // What this rank sent in training steps since Open.
  std::vector<CommunicationVolume> Sent() const;
  // What its queries saw in these steps, and how long it waited for keys.
  void AddWork(proto::CommunicationReport::Attention& report) const;

  // Where a pass is open, the block that the previous rank owes it, "attention of layer 3,
  // microbatch 2: block of hop 1 from rank 0 to rank 1", and for another rank of the group the hop
  // alone, "attention of layer 3, microbatch 2, hop 1". Empty where none is open, or the peer is
  // not of the group.
  std::string OpenHopInWords(Rank peer) const;
  void OnPeerDown(Rank peer, const Error& cause);
  void OnCredit(uint16_t channel);

 private:
  Rank Neighbour(int distance) const;  // so many places on
  Status OpenChannels(RingAttentionOptions& options);

  RankRouter& router_;
  const RankRingOptions options_;
  const RankGroups::Deadlines deadlines_;
  MemoryLedger& ledger_;
  const RankTraffic* const traffic_;
  int index_ = 0;                 // among the ranks
  std::vector<Buffer> copies_{};  // where the transport hands blocks over by pointer
  RingTraffic blocks_{};
  AttentionWork work_{};
  std::optional<KvHop> open_hop_{};
  RingAttentionActor::SelfRef actor_{};
  std::unique_ptr<KvRing> ring_{};
};

}  // namespace troupe
