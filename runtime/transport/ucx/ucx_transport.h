// UcxTransport: ranks of different processes, by UCX active messages: shared memory on a host, TCP
// or RDMA between hosts. Addresses travel over the control plane; both sides Connect.
//
// A slot of a channel has a number, which the sender picks among the free ones. On one host the
// receiver's slots are memory that the sender maps, so a bulk is one copy, done inside SendBulk,
// and a message that names the slot. Elsewhere UCX moves the bytes straight into the slot.
//
//   U1. What comes from outside is checked before it is used: sizes and checksum, the source
//       against the connected peers and their nonce, the slot against those in use. Anything else
//       is dropped and counted, and the link stays.
//   U2. Deliveries of one (source, channel) follow the order of their sends, although a bulk may
//       still be on its way when the next message is there.
//   U3. A peer is lost when its process ends (same host), when UCX reports its connection broken,
//       when UCX cannot connect to it, or when it was silent for silence_ms: small sends to a dead
//       or stopped peer in shared memory would otherwise stay pending for ever. Time in which this
//       rank itself did not run counts for nobody.
//   U4. Messages of a rank that is not connected yet wait, a bounded number of them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "runtime/memory/buffer.h"
#include "runtime/transport/transport.h"

namespace troupe {

struct UcxTransportOptions {
  Rank self{};
  int heartbeat_ms = 100;
  int silence_ms = 40'000;  // whoever watches the processes knows better and earlier
  int connect_ms = 60'000;  // from Connect until the peer must have connected too
  std::function<void(const std::string&)> warn = [](const std::string&) {};
};

class UcxTransport : public Transport {
 public:
  // `ledger` counts the slots (comm) and outlives the transport.
  static Result<std::unique_ptr<Transport>> Create(const UcxTransportOptions& options,
                                                   MemoryLedger& ledger);
  // Frames that U1 dropped.
  virtual int64_t dropped() const = 0;
  // What carries messages to `peer` in UCX's words: "posix/memory", "tcp/eth0". Empty: unknown.
  virtual std::string DeviceTo(Rank peer) const = 0;
  // How many bulks went to `peer` by one copy into its slot.
  virtual int64_t NumInPlace(Rank peer) const = 0;
};

}  // namespace troupe
