#include "runtime/collective/lent_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "runtime/actor/actor.h"
#include "runtime/transport/inproc/inproc_transport.h"
#include "tests/support/patience.h"

namespace troupe {
namespace {

constexpr uint32_t kActor = 3;

class Door : public Actor<Door, LendingOffer, LendingAnswer> {
 public:
  explicit Door(LentMemory& memory) : memory_(memory) {}
  Status On(LendingOffer offer) {
    memory_.Take(offer);
    return {};
  }
  Status On(LendingAnswer answer) {
    memory_.Take(answer);
    return {};
  }

 private:
  LentMemory& memory_;
};

struct Side {
  Side(InprocNetwork& network, Rank self)
      : transport(network.NewTransport(self)),
        router(scheduler, *transport, {.self = self, .job = JobId(1), .epoch = Epoch(1)}),
        memory(router, kActor, &ledger, /*min_bytes=*/100, ledger) {
    router.Register<LendingOffer, LendingAnswer>(
        kActor, scheduler.Spawn<Door>({.name = "door"}, std::ref(memory)));
  }
  MemoryLedger ledger{};
  std::unique_ptr<Transport> transport;
  Scheduler scheduler{{.spin_us = 0, .trace_handlers = false}};
  RankRouter router;
  LentMemory memory;
};

struct LentMemoryTest : ::testing::Test {
  LentMemoryTest() {
    CHECK(lender.transport->Connect(Rank(1), reader.transport->LocalAddress()).ok());
    CHECK(reader.transport->Connect(Rank(0), lender.transport->LocalAddress()).ok());
    std::memset(buffer.data(), 7, 5000);
  }
  // Lends once both have spoken.
  std::optional<LentPlace> Lend(std::span<const std::byte> bytes) {
    std::optional<LentPlace> place;
    int passes = 0;
    testing::DrivenUntil(
        [&] {
          place = lender.memory.Lend(Rank(1), bytes, mark);
          return place.has_value() || ++passes > 100;
        },
        [&] {
          lender.scheduler.RunUntilIdle();
          reader.scheduler.RunUntilIdle();
        });
    return place;
  }
  std::string ErrorOf(const LentPlace& place) {
    const auto borrowed = reader.memory.Borrow(Rank(0), place);
    return borrowed.ok() ? "OK" : borrowed.error().message;
  }

