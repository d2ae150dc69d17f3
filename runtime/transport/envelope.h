// The fixed header of every message between ranks: little-endian, 104 bytes, no protobuf. Between
// processes a message that leaves the fields from `step` on as they are here sends the 64 bytes
// before them. Bulk bytes travel beside it, described by tensor descriptors in the payload.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "runtime/base/ids.h"

namespace troupe {

struct Envelope {
  static constexpr uint32_t kMagic = 0x50555254;  // "TRUP"
  static constexpr uint8_t kHeaderVersion = 2;
  static constexpr uint8_t kShortBytes = 64;
  static constexpr uint8_t kFullBytes = 104;

  uint32_t magic = kMagic;
  uint8_t header_version = kHeaderVersion;
  uint8_t header_bytes = kFullBytes;  // that were sent: kShortBytes or kFullBytes
  uint16_t channel = 0;               // data channel within (source, destination); 0 = control
  uint64_t type_id = 0;               // xxh64 of the message's qualified name
  uint64_t job = 0;
  uint64_t epoch = 0;
  int32_t source_rank = 0;
  uint32_t destination_actor = 0;  // index in the destination rank's registry
  uint32_t destination_incarnation = 1;
  uint32_t payload_checksum = 0;
  uint64_t sequence = 0;  // per (source, destination, channel), from 1
  uint64_t nonce = 0;     // of the sending transport: a restarted rank has another

  int64_t step = 0;
  int32_t microbatch = -1;
  int32_t stage = -1;
  uint32_t flow_id = 0;   // joins the send and the receive span in a trace
  uint32_t num_bulk = 0;  // 0 or 1
  uint64_t bulk_bytes = 0;
  uint32_t slot_generation = 0;  // of the receiver's slots; 0: the bulk comes with the message
  uint32_t slot = 0;             // where the bulk goes
};
static_assert(sizeof(Envelope) == Envelope::kFullBytes, "the envelope is a wire format");
static_assert(offsetof(Envelope, step) == Envelope::kShortBytes);
static_assert(std::is_trivially_copyable_v<Envelope>);
static_assert(std::has_unique_object_representations_v<Envelope>, "every byte is a field's");

// A tensor that lies in the bulk bytes.
struct TensorDescriptor {
  uint8_t dtype = 0;  // kernels' DType codes; the runtime only carries them
  uint8_t rank = 0;   // dimensions used in shape
  uint16_t reserved = 0;
  uint32_t reserved2 = 0;
  int64_t shape[4] = {0, 0, 0, 0};
  uint64_t offset_bytes = 0;  // from the start of the bulk
  uint64_t num_bytes = 0;
};
static_assert(sizeof(TensorDescriptor) == 56);

}  // namespace troupe
