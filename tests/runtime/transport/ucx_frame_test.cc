#include "runtime/transport/ucx/ucx_frame.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <vector>

namespace troupe {
namespace {

std::vector<std::byte> MessageBytes(Envelope envelope, std::string_view payload) {
  envelope.payload_checksum = PayloadChecksum(std::as_bytes(std::span(payload)));
  std::vector<std::byte> bytes(envelope.header_bytes + payload.size());
  std::memcpy(bytes.data(), &envelope, envelope.header_bytes);
  std::memcpy(bytes.data() + envelope.header_bytes, payload.data(), payload.size());
  return bytes;
}

bool IsRead(std::span<const std::byte> bytes) {
  Delivery message;
  return ParseMessage(bytes, &message).ok();
}

LinkFrame Slots() {
  return {.kind = LinkFrameKind::kSlots,
          .channel = 3,
          .generation = 1,
          .num_slots = 2,
          .slot_bytes = 100,
          .stride_bytes = 4096,
          .process_id = 7,
          .descriptor = 9};
}

TEST(UcxFrameTest, AMessageIsReadBack) {
  Envelope envelope;
  envelope.source_rank = 3;
  envelope.sequence = 17;
  envelope.nonce = 5;
  for (const int32_t microbatch : {-1, 0}) {
    envelope.microbatch = microbatch;
    ShortenHeader(&envelope);
    const auto bytes = MessageBytes(envelope, "payload");
    EXPECT_EQ(bytes.size(), (microbatch < 0 ? 64u : 104u) + 7);
    Delivery message;
    const Status parsed = ParseMessage(bytes, &message);
    ASSERT_TRUE(parsed.ok()) << parsed.error().message;
    EXPECT_EQ(message.envelope.sequence, 17u);
    EXPECT_EQ(message.envelope.nonce, 5u);
    EXPECT_EQ(message.envelope.microbatch, microbatch);
    EXPECT_EQ(message.envelope.stage, -1);
    EXPECT_EQ(std::memcmp(message.payload.data(), "payload", 7), 0);
    EXPECT_EQ(message.payload.size(), 7u);
  }
}

// Whatever a sender may say beyond the short header travels.
TEST(UcxFrameTest, OnlyASilentEnvelopeIsShort) {
  const std::vector<std::function<void(Envelope&)>> words = {
      [](Envelope& e) { e.step = 1; }, [](Envelope& e) { e.microbatch = 0; },
      [](Envelope& e) { e.stage = 0; }, [](Envelope& e) { e.flow_id = 1; },
      [](Envelope& e) { e.num_bulk = 1; }};
  for (size_t i = 0; i < words.size(); ++i) {
    Envelope envelope;
    words[i](envelope);
    ShortenHeader(&envelope);
    EXPECT_EQ(envelope.header_bytes, Envelope::kFullBytes) << "word " << i;
  }
}

TEST(UcxFrameTest, AMessageWithAnyLieIsRefused) {
  const std::vector<std::function<void(Envelope&)>> lies = {
      [](Envelope& e) { e.magic ^= 1; },
      [](Envelope& e) { e.header_version = 9; },
      [](Envelope& e) { e.header_bytes = 0; },
      [](Envelope& e) { e.header_bytes = 65; },
      [](Envelope& e) { e.header_bytes = 255; },
      [](Envelope& e) { e.header_bytes = Envelope::kShortBytes; },  // the payload is another then
      [](Envelope& e) { e.payload_checksum ^= 1; },
      [](Envelope& e) { e.source_rank = -1; },
      [](Envelope& e) { e.source_rank = kMaxRanks; },
      [](Envelope& e) { e.bulk_bytes = 1; },
      [](Envelope& e) { e.num_bulk = 2; },
      [](Envelope& e) { e.num_bulk = 1; },  // on channel 0
      [](Envelope& e) {
        e.num_bulk = e.channel = 1;
        e.bulk_bytes = ~uint64_t{0};
      }};
  for (size_t i = 0; i < lies.size(); ++i) {
    auto bytes = MessageBytes({}, "payload");
    ASSERT_TRUE(IsRead(bytes));
    Envelope envelope;
    std::memcpy(&envelope, bytes.data(), sizeof(envelope));
    lies[i](envelope);
    std::memcpy(bytes.data(), &envelope, sizeof(envelope));
    EXPECT_FALSE(IsRead(bytes)) << "lie " << i;
  }
  Envelope plain;
  for (const uint8_t header_bytes : {Envelope::kShortBytes, Envelope::kFullBytes}) {
    plain.header_bytes = header_bytes;
    const auto whole = MessageBytes(plain, "");
    ASSERT_TRUE(IsRead(whole));
    for (size_t cut = 0; cut < whole.size(); ++cut) {
      EXPECT_FALSE(IsRead(std::span(whole).first(cut))) << cut;
    }
  }
}

TEST(UcxFrameTest, SlotsOutOfBoundsAreRefused) {
  const std::vector<std::function<void(LinkFrame&)>> lies = {
      [](LinkFrame& f) { f.magic = 0; },
      [](LinkFrame& f) { f.version = 2; },
      [](LinkFrame& f) { f.kind = static_cast<LinkFrameKind>(99); },
      [](LinkFrame& f) { f.source_rank = -5; },
      [](LinkFrame& f) { f.num_slots = 0xffffffff; },
      [](LinkFrame& f) { f.slot_bytes = -1; },
      [](LinkFrame& f) { f.slot_bytes = 5000; },
      [](LinkFrame& f) { f.stride_bytes = int64_t{1} << 62; },
      [](LinkFrame& f) { f.generation = 0; },
      [](LinkFrame& f) { f.process_id = 0; },
      [](LinkFrame& f) { f.descriptor = -1; }};
  for (size_t i = 0; i < lies.size(); ++i) {
    LinkFrame frame = Slots();
    ASSERT_TRUE(ParseLinkFrame(std::as_bytes(std::span(&frame, 1))).ok());
    lies[i](frame);
    EXPECT_FALSE(ParseLinkFrame(std::as_bytes(std::span(&frame, 1))).ok()) << "lie " << i;
  }
}

TEST(UcxFrameTest, AnAddressIsReadBackAndEveryFlippedBitIsNoticed) {
  const UcxAddress address{
      .rank = Rank(4), .nonce = 11, .host_key = 12, .process_id = 13, .worker = "where UCX is"};
  std::string bytes = EncodeAddress(address);
  const auto parsed = ParseAddress(bytes);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->rank, Rank(4));
  EXPECT_EQ(parsed->nonce, 11u);
  EXPECT_EQ(parsed->worker, "where UCX is");
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_FALSE(ParseAddress(bytes).ok()) << bit;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
  }
}

}  // namespace
}  // namespace troupe
