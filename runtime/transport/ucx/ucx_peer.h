// What a rank knows of one peer: the endpoint, the channels in both directions and their slots.
// Data of ucx_transport.cc, on the progress thread.
#pragma once

#include <ucp/api/ucp.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/ids.h"
#include "runtime/memory/shared_region.h"
#include "runtime/transport/envelope.h"

namespace troupe {

// Slots of one size behind each other in shared memory; the receiver's own, or its sender's view.
struct SlotRegion {
  SharedRegion memory{};
  uint32_t generation = 0;  // 0: none
  uint32_t num_slots = 0;
  int64_t slot_bytes = 0;
  int64_t stride_bytes = 0;

  bool Fits(uint32_t slot, uint64_t num_bytes) const {
    return generation != 0 && slot < num_slots && num_bytes <= static_cast<uint64_t>(slot_bytes);
  }
  std::span<std::byte> Slot(uint32_t slot, uint64_t num_bytes) const {
    return memory.bytes().subspan(static_cast<size_t>(slot) * static_cast<size_t>(stride_bytes),
                                  num_bytes);
  }
};

struct SendChannel {
  uint64_t last_sequence = 0;
  std::vector<uint32_t> free_slots{};  // as many as there are credits
  std::vector<bool> is_free{};
  SlotRegion slots{};  // where this process may write

  void SetSlots(int num_slots) {
    is_free.assign(static_cast<size_t>(std::max(num_slots, 0)), true);
    free_slots.clear();
    for (int slot = num_slots - 1; slot >= 0; --slot) {
      free_slots.push_back(static_cast<uint32_t>(slot));
    }
  }
  uint32_t TakeSlot() {
    const uint32_t slot = free_slots.back();
    free_slots.pop_back();
    is_free[slot] = false;
    return slot;
  }
  bool GiveBack(uint32_t slot) {
    if (slot >= is_free.size() || is_free[slot]) return false;
    is_free[slot] = true;
    free_slots.push_back(slot);
    return true;
  }
};

struct UcxPeer;

// A message that is not delivered yet: its bulk is under way, or it stands behind one.
struct Arrival {
  UcxPeer* peer = nullptr;
  Envelope envelope{};
  std::vector<std::byte> payload{};
  std::span<std::byte> bulk{};
  int64_t arrived_ns = 0;  // its head; 0: all of it with its delivery
  bool complete = false;
  bool failed = false;  // the bulk never came: dropped when its turn comes
};

struct ReceiveChannel {
  uint64_t last_sequence = 0;
  SlotRegion slots{};
  SlotRegion retired{};  // of the generation before: a bulk to it may be under way
  std::vector<bool> busy{};
  std::deque<Arrival> arrivals{};
};

// The channels of one direction, by number. Control, which most messages take, is there without a
// search; a data channel is there once it was asked for. Channels stay where they are.
template <typename Channel>
class ChannelTable {
 public:
  Channel& operator[](uint16_t number) { return number == 0 ? control_ : Data(number); }
  Channel* Find(uint16_t number) {
    if (number == 0) return &control_;
    const auto found = data_.find(number);
    return found == data_.end() ? nullptr : &found->second;
  }
  template <typename Use>
  void ForEach(Use use) {
    use(uint16_t{0}, control_);
    for (auto& [number, channel] : data_) use(number, channel);
  }

 private:
  [[gnu::noinline]] Channel& Data(uint16_t number) { return data_[number]; }

  Channel control_{};
  std::map<uint16_t, Channel> data_{};
};

enum class PeerState : uint8_t { kUnconnected, kUp, kClosing, kDown };

class UcxLink;

struct UcxPeer {
  UcxLink* link = nullptr;
  Rank rank{};
  PeerState state = PeerState::kUnconnected;
  ucp_ep_h endpoint = nullptr;
  ucs_status_ptr_t close_request = nullptr;
  uint64_t nonce = 0;
  int32_t process_id = 0;
  int process_fd = -1;  // tells when the process ends; -1: on another host
  bool shares_memory = false;

  ChannelTable<SendChannel> sending{};
  ChannelTable<ReceiveChannel> receiving{};
  int64_t bytes_sent = 0;
  int64_t num_in_place = 0;
  int64_t num_pending = 0;  // frames that UCX holds

  bool heard = false;       // since the last check
  bool sent = false;        // since the last check
  bool ever_heard = false;  // it has connected too
  int64_t last_heard_ns = 0;
  int64_t last_sent_ns = 0;
  int64_t closing_since_ns = 0;
  std::string why_lost{};
  ErrorCode code_lost = ErrorCode::kPeerDown;
};

}  // namespace troupe
