// The transport's insides, shared by its sources: ucx_transport.cc (connecting, progress, loss,
// closing), ucx_send.cc and ucx_receive.cc.
//
//   L1. UCX's callbacks only record: `done`, on_credit and on_peer_down run from Progress, outside
//       ucp_worker_progress. on_message alone runs inside it, so payloads need no copy.
//   L2. A frame is in flight from ucp_am_send_nbx until UCX's callback, and its bytes live that
//       long; 1.13 does not copy an active message's header.
//   L3. A peer goes kUnconnected → kUp → kClosing → kDown and never back; a Connect after kDown
//       makes a new peer, and the old one stays for callbacks that may still name it.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/transport/ucx/ucx_frame.h"
#include "runtime/transport/ucx/ucx_peer.h"
#include "runtime/transport/ucx/ucx_transport.h"
#include "runtime/transport/ucx/ucx_wakeup.h"
#include "runtime/transport/ucx/ucx_worker.h"

namespace troupe {

class UcxLink final : public UcxTransport {
 public:
  UcxLink(const UcxTransportOptions& options, MemoryLedger& ledger)
      : options_(options), ledger_(ledger) {}
  ~UcxLink() override { Close(100); }
  Status Open();

  void SetHandlers(Handlers handlers) override { handlers_ = std::move(handlers); }
  std::string LocalAddress() const override;
  Status Connect(Rank to, std::string_view address) override;
  Status PostSlots(Rank from, uint16_t channel, int num_slots, int64_t slot_bytes) override;
  void SetCredits(Rank to, uint16_t channel, int num_slots) override;
  int Credits(Rank to, uint16_t channel) const override;
  Status Send(Rank to, const Envelope& envelope, std::span<const std::byte> payload) override;
  Status SendBulk(Rank to, const Envelope& envelope, std::span<const std::byte> payload,
                  std::span<const std::byte> bulk, std::function<void()> done) override;
  int Progress() override;
  int EventFd() const override { return wakeup_.fd(); }
  bool Arm() override;
  Lane LaneTo(Rank to) const override;
  int64_t BytesSentTo(Rank to) const override;
  void Close(int deadline_ms) override;
  int64_t dropped() const override { return num_dropped_; }
  std::string DeviceTo(Rank to) const override;
  int64_t NumInPlace(Rank to) const override;

 private:
  struct Frame {
    UcxPeer* peer = nullptr;
    std::vector<std::byte> room{};
    size_t num_bytes = 0;  // of room, that are sent
    std::function<void()> done{};
    bool in_flight = false;

    std::span<const std::byte> bytes() const { return {room.data(), num_bytes}; }
  };
  // What an envelope says of the bulk beside it.
  struct BulkPlace {
    uint32_t num_bulk = 0;
    uint64_t num_bytes = 0;
    uint32_t slot_generation = 0;
    uint32_t slot = 0;
  };

  UcxPeer* Find(Rank rank) const {
    const auto index = static_cast<size_t>(rank.value);
    return rank.value >= 0 && index < peers_.size() ? peers_[index].get() : nullptr;
  }
  UcxPeer& FindOrAdd(Rank rank);
  // Who takes messages now, or null.
  UcxPeer* Reachable(Rank to) const;
  Error WhyUnreachable(Rank to) const;

  // ucx_send.cc
  Frame* NewFrame(UcxPeer& peer, size_t room_bytes);
  // Numbered and signed.
  Frame* NewMessage(UcxPeer& peer, SendChannel& channel, const Envelope& envelope,
                    std::span<const std::byte> payload, const BulkPlace& bulk);
  Status Launch(Frame* frame, FrameId id, std::span<const std::byte> header,
                std::span<const std::byte> data, uint32_t flags);
  static void OnSent(void* request, ucs_status_t status, void* frame);
  void Retire(Frame* frame);
  void SendLink(UcxPeer& peer, LinkFrame frame);
  void Announce(UcxPeer& peer);
  void AnnounceChannel(UcxPeer& peer, uint16_t number, const ReceiveChannel& channel);

  // ucx_receive.cc
  static ucs_status_t OnMessage(void* self, const void* header, size_t header_bytes, void* data,
                                size_t num_bytes, const ucp_am_recv_param_t* param);
  static ucs_status_t OnBulk(void* self, const void* header, size_t header_bytes, void* data,
                             size_t num_bytes, const ucp_am_recv_param_t* param);
  static ucs_status_t OnLink(void* self, const void* header, size_t header_bytes, void* data,
                             size_t num_bytes, const ucp_am_recv_param_t* param);
  static void OnFetched(void* request, ucs_status_t status, size_t num_bytes, void* arrival);
  ucs_status_t Drop() {
    ++num_dropped_;
    return UCS_OK;
  }
  UcxPeer* SourceOf(const Delivery& message);
  ReceiveChannel* Accept(UcxPeer& peer, const Envelope& envelope, std::span<std::byte>* bulk);
  Arrival& Keep(UcxPeer& peer, ReceiveChannel& channel, const Delivery& message,
                std::span<std::byte> bulk);
  bool TakeSlot(ReceiveChannel& channel, const Envelope& envelope, std::span<std::byte>* bulk);
  void FreeSlot(UcxPeer& peer, uint16_t channel, uint32_t slot);
  void DeliverArrivals(ReceiveChannel& channel);
  void DeliverEarly(UcxPeer& peer);
  void Deliver(UcxPeer& peer, Delivery&& message, std::span<std::byte> bulk);
  void MapSlots(UcxPeer& peer, const LinkFrame& frame);
  void TakeCredit(UcxPeer& peer, const LinkFrame& frame);

  // ucx_transport.cc
  static void OnEndpointError(void* peer, ucp_ep_h endpoint, ucs_status_t status);
  void BeginLoss(UcxPeer& peer, std::string why);
  bool FinishLoss(UcxPeer& peer);
  int ProgressOwn();
  int RunFinished();
  void CheckPeers();
  void CheckPeer(UcxPeer& peer, int64_t now_ns);
  void CloseEndpoint(UcxPeer& peer, bool by_force);
  void ProgressUntil(int64_t end_ns, const std::function<bool()>& enough);

  const UcxTransportOptions options_;
  MemoryLedger& ledger_;
  UcxWorker worker_{};
  UcxWakeup wakeup_{};
  uint64_t nonce_ = 0;
  uint64_t host_key_ = 0;
  Handlers handlers_{};
  std::vector<std::unique_ptr<UcxPeer>> peers_{};  // by rank
  std::vector<std::unique_ptr<UcxPeer>> former_{};
  std::deque<Frame> frames_{};
  std::vector<Frame*> spare_{};
  std::vector<std::function<void()>> finished_{};  // `done`s whose bytes UCX has let go
  std::vector<std::pair<UcxPeer*, uint16_t>> returned_credits_{};
  std::vector<UcxPeer*> closing_{};
  int64_t num_early_ = 0;  // U4
  int64_t num_dropped_ = 0;
  int64_t last_check_ns_ = 0;
  int passes_until_check_ = 0;
  bool closed_ = false;
};

}  // namespace troupe
