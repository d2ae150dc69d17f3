#include "runtime/actor/supervision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "runtime/actor/actor.h"
#include "runtime/actor/await.h"
#include "runtime/sim/virtual_clock.h"

namespace troupe {
namespace {

struct Fail {
  ErrorCode code = ErrorCode::kFailed;
};
struct Wait {};
struct Hello {
  int number = 0;
};

class Worker : public Actor<Worker, Fail, Wait, Hello> {
 public:
  static constexpr std::array kNormalEndings = {ErrorCode::kCancelled};

  Worker(std::string label, std::vector<std::string>& log) : label_(std::move(label)), log_(log) {
    log_.push_back(label_ + " starts");
  }
  ~Worker() override { log_.push_back(label_ + " ends"); }

  Status On(Fail fail) { return MakeError(fail.code, "{} failed", label_); }
  Task<Status> On(Wait) {
    co_await Sleep(1'000'000);
    co_return Status{};
  }
  Status On(Hello hello) {
    log_.push_back(label_ + " got " + std::to_string(hello.number));
    return {};
  }

 private:
  const std::string label_;
  std::vector<std::string>& log_;
};

// Spawns children that it names after itself.
class Parent : public Actor<Parent, Fail> {
 public:
  explicit Parent(std::vector<std::string>& log) : log_(log) {}
  ~Parent() override { log_.push_back("parent ends"); }
  Status OnStart() override {
    for (const char* name : {"one", "two"}) {
      children.push_back(context().Spawn<Worker>({.name = name}, name, log_));
    }
    return children[1].Send(Wait{});
  }
  Status On(Fail fail) { return MakeError(fail.code, "parent failed"); }

  std::vector<Worker::SelfRef> children{};

 private:
  std::vector<std::string>& log_;
};

class Supervisor : public Actor<Supervisor, Down> {
 public:
  explicit Supervisor(std::vector<Down>& downs) : downs_(downs) {}
  Status On(Down down) {
    downs_.push_back(std::move(down));
    return {};
  }

 private:
  std::vector<Down>& downs_;
};

struct SupervisionTest : ::testing::Test {
  SupervisionTest() {
    scheduler.SetOnDown([this](const Down& down) { downs.push_back(down); });
  }
  std::vector<std::string> log{};
  std::vector<Down> downs{};
  VirtualClock clock{};
  Scheduler scheduler{{.clock = &clock}};
};

TEST_F(SupervisionTest, AnErrorSendsOneDownAndDropsTheMail) {
  auto worker = scheduler.Spawn<Worker>({.name = "worker"}, "w", log);
  ASSERT_TRUE(worker.Send(Fail{}).ok());
  ASSERT_TRUE(worker.Send(Hello{1}).ok());
  scheduler.RunUntilIdle();
  ASSERT_EQ(downs.size(), 1u);
  EXPECT_EQ(downs[0].name, "worker");
  EXPECT_EQ(downs[0].error.message, "w failed");
  EXPECT_EQ(downs[0].incarnation, worker.incarnation());
  EXPECT_EQ(log, (std::vector<std::string>{"w starts", "w ends"}));
  EXPECT_FALSE(worker.alive());
}

TEST_F(SupervisionTest, NormalEndingsAreQuiet) {
  auto first = scheduler.Spawn<Worker>({.name = "first"}, "first", log);
  auto second = scheduler.Spawn<Worker>({.name = "second"}, "second", log);
  ASSERT_TRUE(first.Send(Fail{ErrorCode::kCancelled}).ok());
  scheduler.RunUntilIdle();
  scheduler.End(second);
  EXPECT_TRUE(downs.empty());
  EXPECT_FALSE(first.alive());
  EXPECT_FALSE(second.alive());
}

TEST_F(SupervisionTest, DownGoesToTheSupervisorThatWasNamed) {
  std::vector<Down> seen;
  auto supervisor = scheduler.Spawn<Supervisor>({.name = "supervisor", .mailbox_bound = 0}, seen);
  auto worker = scheduler.Spawn<Worker>({.name = "worker", .supervisor = supervisor}, "w", log);
  ASSERT_TRUE(worker.Send(Fail{ErrorCode::kIo}).ok());
  scheduler.RunUntilIdle();
  ASSERT_EQ(seen.size(), 1u) << "a full mailbox must not lose a Down";
  EXPECT_EQ(seen[0].error.code, ErrorCode::kIo);
  EXPECT_TRUE(downs.empty());
}

TEST_F(SupervisionTest, ADeadSupervisorLeavesItToTheRoot) {
  std::vector<Down> seen;
  auto supervisor = scheduler.Spawn<Supervisor>({.name = "supervisor"}, seen);
  auto worker = scheduler.Spawn<Worker>({.name = "worker", .supervisor = supervisor}, "w", log);
  scheduler.End(supervisor);
  ASSERT_TRUE(worker.Send(Fail{}).ok());
  scheduler.RunUntilIdle();
  EXPECT_TRUE(seen.empty());
  EXPECT_EQ(downs.size(), 1u);
}

TEST_F(SupervisionTest, ChildrenEndBeforeTheirParentAndQuietly) {
  auto parent = scheduler.Spawn<Parent>({.name = "parent"}, log);
  scheduler.RunUntilIdle();
  ASSERT_TRUE(parent.Send(Fail{}).ok());
  scheduler.RunUntilIdle();
  EXPECT_EQ(log, (std::vector<std::string>{"one starts", "two starts", "two ends", "one ends",
                                           "parent ends"}));
  ASSERT_EQ(downs.size(), 1u);
  EXPECT_EQ(downs[0].name, "parent");
}

TEST_F(SupervisionTest, AChildsErrorReachesTheParentsSupervisor) {
  std::vector<Down> seen;
  auto supervisor = scheduler.Spawn<Supervisor>({.name = "supervisor"}, seen);
  scheduler.Spawn<Parent>({.name = "parent", .supervisor = supervisor}, log);
  auto child = scheduler.Find<Fail>("one");
  ASSERT_TRUE(child.ok());
  ASSERT_TRUE(child->Send(Fail{}).ok());
  scheduler.RunUntilIdle();
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0].name, "one");
  EXPECT_TRUE(scheduler.Find<Fail>("parent").ok()) << "a child's end is not its parent's";
}