  InprocNetwork network{};
  Side lender{network, Rank(0)};
  Side reader{network, Rank(1)};
  Buffer buffer = Buffer::Shared(lender.ledger, MemoryTag::kGrads, 5000);
  const uint32_t mark = *lender.memory.NewMark();
};

TEST_F(LentMemoryTest, IsReadWhereItLies) {
  const auto place = Lend(buffer.bytes().subspan(1001, 300));
  ASSERT_TRUE(place);
  const auto borrowed = reader.memory.Borrow(Rank(0), *place);
  ASSERT_TRUE(borrowed.ok()) << borrowed.error().message;
  ASSERT_EQ(borrowed->bytes.size(), 300u);
  EXPECT_NE(borrowed->bytes.data(), buffer.data() + 1001);
  buffer.data()[1001] = std::byte{9};  // the very memory
  EXPECT_EQ(borrowed->bytes[0], std::byte{9});
  EXPECT_EQ(borrowed->bytes[299], std::byte{7});
  buffer = {};  // its memory has gone, and what is borrowed may still be touched
  EXPECT_EQ(borrowed->bytes[0], std::byte{0});
}

TEST_F(LentMemoryTest, OnlySharedBuffersAreLentAndNoFewBytes) {
  EXPECT_TRUE(Lend(buffer.bytes()));
  EXPECT_FALSE(Lend(buffer.bytes().subspan(0, 99)));
  const Buffer own(lender.ledger, MemoryTag::kGrads, 5000);
  EXPECT_FALSE(Lend(own.bytes()));
  EXPECT_FALSE(Lend({buffer.data() + 4000, 1001})) << "beyond its end";
  EXPECT_EQ(lender.memory.lent_bytes(), 5000);
}

TEST_F(LentMemoryTest, WhoDoesNotFindTheNumberIsLentNothing) {
  int told = 0;
  struct Liar : Actor<Liar, LendingOffer> {
    Liar(LentMemory& m, int& t) : memory(m), told(t) {}
    Status On(LendingOffer offer) {
      ++told;
      offer.number ^= 1;  // as where that process of this host is another one
      memory.Take(offer);
      return {};
    }
    LentMemory& memory;
    int& told;
  };
  reader.router.Register<LendingOffer>(
      kActor,
      reader.scheduler.Spawn<Liar>({.name = "liar"}, std::ref(reader.memory), std::ref(told)));
  EXPECT_FALSE(Lend(buffer.bytes()));
  EXPECT_EQ(told, 1) << "asked once";
  EXPECT_NE(ErrorOf({.buffer = 1, .buffer_bytes = 5000, .num_bytes = 100, .mark = mark}), "OK");
}

TEST_F(LentMemoryTest, APlaceThatIsNoneIsAnErrorAndNotTouched) {
  const auto place = Lend(buffer.bytes());
  ASSERT_TRUE(place);
  EXPECT_EQ(ErrorOf(*place), "OK");
  const auto with = [&](auto change) {
    LentPlace changed = *place;
    change(changed);
    return ErrorOf(changed);
  };
  EXPECT_EQ(with([](LentPlace& p) { p.offset = 1; }),
            "rank 0 lends 5000 bytes at 1 of a buffer of 5000");
  EXPECT_NE(with([](LentPlace& p) { p.offset = -1; }), "OK");
  EXPECT_NE(with([](LentPlace& p) { p.num_bytes = -1; }), "OK");
  EXPECT_NE(with([](LentPlace& p) { p.offset = INT64_MAX; }), "OK");
  EXPECT_NE(with([](LentPlace& p) { p.mark = 0; }), "OK");
  EXPECT_NE(with([](LentPlace& p) { p.mark = 4096; }), "OK");
  EXPECT_EQ(with([](LentPlace& p) { p.buffer_bytes = 6000; }),
            "rank 0 lends a buffer of 6000 bytes that has 5000");
  EXPECT_NE(with([](LentPlace& p) {
              p.buffer = 77;
              p.buffer_bytes = INT64_MAX;
            }),
            "OK");
  EXPECT_NE(with([](LentPlace& p) {
              p.buffer = 78;
              p.descriptor = 0;  // no memory
            }),
            "OK");
  EXPECT_NE(reader.memory.Borrow(Rank(5), *place).ok(), true) << "of nobody";
}

TEST_F(LentMemoryTest, WhatIsKeptMappedIsBounded) {
  for (size_t i = 0; i < LentMemory::kMaxMapped + 10; ++i) {
    const Buffer one = Buffer::Shared(lender.ledger, MemoryTag::kGrads, 200);
    const auto place = Lend(one.bytes());
    ASSERT_TRUE(place);
    EXPECT_EQ(ErrorOf(*place), "OK");
  }
  EXPECT_EQ(reader.memory.num_mapped(), LentMemory::kMaxMapped);
  reader.memory.Forget(Rank(0));
  EXPECT_EQ(reader.memory.num_mapped(), 0u);
}

TEST_F(LentMemoryTest, AReaderSeesWhatWasWithdrawn) {
  const uint32_t other = *lender.memory.NewMark();
  ASSERT_TRUE(Lend(buffer.bytes()));
  EXPECT_FALSE(reader.memory.IsWithdrawn(Rank(0), mark));
  lender.memory.Withdraw(mark);
  EXPECT_TRUE(reader.memory.IsWithdrawn(Rank(0), mark));
  EXPECT_FALSE(reader.memory.IsWithdrawn(Rank(0), other));
}

TEST_F(LentMemoryTest, MarksAreBounded) {
  int num_marks = 1;
  while (lender.memory.NewMark()) ++num_marks;
  EXPECT_EQ(num_marks, 4096 - 8);
}

}  // namespace
}  // namespace troupe
