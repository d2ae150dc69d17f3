// UcxTransport: ranks of different processes, by UCX active messages: shared memory on a host, TCP
// or RDMA between hosts. Worker addresses travel over the control plane.
//
// A message is one active message: its header is the envelope (and, beside bulk, the payload), its
// data the payload or the bulk. Bulk longer than the rendezvous threshold is fetched straight into
// the posted slot. Credits and heartbeats are active messages of their own.
//
//   U1. What comes from outside is checked before it is used: sizes against the envelope, the
//   source
//       against the connected peers, bulk against a free slot. Anything else is dropped and
//       counted.
//   U2. Deliveries of one (source, channel) follow the envelope's sequence, whatever UCX overtakes.
//   U3. A peer that is silent for silence_ms is lost, as is one whose endpoint UCX reports broken:
//       small sends to a dead peer in shared memory would otherwise stay pending for ever.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/memory/buffer.h"
#include "runtime/transport/transport.h"

namespace troupe {

struct UcxTransportOptions {
  Rank self{};
  int heartbeat_ms = 200;
  int silence_ms = 3000;
};

class UcxTransport : public Transport {
 public:
  // `ledger` counts the slots (comm) and outlives the transport.
  static Result<std::unique_ptr<Transport>> Create(const UcxTransportOptions& options,
                                                   MemoryLedger& ledger);
  // Frames that U1 dropped.
  virtual int64_t dropped() const = 0;
};

}  // namespace troupe
