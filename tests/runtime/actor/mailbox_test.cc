#include "runtime/actor/mailbox.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

#include "runtime/actor/actor.h"
#include "runtime/actor/await.h"
#include "runtime/sim/virtual_clock.h"

namespace troupe {
namespace {

struct Sample {
  int number = 0;
  std::shared_ptr<int> held{};  // shows that a dropped message is freed
};
struct Rest {};

class Collector : public Actor<Collector, Sample, Rest> {
 public:
  Collector(std::vector<int>& got, int64_t& dropped) : got_(got), dropped_(dropped) {}
  Status On(Sample sample) {
    got_.push_back(sample.number);
    dropped_ = context().num_dropped();
    return {};
  }
  Task<Status> On(Rest) {
    co_await Sleep(10);
    co_return Status{};
  }

 private:
  std::vector<int>& got_;
  int64_t& dropped_;
};

struct MailboxTest : ::testing::Test {
  Collector::SelfRef Spawn(Overflow overflow) {
    return scheduler.Spawn<Collector>(
        {.name = "collector", .mailbox_bound = 4, .overflow = overflow}, got, dropped);
  }
  std::vector<int> got{};
  int64_t dropped = 0;
  VirtualClock clock{};
  Scheduler scheduler{{.clock = &clock}};
};

TEST_F(MailboxTest, ControlIsRefusedWithTheRemedy) {
  auto collector = Spawn(Overflow::kRefuse);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(collector.Send(Sample{i}).ok());
  const Status refused = collector.Send(Sample{4});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  // On this thread no scheduler runs, so the name belongs to another.
  EXPECT_EQ(refused.error().message,
            "actor: its mailbox is full with 4 messages; wait for answers before sending more");
  scheduler.RunUntilIdle();
  EXPECT_EQ(got, (std::vector<int>{0, 1, 2, 3}));
  EXPECT_TRUE(collector.Send(Sample{5}).ok()) << "places come back";
  scheduler.RunUntilIdle();
  EXPECT_EQ(got.back(), 5);
  EXPECT_EQ(dropped, 0);
}

TEST_F(MailboxTest, TelemetryDropsTheOldestAndCounts) {
  auto collector = Spawn(Overflow::kDropOldest);
  const auto held = std::make_shared<int>(0);
  scheduler.Post([&] {  // on the scheduler's own thread
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(collector.Send(Sample{i, held}).ok());
    EXPECT_EQ(held.use_count(), 5) << "a dropped message was not freed";
  });
  scheduler.RunUntilIdle();
  EXPECT_EQ(got, (std::vector<int>{6, 7, 8, 9}));
  EXPECT_EQ(dropped, 6);
}

TEST_F(MailboxTest, TelemetryOfOtherThreadsIsBoundedAndCountedToo) {
  auto collector = Spawn(Overflow::kDropOldest);
  ASSERT_TRUE(collector.Send(Rest{}).ok());
  scheduler.RunUntilIdle();  // it sleeps; what comes now queues
  std::thread sender([&] {
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(collector.Send(Sample{i}).ok());
  });
  sender.join();
  scheduler.RunUntilIdle();  // four were under way, six were let go at the door
  sender = std::thread([&] {
    for (int i = 10; i < 13; ++i) EXPECT_TRUE(collector.Send(Sample{i}).ok());
  });
  sender.join();
  scheduler.RunUntilIdle();  // three more push out three queued ones
  clock.AdvanceMs(10);
  scheduler.RunUntilIdle();
  EXPECT_EQ(got, (std::vector<int>{3, 10, 11, 12}));
  EXPECT_EQ(dropped, 9);
}

TEST(Mailbox, CountsTravellersAgainstTheBound) {
  Mailbox mailbox;
  mailbox.Reset(2, Overflow::kRefuse);
  EXPECT_TRUE(mailbox.TryReserve());
  EXPECT_TRUE(mailbox.TryReserve());
  EXPECT_FALSE(mailbox.TryReserve());
  EXPECT_FALSE(mailbox.HasRoom());
  mailbox.Unreserve();
  EXPECT_TRUE(mailbox.HasRoom());
  mailbox.Reserve();
  mailbox.Reserve();  // a Down, past the bound
  EXPECT_FALSE(mailbox.HasRoom());
}

}  // namespace
}  // namespace troupe
