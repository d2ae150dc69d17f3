// Messages between ranks of one process: bulk is handed over by pointer and read in place, so a
// sender's bytes are busy until the receiver lets its Bulk go. Used by tests that run a whole job
// in one process, and wherever several ranks share one.
//
// Thread: each endpoint on its own rank's thread; ranks may share a thread. The network outlives
// its endpoints, and every Bulk its receiver's endpoint.
//   N1. Every SendBulk that was accepted gets exactly one `done`, on the sender's Progress.
//   N2. Credits of (sender, receiver, channel) = slots set - bulks sent and not yet let go.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "runtime/transport/transport.h"

namespace troupe {

class InprocNetwork {
 public:
  InprocNetwork() = default;
  InprocNetwork(const InprocNetwork&) = delete;
  InprocNetwork& operator=(const InprocNetwork&) = delete;

  std::unique_ptr<Transport> NewTransport(Rank rank);

  // As if the process of `rank` had died: its peers learn it on their next Progress.
  void Kill(Rank rank);

 private:
  friend class InprocTransport;

  struct Parcel {
    Envelope envelope{};
    std::vector<std::byte> payload{};
    std::span<std::byte> bulk{};
    uint64_t ticket = 0;  // of the sender's pending bulk, 0: none
  };
  struct Returned {
    Rank from{};
    uint64_t ticket = 0;
  };
  struct Lost {
    Rank peer{};
  };
  // What waits at one rank's door; `mutex` guards all of it.
  struct Inbox {
    std::mutex mutex{};
    std::deque<Parcel> parcels{};
    std::deque<Returned> returned{};
    std::deque<Lost> lost{};
  };
  std::shared_ptr<Inbox> InboxOf(Rank rank);

  std::mutex mutex_{};
  std::map<Rank, std::shared_ptr<Inbox>> inboxes_{};
};

}  // namespace troupe
