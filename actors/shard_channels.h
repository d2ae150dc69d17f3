// ShardChannels: the runs of weights that a rank sends to the other owners of its rows (ZeRO-3), in
// blocks of the slots that those have posted. One for all rows of the rank.
//
// Thread: the rank's actor thread.
//   C1. To one peer blocks leave in the order of Send, over all rows, each against a credit;
//       without one they wait for it.
//   C2. Blocks leave from where the weights lie: no copy is made, and memory is the slots' alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <vector>

#include "actors/messages.h"
#include "runtime/actor/remote.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"

namespace troupe {

using ShardRef = RemoteRef<ShardWanted, WithBulk<ShardBlock>>;

class ShardChannels {
 public:
  struct Options {
    std::vector<Rank> peers{};
    int slots = 0;  // posted for each peer, which has posted as many of the same size
    int64_t slot_bytes = 0;
  };
  // The router outlives it.
  ShardChannels(RankRouter& router, Options options);

  // Posts the slots. Before any peer sends.
  Status Open();

  // `run` to one of the peers: `block` says whose and in which version, and its first_byte is 0.
  // The memory stays unchanged until the peer has all of it. `counted`: in Sent.
  void Send(const ShardRef& to, const ShardBlock& block, std::span<const std::byte> run,
            bool counted);
  // Whether some of what Send was given for that actor has not left.
  bool Sends(const ShardRef& to) const;

  void OnCredit(Rank peer);
  void OnPeerDown(Rank peer);  // what was for it goes nowhere

  int64_t num_runs() const { return num_runs_; }  // that have left, of those counted
  int64_t sent_bytes() const { return sent_bytes_; }

 private:
  struct Run {
    ShardRef to;
    ShardBlock next;  // to leave
    std::span<const std::byte> bytes;
    bool counted;
  };
  using Queue = std::deque<Run>;

  void Flush(Queue& queue);
  void Count(const Run& run, size_t block_bytes);

  RankRouter& router_;
  const Options options_;
  std::map<Rank, Queue> queues_{};
  int64_t num_runs_ = 0;
  int64_t sent_bytes_ = 0;
};

}  // namespace troupe
