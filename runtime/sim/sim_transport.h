// SimTransport: one rank's end of a SimNetwork. Bulk is copied into the slot of the receiver when
// it arrives, so a sender's bytes are free as soon as `done` says so, as on a real wire.
//
// Thread: the network's.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "runtime/sim/sim_network.h"
#include "runtime/transport/transport.h"

namespace troupe {

class SimTransport : public Transport {
 public:
  SimTransport(SimNetwork& network, Rank rank);
  ~SimTransport() override;

  void SetHandlers(Handlers handlers) override { handlers_ = std::move(handlers); }
  std::string LocalAddress() const override;
  Status Connect(Rank peer, std::string_view address) override;

  Status PostSlots(Rank from, uint16_t channel, int num_slots, int64_t slot_bytes) override;
  void SetCredits(Rank to, uint16_t channel, int num_slots) override;
  int Credits(Rank to, uint16_t channel) const override;

  Status Send(Rank to, const Envelope& envelope, std::span<const std::byte> payload) override;
  Status SendBulk(Rank to, const Envelope& envelope, std::span<const std::byte> payload,
                  std::span<const std::byte> bulk, std::function<void()> done) override;

  int Progress() override;
  int EventFd() const override { return -1; }
  bool Arm() override;

  Lane LaneTo(Rank) const override { return Lane::kSimulated; }
  int64_t BytesSentTo(Rank peer) const override;
  void Close(int deadline_ms) override;

 private:
  friend class SimNetwork;
  using What = SimNetwork::What;
  using ChannelKey = std::pair<Rank, uint16_t>;

  struct Peer {
    std::map<uint16_t, uint64_t> sequence{};
    int64_t bytes_sent = 0;
    bool lost = false;
  };
  struct Slots {
    int num_slots = 0;
    int64_t slot_bytes = 0;
    int in_use = 0;
  };
  struct Pending {
    Rank to{};
    std::function<void()> done{};
  };

  Result<Peer*> PeerToSendTo(Rank to);
  Status Post(Peer& peer, Rank to, Envelope envelope, std::span<const std::byte> payload,
              std::span<const std::byte> bulk, uint64_t ticket);
  void Happen(SimNetwork::Event event);
  void Arrive(SimNetwork::Event event);
  void LosePeer(Rank peer);

  SimNetwork& network_;
  const Rank rank_;
  Handlers handlers_{};
  bool closed_ = false;
  std::map<Rank, Peer> peers_{};
  std::map<ChannelKey, Slots> slots_{};
  std::map<ChannelKey, int> credits_{};
  std::map<uint64_t, Pending> pending_{};
  uint64_t last_ticket_ = 0;
  // By (time, order of dispatch).
  std::map<std::pair<int64_t, uint64_t>, SimNetwork::Event> events_{};
};

}  // namespace troupe
