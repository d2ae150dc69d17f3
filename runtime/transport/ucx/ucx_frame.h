// What UCX carries between two ranks, as bytes: the address of a rank, messages and the link's own
// frames. Pure functions that trust no byte; the fuzzer feeds them directly.
//
//   message  data = header, payload. With num_bulk = 1 the bulk lies in a shared slot already.
//   bulk     header = header, payload; data = the bulk, received into a slot
//   header   the first header_bytes of the envelope; the rest is as in Envelope{}. A small message
//            is two cache lines then, not three or four.
//   link     data = LinkFrame
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/transport/envelope.h"
#include "runtime/transport/transport.h"

namespace troupe {

// Active message ids.
enum class FrameId : uint8_t { kMessage = 1, kBulk = 2, kLink = 3 };

// A control payload above this belongs into bulk.
inline constexpr size_t kMaxPayloadBytes = size_t{16} << 20;
inline constexpr int kMaxSlotsPerChannel = 1 << 16;
inline constexpr int64_t kMaxSlotBytes = int64_t{1} << 40;
inline constexpr int32_t kMaxRanks = 1 << 20;

enum class LinkFrameKind : uint8_t {
  kHello = 1,      // the sender has connected: announce your slots to it
  kHeartbeat = 2,  // nothing else was sent for an interval
  kCredit = 3,     // (channel, slot) is free again
  kSlots = 4,      // the slots of a channel lie in shared memory that you may map
  kGoodbye = 5,    // the sender closes its transport
};

struct LinkFrame {
  static constexpr uint32_t kMagic = 0x4c505254;  // "TRPL"

  uint32_t magic = kMagic;
  uint8_t version = 1;
  LinkFrameKind kind = LinkFrameKind::kHeartbeat;
  uint16_t channel = 0;
  int32_t source_rank = 0;
  uint32_t slot = 0;
  uint64_t nonce = 0;       // of the sending transport, as its address says
  uint32_t generation = 0;  // of the slots: grows whenever they are allocated anew
  uint32_t num_slots = 0;
  int64_t slot_bytes = 0;
  int64_t stride_bytes = 0;  // from one slot to the next
  int32_t process_id = 0;    // kSlots: who owns the descriptor
  int32_t descriptor = 0;    // kSlots: of the memory
};
static_assert(sizeof(LinkFrame) == 56 && std::is_trivially_copyable_v<LinkFrame>);

uint32_t PayloadChecksum(std::span<const std::byte> payload);

// Sets header_bytes: short where nothing would be lost.
inline void ShortenHeader(Envelope* envelope) {
  constexpr Envelope kPlain;
  const bool plain = envelope->step == kPlain.step && envelope->microbatch == kPlain.microbatch &&
                     envelope->stage == kPlain.stage && envelope->flow_id == kPlain.flow_id &&
                     envelope->num_bulk == 0;
  envelope->header_bytes = plain ? Envelope::kShortBytes : Envelope::kFullBytes;
}
// Header and payload, in that order, into a fresh `message`, whose payload lies in `bytes`.
// kCorrupt unless magic, version, sizes and checksum hold.
Status ParseMessage(std::span<const std::byte> bytes, Delivery* message);
Result<LinkFrame> ParseLinkFrame(std::span<const std::byte> bytes);

// Where a rank's transport is reached. Opaque to everybody else.
struct UcxAddress {
  Rank rank{};
  uint64_t nonce = 0;     // of this transport: a restarted rank has another
  uint64_t host_key = 0;  // equal: same kernel and process namespace, so process_id names it
  int32_t process_id = 0;
  std::string worker{};  // UCX's own address
};
std::string EncodeAddress(const UcxAddress& address);
Result<UcxAddress> ParseAddress(std::string_view bytes);

}  // namespace troupe
