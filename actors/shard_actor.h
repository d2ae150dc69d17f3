// ShardActor: one row of a stage's weights (a unit's parameters, or a tied weight by itself), of
// which this rank keeps a run and the other owners the rest (ZeRO-3). Brings the whole together
// where the stage asks for it, and answers the others.
//   Takes:  PublishRow, GatherRow                  of the stage (RowSource)
//           ShardWanted, WithBulk<ShardBlock>      of the other owners' actors of this row
//           MemberLost                             of the rank's router, behind what the lost one
//                                                  sent
//   Sends:  ShardWanted, ShardBlock -> the other owners' actors of this row
//   Thread: the rank's actor thread.
//
//   own run:  absent --PublishRow--> version v --PublishRow--> version w > v
//   whole:    idle --GatherRow--> gathering --every run is here--> idle (RowArrival: OK)
//                                     |
//                                     +--an owner that owes is lost, a deadline, a wrong block-->
//                                                                 broken (RowArrival: the error)
//
//   I1. A gather is of the version published here. Each owner of a run that is not empty is asked
//       once, and what comes is checked against what it still owes before a byte is used.
//   I2. A request for a version that is not there yet waits for its PublishRow: one of each owner
//       at most, for an owner asks again only when it has been answered.
//   I3. PublishRow says that every rank has what it gathered of the version before, so nothing of
//       that has still to leave: its memory is another version's already. What the transport has
//       not done with yet has been read, for its receiver has it.
//   I4. Broken, every later gather ends with the same error, and what comes late is dropped.
//   I5. The own run is copied block by block as the others' come, so a large row keeps no other
//       actor waiting.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "actors/messages.h"
#include "actors/model/row_source.h"
#include "actors/plan/trace_window.h"
#include "actors/rank_traffic.h"
#include "actors/shard_channels.h"
#include "runtime/actor/actor.h"
#include "runtime/actor/wire.h"
#include "runtime/collective/group_messages.h"

namespace troupe {

// One of those that have a run of the row, as the others see it.
struct ShardOwner {
  Rank rank{};
  int64_t num_bytes = 0;  // of its run
  ShardRef actor{};
};

struct ShardActorOptions {
  Rank rank{};
  std::string name{};  // what the row holds, for sentences: "model.layers.3"
  StageId stage{};
  int32_t row = 0;                       // of the stage
  std::vector<ShardOwner> owners{};      // in the order of their runs; this rank among them
  int64_t tell_ms = 0;                   // so long a gather is told of; 0: never
  int64_t end_ms = 0;                    // and ended; 0: never
  TraceWindow trace{};                   // the steps whose gathers leave spans
  const RankTraffic* traffic = nullptr;  // outlives the actor; null: every gather is reported
};

class ShardActor : public Actor<ShardActor, PublishRow, GatherRow, WithBulk<ShardWanted>,
                                WithBulk<ShardBlock>, MemberLost> {
 public:
  // The channels outlive the actor.
  ShardActor(ShardActorOptions options, ShardChannels& channels);

  Status On(const PublishRow& publish);
  Status On(const GatherRow& gather);
  Status On(WithBulk<ShardWanted> wanted);
  Status On(WithBulk<ShardBlock> block);
  Status On(const MemberLost& lost);

 private:
  struct Peer {
    ShardOwner owner{};
    std::string name{};      // "rank 2"
    int64_t first_byte = 0;  // of its run in the whole
    int64_t taken = 0;       // bytes of it that the open gather has
    std::optional<ShardWanted> waiting{};

    bool owes() const { return taken < owner.num_bytes; }
  };
  struct Gathering {
    std::span<std::byte> whole{};
    RowArrival* arrival = nullptr;
    int64_t start_ns = 0;         // where it leaves a span
    Peer* first_owing = nullptr;  // whom the wait's record names
    WaitSubject subject{};
    WaitHandle record{};
    TimerId deadline{};
  };

  Peer& own() { return peers_[own_]; }
  Peer* Find(int32_t rank);
  Peer* FirstOwing();

  // ---- own run
  Status Check(const Peer* from, const ShardWanted& wanted) const;
  void Answer(const Peer& to, const ShardWanted& wanted);

  // ---- whole
  Status Take(Peer* from, const ShardBlock& block, std::span<const std::byte> bytes);
  void CopyOwn(int64_t most_bytes);
  void Continue();  // the gather goes on to wait, or ends well
  void BeginWait(Peer& owing);
  void EndGather(Status status);
  void WriteSpan(const Gathering& ended);
  void Break(const Error& error);
  std::string Missing() const;
  std::vector<int> Owing() const;

  const ShardActorOptions options_;
  ShardChannels& channels_;
  const std::string waiter_;                  // "rank 0"
  const std::string activity_;                // "weights of model.layers.3"
  const std::string name_;                    // both
  const std::array<uint32_t, 2> span_names_;  // of gathers, by PassDirection
  std::vector<Peer> peers_;                   // all owners, this one among them
  size_t own_ = 0;
  int64_t row_bytes_ = 0;
  std::span<const std::byte> published_{};
  int64_t version_ = -1;  // of it; -1: absent
  std::optional<Gathering> gathering_{};
  std::optional<Error> broken_{};
};

}  // namespace troupe
