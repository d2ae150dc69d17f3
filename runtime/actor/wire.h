// What a message needs to cross a process. Either a protobuf message, recognised by its members
// (this header includes no protobuf), or a trivially copyable struct with kMessageName, whose bytes
// are its wire format: fixed-width fields, little-endian, no pointers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "runtime/actor/message.h"
#include "runtime/base/result.h"
#include "runtime/transport/envelope.h"
#include "runtime/transport/transport.h"

namespace troupe {

template <typename M>
concept ProtobufMessage = requires(const M& source, M& target, void* bytes, int size) {
  { source.ByteSizeLong() } -> std::convertible_to<size_t>;
  { source.SerializeToArray(bytes, size) } -> std::same_as<bool>;
  { target.ParseFromArray(bytes, size) } -> std::same_as<bool>;
  { source.GetTypeName() } -> std::convertible_to<std::string>;
};

template <typename M>
concept PlainMessage = NamedMessage<M> && std::is_trivially_copyable_v<M>;

template <typename M>
concept WireMessage = ProtobufMessage<M> || PlainMessage<M>;

// A wire message together with the envelope and the bytes that came beside it (empty where none
// came). An actor that lists WithBulk<M> instead of M gets this.
template <typename M>
struct WithBulk {
  M message;
  Bulk bulk;
  Envelope envelope;
  int64_t arrived_ns = 0;  // when it began to arrive (steady clock); 0: not known
};

// xxh64 of a message's qualified name.
uint64_t WireTypeIdOf(std::string_view name);

template <WireMessage M>
uint64_t WireTypeId() {
  static const uint64_t id = [] {
    if constexpr (ProtobufMessage<M>) {
      return WireTypeIdOf(std::string(M().GetTypeName()));
    } else {
      return WireTypeIdOf(M::kMessageName);
    }
  }();
  return id;
}

// Calls use(bytes) with the encoded message; small ones need no heap.
template <WireMessage M, typename Use>
Status WithEncoded(const M& message, Use use) {
  if constexpr (ProtobufMessage<M>) {
    const size_t num_bytes = message.ByteSizeLong();
    if (num_bytes > static_cast<size_t>(std::numeric_limits<int>::max())) {
      return MakeError(ErrorCode::kInvalidSpec, "message {}: {} bytes do not fit in one message",
                       std::string(message.GetTypeName()), num_bytes);
    }
    std::byte small[512];
    std::vector<std::byte> large;
    std::byte* bytes = small;
    if (num_bytes > sizeof(small)) {
      large.resize(num_bytes);
      bytes = large.data();
    }
    message.SerializeToArray(bytes, static_cast<int>(num_bytes));
    return use(std::span<const std::byte>(bytes, num_bytes));
  } else {
    return use(std::as_bytes(std::span(&message, 1)));
  }
}

template <WireMessage M>
Status Decode(std::span<const std::byte> payload, M* message) {
  if constexpr (ProtobufMessage<M>) {
    if (payload.size() > static_cast<size_t>(std::numeric_limits<int>::max()) ||
        !message->ParseFromArray(payload.data(), static_cast<int>(payload.size()))) {
      return MakeError(ErrorCode::kCorrupt, "payload of {} bytes is not a {}", payload.size(),
                       std::string(message->GetTypeName()));
    }
  } else {
    if (payload.size() != sizeof(M)) {
      return MakeError(ErrorCode::kCorrupt, "payload has {} bytes, {} needs {}", payload.size(),
                       M::kMessageName, sizeof(M));
    }
    std::memcpy(message, payload.data(), sizeof(M));
  }
  return {};
}

// The wire message inside a listed message: M for M and for WithBulk<M>, void for what never
// leaves the process.
template <typename M>
struct WireOf {
  using Type = std::conditional_t<WireMessage<M>, M, void>;
  static constexpr bool kWithBulk = false;
};
template <typename M>
struct WireOf<WithBulk<M>> {
  using Type = M;
  static constexpr bool kWithBulk = true;
};

}  // namespace troupe
