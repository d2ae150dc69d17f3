// Transport: how messages reach another rank. One interface, one conformance suite
// (tests/runtime/transport/conformance.h), three backends: inproc (pointer hand-over between ranks
// of one process), ucx (shared memory on a host, TCP or RDMA between hosts), sim (virtual time).
//
// Thread: every call, and every handler, on the one progress thread of the rank.
// Order: FIFO per (source, destination, channel). No order across channels.
// Bulk: lands in a slot that the receiver posted beforehand; never allocates in steady state.
//
//   T1. A bulk message is sent only against a credit; credits of a channel start at the number of
//       posted slots and return when the receiver lets the Bulk go.
//   T2. After on_peer_down(r) no message from r is delivered and every pending send to r is done.
//   T3. Send and SendBulk never block and never call a handler before they return.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/transport/envelope.h"

namespace troupe {

enum class Lane : uint8_t { kInproc, kSharedMemory, kTcp, kRdma, kSimulated };
std::string_view LaneName(Lane lane);

// The bytes that came beside a message. Move-only. Letting it go frees the slot and returns the
// credit; the transport must outlive it.
class Bulk {
 public:
  Bulk() = default;
  Bulk(std::span<std::byte> bytes, std::function<void()> release)
      : bytes_(bytes), release_(std::move(release)) {}
  Bulk(Bulk&& other) noexcept
      : bytes_(std::exchange(other.bytes_, {})), release_(std::exchange(other.release_, nullptr)) {}
  Bulk& operator=(Bulk&& other) noexcept {
    if (this != &other) {
      Release();
      bytes_ = std::exchange(other.bytes_, {});
      release_ = std::exchange(other.release_, nullptr);
    }
    return *this;
  }
  ~Bulk() {
    if (release_) Release();
  }

  std::span<std::byte> bytes() const { return bytes_; }
  bool empty() const { return bytes_.empty(); }
  void Release() {
    if (auto release = std::exchange(release_, nullptr)) release();
    bytes_ = {};
  }

 private:
  std::span<std::byte> bytes_;
  std::function<void()> release_;
};

struct Delivery {
  Envelope envelope;
  std::span<const std::byte> payload;  // valid only during the call
  Bulk bulk;
  int64_t arrived_ns = 0;  // when it began to arrive (steady clock); 0: with this call
};

class Transport {
 public:
  struct Handlers {
    std::function<void(Delivery&&)> on_message;
    std::function<void(Rank peer, Error cause)> on_peer_down;
    // A credit came back on (peer, channel): a parked action may go on.
    std::function<void(Rank peer, uint16_t channel)> on_credit;
  };

  virtual ~Transport() = default;

  virtual void SetHandlers(Handlers handlers) = 0;

  // What peers need to reach this rank; travels over the control plane.
  virtual std::string LocalAddress() const = 0;
  // A peer that cannot be reached (any more) is told of as any lost one, with kInvalidSpec instead
  // of kPeerDown where the reason may be the settings.
  virtual Status Connect(Rank peer, std::string_view address) = 0;

  // Receiver side of a data channel: `num_slots` slots of `slot_bytes` for bulk from `from`.
  // Memory is tagged comm. Call before the peer's first SendBulk on that channel.
  virtual Status PostSlots(Rank from, uint16_t channel, int num_slots, int64_t slot_bytes) = 0;
  // Sender side: how many slots the peer has posted (agreed by the plan).
  virtual void SetCredits(Rank to, uint16_t channel, int num_slots) = 0;
  virtual int Credits(Rank to, uint16_t channel) const = 0;

  // The envelope's source, sequence, bulk's size and checksum are filled in. `payload` is copied.
  virtual Status Send(Rank to, const Envelope& envelope, std::span<const std::byte> payload) = 0;
  // `bulk` must stay valid and unchanged until `done` is called (exactly once, from Progress, also
  // when the peer is lost). Without a credit: kResourceExhausted, and nothing is sent.
  virtual Status SendBulk(Rank to, const Envelope& envelope, std::span<const std::byte> payload,
                          std::span<const std::byte> bulk, std::function<void()> done) = 0;

  // Delivers what has arrived and completes what was sent; returns how many events it handled.
  virtual int Progress() = 0;
  // A descriptor that becomes readable when Progress may have work, or -1. Arm() returns false if
  // work is already there: call Progress again instead of sleeping.
  virtual int EventFd() const = 0;
  virtual bool Arm() = 0;

  virtual Lane LaneTo(Rank peer) const = 0;
  // Bytes of bulk and payload sent so far to `peer`.
  virtual int64_t BytesSentTo(Rank peer) const = 0;

  // Releases every endpoint; bounded by `deadline_ms`.
  virtual void Close(int deadline_ms) = 0;
};

}  // namespace troupe
