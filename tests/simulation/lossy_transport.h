// A transport that loses single messages with bulk: they take their credit and never arrive. No
// real one does that while its link lives; whoever wrote the code around it may.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/transport/transport.h"

namespace troupe::testing {

class LossyTransport : public Transport {
 public:
  // Asked of every message with bulk.
  using Loses = std::function<bool(Rank to, const Envelope& envelope)>;

  LossyTransport(std::unique_ptr<Transport> under, Loses loses)
      : under_(std::move(under)), loses_(std::move(loses)) {}

  Status SendBulk(Rank to, const Envelope& envelope, std::span<const std::byte> payload,
                  std::span<const std::byte> bulk, std::function<void()> done) override {
    if (Credits(to, envelope.channel) <= 0 || !loses_(to, envelope)) {
      return under_->SendBulk(to, envelope, payload, bulk, std::move(done));
    }
    ++lost_[{to, envelope.channel}];
    done_.push_back(std::move(done));
    return {};
  }
  int Credits(Rank to, uint16_t channel) const override {
    const auto lost = lost_.find({to, channel});
    return under_->Credits(to, channel) - (lost == lost_.end() ? 0 : lost->second);
  }
  int Progress() override {
    const auto done = std::exchange(done_, {});
    for (const auto& call : done) {
      if (call) call();
    }
    return under_->Progress() + static_cast<int>(done.size());
  }
  bool Arm() override { return done_.empty() && under_->Arm(); }

  void SetHandlers(Handlers handlers) override { under_->SetHandlers(std::move(handlers)); }
  std::string LocalAddress() const override { return under_->LocalAddress(); }
  Status Connect(Rank peer, std::string_view address) override {
    return under_->Connect(peer, address);
  }
  Status PostSlots(Rank from, uint16_t channel, int num_slots, int64_t slot_bytes) override {
    return under_->PostSlots(from, channel, num_slots, slot_bytes);
  }
  void SetCredits(Rank to, uint16_t channel, int num_slots) override {
    under_->SetCredits(to, channel, num_slots);
  }
  Status Send(Rank to, const Envelope& envelope, std::span<const std::byte> payload) override {
    return under_->Send(to, envelope, payload);
  }
  int EventFd() const override { return under_->EventFd(); }
  Lane LaneTo(Rank peer) const override { return under_->LaneTo(peer); }
  int64_t BytesSentTo(Rank peer) const override { return under_->BytesSentTo(peer); }
  void Close(int deadline_ms) override { under_->Close(deadline_ms); }

 private:
  const std::unique_ptr<Transport> under_;
  const Loses loses_;
  std::map<std::pair<Rank, uint16_t>, int> lost_{};  // credits that went with them
  std::vector<std::function<void()>> done_{};
};

}  // namespace troupe::testing
