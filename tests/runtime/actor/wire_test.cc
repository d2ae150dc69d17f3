#include "runtime/actor/wire.h"

#include <gtest/gtest.h>

#include "proto/training.pb.h"

namespace troupe {
namespace {

struct Probe {
  static constexpr std::string_view kMessageName = "test.Probe";
  int32_t number = 0;
  float value = 0;
};
struct Local {};

static_assert(PlainMessage<Probe> && !ProtobufMessage<Probe>);
static_assert(ProtobufMessage<proto::StepStart> && WireMessage<proto::StepStart>);
static_assert(!WireMessage<Local>);
static_assert(std::is_void_v<WireOf<Local>::Type>);
static_assert(std::is_same_v<WireOf<WithBulk<Probe>>::Type, Probe> &&
              WireOf<WithBulk<Probe>>::kWithBulk);

template <typename M>
std::vector<std::byte> Encoded(const M& message) {
  std::vector<std::byte> copy;
  const Status status = WithEncoded(message, [&](std::span<const std::byte> bytes) {
    copy.assign(bytes.begin(), bytes.end());
    return Status{};
  });
  CHECK(status.ok());
  return copy;
}

// A type's number is part of the wire format: it must never change by accident.
TEST(Wire, TypeIdsAreTheHashOfTheName) {
  EXPECT_EQ(WireTypeIdOf(""), 0xef46db3751d8e999u);  // xxh64 of nothing, seed 0
  EXPECT_EQ(WireTypeId<Probe>(), WireTypeIdOf("test.Probe"));
  EXPECT_EQ(WireTypeId<proto::StepStart>(), WireTypeIdOf(proto::StepStart().GetTypeName()));
  EXPECT_NE(WireTypeId<proto::StepStart>(), WireTypeId<proto::Vote>());
}

TEST(Wire, PlainMessagesTravelAsTheirBytes) {
  const auto bytes = Encoded(Probe{7, 0.5f});
  ASSERT_EQ(bytes.size(), sizeof(Probe));
  Probe probe;
  ASSERT_TRUE(Decode(bytes, &probe).ok());
  EXPECT_EQ(probe.number, 7);
  EXPECT_EQ(probe.value, 0.5f);
}

TEST(Wire, APlainMessageOfAnotherSizeIsRefused) {
  Probe probe;
  for (const size_t size : {size_t{0}, sizeof(Probe) - 1, sizeof(Probe) + 1}) {
    const Status status = Decode(std::vector<std::byte>(size), &probe);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ErrorCode::kCorrupt);
  }
}

TEST(Wire, ProtobufMessagesTravelSmallAndLarge) {
  for (const int nodes : {0, 1, 1000}) {  // below and above the bytes that need no heap
    proto::Vote vote;
    for (int i = 0; i < nodes; ++i) {
      auto* node = vote.add_norm_nodes();
      node->set_parameter(i);
      node->set_sum(i * 0.5);
    }
    proto::Vote back;
    ASSERT_TRUE(Decode(Encoded(vote), &back).ok());
    ASSERT_EQ(back.norm_nodes_size(), nodes);
    if (nodes == 0) continue;
    EXPECT_EQ(back.norm_nodes(nodes - 1).sum(), (nodes - 1) * 0.5);
  }
}

TEST(Wire, BytesThatAreNoProtobufAreRefused) {
  const std::vector<std::byte> bytes(16, std::byte{0xff});
  proto::Vote vote;
  const Status status = Decode(bytes, &vote);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace troupe
