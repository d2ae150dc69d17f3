#include "runtime/transport/ucx/ucx_frame.h"

#define XXH_INLINE_ALL  // a call costs a small payload more than its hash
#include <xxhash.h>

#include <cstring>

namespace troupe {
namespace {

constexpr size_t kMaxWorkerAddressBytes = 64 << 10;

struct AddressHeader {
  static constexpr uint64_t kMagic = 0x3158435545505254;  // "TRPEUCX1"
  uint64_t magic = kMagic;
  uint64_t checksum = 0;  // of what follows
  uint64_t nonce = 0;
  uint64_t host_key = 0;
  int32_t rank = 0;
  int32_t process_id = 0;
};
static_assert(sizeof(AddressHeader) == 40);
constexpr size_t kUnchecked = offsetof(AddressHeader, nonce);

uint64_t AddressChecksum(std::string_view bytes) {
  return XXH64(bytes.data() + kUnchecked, bytes.size() - kUnchecked, 0);
}

}  // namespace

uint32_t PayloadChecksum(std::span<const std::byte> payload) {
  return static_cast<uint32_t>(XXH3_64bits(payload.data(), payload.size()));
}

Status ParseMessage(std::span<const std::byte> bytes, Delivery* message) {
  Envelope& envelope = message->envelope;
  if (bytes.size() < Envelope::kShortBytes) {
    return MakeError(ErrorCode::kCorrupt, "message of {} bytes: out of bounds", bytes.size());
  }
  std::memcpy(static_cast<void*>(&envelope), bytes.data(), Envelope::kShortBytes);
  const size_t header_bytes = envelope.header_bytes;
  if (envelope.magic != Envelope::kMagic || envelope.header_version != Envelope::kHeaderVersion ||
      (header_bytes != Envelope::kShortBytes && header_bytes != Envelope::kFullBytes)) {
    return MakeError(ErrorCode::kCorrupt, "message: header of version {} is not one of this build",
                     envelope.header_version);
  }
  if (bytes.size() < header_bytes || bytes.size() - header_bytes > kMaxPayloadBytes) {
    return MakeError(ErrorCode::kCorrupt, "message of {} bytes: out of bounds", bytes.size());
  }
  message->payload = bytes.subspan(header_bytes);
  if (header_bytes == Envelope::kFullBytes) {  // else it says nothing of bulk
    std::memcpy(&envelope, bytes.data(), Envelope::kFullBytes);
    if (envelope.num_bulk > 1 || envelope.bulk_bytes > static_cast<uint64_t>(kMaxSlotBytes) ||
        (envelope.num_bulk == 0 && envelope.bulk_bytes > 0) ||
        (envelope.num_bulk == 1 && envelope.channel == 0)) {
      return MakeError(ErrorCode::kCorrupt, "message: {} bulks of {} bytes on channel {}",
                       envelope.num_bulk, envelope.bulk_bytes, envelope.channel);
    }
  }
  if (envelope.source_rank < 0 || envelope.source_rank >= kMaxRanks) {
    return MakeError(ErrorCode::kCorrupt, "message: no rank {}", envelope.source_rank);
  }
  if (envelope.payload_checksum != PayloadChecksum(message->payload)) {
    return MakeError(ErrorCode::kCorrupt, "message from rank {}: payload fails its checksum",
                     envelope.source_rank);
  }
  return {};
}

Result<LinkFrame> ParseLinkFrame(std::span<const std::byte> bytes) {
  LinkFrame frame;
  if (bytes.size() != sizeof(frame)) {
    return MakeError(ErrorCode::kCorrupt, "link frame: {} bytes instead of {}", bytes.size(),
                     sizeof(frame));
  }
  std::memcpy(&frame, bytes.data(), sizeof(frame));
  if (frame.magic != LinkFrame::kMagic || frame.version != 1 ||
      frame.kind < LinkFrameKind::kHello || frame.kind > LinkFrameKind::kGoodbye ||
      frame.source_rank < 0 || frame.source_rank >= kMaxRanks) {
    return MakeError(ErrorCode::kCorrupt, "link frame: bad magic, version, kind or rank");
  }
  if (frame.kind == LinkFrameKind::kSlots &&
      (frame.generation == 0 || frame.num_slots == 0 || frame.num_slots > kMaxSlotsPerChannel ||
       frame.slot_bytes < 0 || frame.stride_bytes < frame.slot_bytes || frame.stride_bytes < 1 ||
       frame.stride_bytes > kMaxSlotBytes || frame.process_id < 1 || frame.descriptor < 0)) {
    return MakeError(ErrorCode::kCorrupt, "link frame: slots out of bounds");
  }
  return frame;
}

std::string EncodeAddress(const UcxAddress& address) {
  AddressHeader header;
  header.nonce = address.nonce;
  header.host_key = address.host_key;
  header.rank = address.rank.value;
  header.process_id = address.process_id;
  std::string bytes(sizeof(header) + address.worker.size(), '\0');
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::memcpy(bytes.data() + sizeof(header), address.worker.data(), address.worker.size());
  header.checksum = AddressChecksum(bytes);
  std::memcpy(bytes.data(), &header, sizeof(header));
  return bytes;
}

Result<UcxAddress> ParseAddress(std::string_view bytes) {
  AddressHeader header;
  if (bytes.size() <= sizeof(header) || bytes.size() > sizeof(header) + kMaxWorkerAddressBytes) {
    return MakeError(ErrorCode::kCorrupt, "UCX address of {} bytes: out of bounds", bytes.size());
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.magic != AddressHeader::kMagic || header.checksum != AddressChecksum(bytes) ||
      header.rank < 0 || header.rank >= kMaxRanks) {
    return MakeError(ErrorCode::kCorrupt, "UCX address: bad magic, checksum or rank");
  }
  return UcxAddress{.rank = Rank(header.rank),
                    .nonce = header.nonce,
                    .host_key = header.host_key,
                    .process_id = header.process_id,
                    .worker = std::string(bytes.substr(sizeof(header)))};
}

}  // namespace troupe