class Stillborn : public Actor<Stillborn, Hello> {
 public:
  Status OnStart() override { return MakeError(ErrorCode::kNotFound, "no such file"); }
  Status On(Hello) { return {}; }
};

TEST_F(SupervisionTest, AnActorThatFailsToStartLeavesAStaleReference) {
  auto stillborn = scheduler.Spawn<Stillborn>({.name = "stillborn"});
  ASSERT_EQ(downs.size(), 1u);
  EXPECT_EQ(downs[0].error.message, "no such file");
  auto next = scheduler.Spawn<Worker>({.name = "next"}, "next", log);
  ASSERT_EQ(next.cell(), stillborn.cell());
  EXPECT_FALSE(stillborn.alive());
  EXPECT_FALSE(stillborn.Send(Hello{}).ok()) << "it reached the next actor in the cell";
}

class Quitter : public Actor<Quitter, Hello> {
 public:
  explicit Quitter(std::vector<std::string>& log) : log_(log) {}
  ~Quitter() override { log_.push_back("gone"); }
  Status On(Hello) {
    context().End();
    log_.push_back("still here");  // the handler finishes first
    return {};
  }

 private:
  std::vector<std::string>& log_;
};

TEST_F(SupervisionTest, EndInsideAHandlerWaitsForIt) {
  auto quitter = scheduler.Spawn<Quitter>({.name = "quitter"}, log);
  ASSERT_TRUE(quitter.Send(Hello{}).ok());
  ASSERT_TRUE(quitter.Send(Hello{}).ok());
  scheduler.RunUntilIdle();
  EXPECT_EQ(log, (std::vector<std::string>{"still here", "gone"}));
  EXPECT_TRUE(downs.empty());
}

TEST(Supervision, TheSchedulersEndIsTheEndOfAll) {
  std::vector<std::string> log;
  {
    VirtualClock clock;
    Scheduler scheduler({.clock = &clock});
    scheduler.Spawn<Parent>({.name = "parent"}, log);
    scheduler.RunUntilIdle();  // the second child sleeps
  }
  EXPECT_EQ(log.back(), "parent ends");
  EXPECT_EQ(log.size(), 5u);
}

}  // namespace
}  // namespace troupe
