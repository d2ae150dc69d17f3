// The host agent with real processes: fake ranks that speak the socket protocol.
#include "coordinator/agent/host_agent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "coordinator/agent/child_rank.h"
#include "runtime/sim/virtual_clock.h"
#include "tests/support/patience.h"

namespace troupe {
namespace {

using testing::DrivenUntil;
using ::testing::HasSubstr;

class HostAgentTest : public ::testing::Test {
 protected:
  HostAgentTest() { Connect(); }
  ~HostAgentTest() override { ::unsetenv("FAKE_RANK_FAULT"); }

  void Connect() {
    agent_.Connected([this](const proto::FromAgent& message) { said_.push_back(message); });
  }
  void Spawn(int32_t rank, const std::string& fault = "") {
    ::setenv("FAKE_RANK_FAULT", fault.c_str(), 1);
    if (fault.empty()) ::unsetenv("FAKE_RANK_FAULT");
    proto::ToAgent command;
    auto* spawn = command.mutable_spawn();
    spawn->set_job(1);
    spawn->set_epoch(1);
    spawn->set_rank(rank);
    spawn->mutable_start()->set_rank(rank);
    spawn->mutable_start()->set_world_size(2);
    spawn->mutable_start()->mutable_spec()->mutable_train()->set_steps(5);
    agent_.OnCommand(command);
  }
  void Tell(int32_t rank, const proto::ToRank& order) {
    proto::ToAgent command;
    command.mutable_tell()->set_job(1);
    command.mutable_tell()->set_epoch(1);
    command.mutable_tell()->set_rank(rank);
    *command.mutable_tell()->mutable_message() = order;
    agent_.OnCommand(command);
  }
  void TellPeersAndBegin(int32_t rank) {
    proto::ToRank order;
    order.mutable_peers();
    Tell(rank, order);
    order.mutable_begin();
    Tell(rank, order);
  }
  // Runs until `done`, or fails.
  template <typename Done>
  void RunUntil(Done done) {
    ASSERT_TRUE(DrivenUntil(done, [this] { scheduler_.RunUntilIdle(); })) << "it never came";
  }
  const proto::FromRank* Last(proto::FromRank::MessageCase kind) const {
    for (auto it = said_.rbegin(); it != said_.rend(); ++it) {
      if (it->rank_said().message().message_case() == kind) return &it->rank_said().message();
    }
    return nullptr;
  }
  const proto::RankExited* Exited() const {
    for (const auto& message : said_) {
      if (message.has_rank_exited()) return &message.rank_exited();
    }
    return nullptr;
  }
  void RunUntilExited() {
    RunUntil([this] { return Exited() != nullptr; });
  }
  static bool IsAlive(pid_t pid) { return ::kill(pid, 0) == 0; }

  std::vector<proto::FromAgent> said_;
  Scheduler scheduler_{{.spin_us = 0}};
  HostAgent agent_{{.name = "a", .slots = 2},
                   {scheduler_, SystemFiles(), ChildRanks(scheduler_, FAKE_RANK)}};
};

TEST_F(HostAgentTest, JoinsFirst) {
  ASSERT_EQ(said_.size(), 1u);
  EXPECT_EQ(said_[0].join().host(), "a");
  EXPECT_EQ(said_[0].join().slots(), 2);
  EXPECT_GT(said_[0].join().cores(), 0);
}

TEST_F(HostAgentTest, CarriesMessagesBothWays) {
  Spawn(0);
  RunUntil([this] { return Last(proto::FromRank::kHello) != nullptr; });
  EXPECT_TRUE(IsAlive(Last(proto::FromRank::kHello)->hello().pid()));
  TellPeersAndBegin(0);
  RunUntil([this] { return Last(proto::FromRank::kFinished) != nullptr; });
  EXPECT_EQ(Last(proto::FromRank::kMetrics)->metrics().step(), 5);
  proto::ToRank order;
  order.mutable_shut_down();
  Tell(0, order);
  RunUntilExited();
  EXPECT_EQ(Exited()->exit_code(), 0);
  EXPECT_EQ(Exited()->signal(), 0);
  EXPECT_EQ(agent_.num_ranks(), 0);
}

TEST_F(HostAgentTest, TheExitIsTheLastWord) {
  Spawn(0, "0:error:1");
  RunUntil([this] { return Last(proto::FromRank::kHello) != nullptr; });
  TellPeersAndBegin(0);
  RunUntilExited();
  EXPECT_NE(Last(proto::FromRank::kFinished), nullptr) << "said just before the exit";
  EXPECT_TRUE(said_.back().has_rank_exited());
}

TEST_F(HostAgentTest, TellsTheSignal) {
  Spawn(0, "0:kill:2");
  RunUntil([this] { return Last(proto::FromRank::kHello) != nullptr; });
  TellPeersAndBegin(0);
  RunUntilExited();
  EXPECT_EQ(Exited()->signal(), SIGKILL);
  EXPECT_EQ(Last(proto::FromRank::kProgress)->progress().step(), 2);
  EXPECT_EQ(Exited()->cause(), "");
}

TEST_F(HostAgentTest, ToldToEndItTellsTheCoordinatorAndItsRanksLiveOn) {
  Spawn(0);
  RunUntil([this] { return Last(proto::FromRank::kHello) != nullptr; });
  const pid_t rank = Last(proto::FromRank::kHello)->hello().pid();
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGTSTP}) ::kill(rank, signal);
  agent_.AskStop("SIGTERM", /*preempted=*/true);
  ASSERT_TRUE(said_.back().has_stop_asked());
  EXPECT_EQ(said_.back().stop_asked().signal(), "SIGTERM");
  EXPECT_TRUE(said_.back().stop_asked().preempted());
  TellPeersAndBegin(0);  // a rank that heeded one of those signals would not train any more
  RunUntil([this] { return Last(proto::FromRank::kFinished) != nullptr; });
  EXPECT_EQ(agent_.num_ranks(), 1);
  // A coordinator that comes back hears it too.
  agent_.Connected([this](const proto::FromAgent& message) { said_.push_back(message); });
  EXPECT_TRUE(said_.back().has_stop_asked());
}

TEST_F(HostAgentTest, CapturesTheLastLines) {
  Spawn(0, "0:exit:1");
  RunUntil([this] { return Last(proto::FromRank::kHello) != nullptr; });
  TellPeersAndBegin(0);
  RunUntilExited();
  EXPECT_EQ(Exited()->exit_code(), 7);
  ASSERT_EQ(Exited()->last_lines_size(), 1);
  EXPECT_EQ(Exited()->last_lines(0), "the last words");
  bool logged = false;
  for (const auto& message : said_) logged |= message.rank_log().lines() == "the last words\n";
  EXPECT_TRUE(logged);
}

TEST_F(HostAgentTest, AHostileLengthEndsTheRank) {
  Spawn(0, "0:hostile:1");
  RunUntil([this] { return Last(proto::FromRank::kHello) != nullptr; });
  TellPeersAndBegin(0);
  RunUntilExited();
  EXPECT_THAT(Exited()->cause(), HasSubstr("a control frame of 4294967295 bytes"));
}

TEST_F(HostAgentTest, AFrameThatIsNoMessageEndsTheRank) {
  Spawn(0, "0:garbage:1");
  RunUntil([this] { return Last(proto::FromRank::kHello) != nullptr; });
  TellPeersAndBegin(0);
  RunUntilExited();
  EXPECT_THAT(Exited()->cause(), HasSubstr("rank 0 of job 1 sent 3 bytes that are no message"));
}

TEST_F(HostAgentTest, KillsAJobThatHangs) {
  Spawn(0);
  Spawn(1, "1:mute");
  RunUntil([this] { return Last(proto::FromRank::kHello) != nullptr; });
  proto::ToAgent other;
  other.mutable_kill()->set_job(1);
  other.mutable_kill()->set_epoch(7);
  agent_.OnCommand(other);
  EXPECT_EQ(agent_.num_ranks(), 2);
  proto::ToAgent kill;
  kill.mutable_kill()->set_job(1);
  kill.mutable_kill()->set_epoch(1);
  agent_.OnCommand(kill);
  RunUntil([this] { return agent_.num_ranks() == 0; });
}

TEST_F(HostAgentTest, WhatAChildOfADeadRankSaysIsNotHeard) {
  Spawn(0, "0:orphan:1");
  RunUntil([this] { return Last(proto::FromRank::kHello) != nullptr; });
  TellPeersAndBegin(0);
  RunUntilExited();
  ASSERT_NE(Last(proto::FromRank::kHappening), nullptr);
  const std::string child = Last(proto::FromRank::kHappening)->happening().text();
  const auto has_gone = [&child] {
    std::string line;
    std::getline(std::ifstream("/proc/" + child + "/stat"), line);
    return line.empty() || line.find(") Z") != std::string::npos;
  };
  RunUntil(has_gone);
  EXPECT_TRUE(said_.back().has_rank_exited());
}

TEST_F(HostAgentTest, WhileTooMuchWaitsWhatARankPrintsIsNotRead) {
  size_t waiting = 0;
  size_t printed = 0;
  agent_.Connected(
      [&](const proto::FromAgent& message) {
        if (!message.has_rank_log()) return said_.push_back(message);
        const size_t num_bytes = message.rank_log().lines().size();
        EXPECT_LE(num_bytes, LogPipe::kTurnBytesMax);
        printed += num_bytes;
        waiting += num_bytes;
      },
      [&] { return waiting; });
  Spawn(0, "0:flood:1");
  RunUntil([this] { return Last(proto::FromRank::kHello) != nullptr; });
  TellPeersAndBegin(0);
  RunUntil([&] { return waiting > HostAgent::kBacklogBytesMax; });
  const size_t before = printed;
  // The rank itself goes on: its last word comes all the same.
  RunUntil([this] { return Last(proto::FromRank::kFinished) != nullptr; });
  EXPECT_LE(printed, before + LogPipe::kTurnBytesMax);
  waiting = 0;
  RunUntil([&] { return printed > before + HostAgent::kBacklogBytesMax / 2; });
}

TEST_F(HostAgentTest, ACoordinatorThatTakesNothingEndsTheRanks) {
  agent_.Connected([this](const proto::FromAgent& message) { said_.push_back(message); },
                   [] { return HostAgent::kWaitingBytesMax + 1; });
  Spawn(0);
  RunUntilExited();
  EXPECT_THAT(Exited()->cause(), HasSubstr("256 MiB wait at host agent a"));
}

TEST_F(HostAgentTest, TheSameRankIsSpawnedOnce) {
  Spawn(0);
  Spawn(0);
  EXPECT_EQ(agent_.num_ranks(), 1);
}

TEST_F(HostAgentTest, ALostConnectionKillsEveryRank) {
  Spawn(0, "0:mute");
  ASSERT_EQ(agent_.num_ranks(), 1);
  agent_.Disconnected();
  RunUntil([this] { return agent_.num_ranks() == 0; });
  EXPECT_EQ(agent_.num_ranks(), 0);
}

TEST_F(HostAgentTest, ASilentCoordinatorKillsEveryRank) {
  proto::ToAgent welcome;
  welcome.mutable_welcome()->set_heartbeat_ms(10);
  welcome.mutable_welcome()->set_dead_after_ms(100);
  agent_.OnCommand(welcome);
  Spawn(0, "0:mute");
  ASSERT_EQ(agent_.num_ranks(), 1);
  RunUntilExited();
  EXPECT_EQ(Exited()->cause(), "host agent a heard nothing from the coordinator for 0.1 s");
}

TEST_F(HostAgentTest, NoMoreRanksThanSlots) {
  for (int32_t rank : {0, 1, 2}) Spawn(rank);
  EXPECT_EQ(agent_.num_ranks(), 2);
  ASSERT_NE(Exited(), nullptr);
  EXPECT_EQ(Exited()->rank(), 2);
  EXPECT_EQ(Exited()->exit_code(), 127);
  EXPECT_THAT(Exited()->last_lines(0), HasSubstr("all 2 slots of host agent a are in use"));
}

// Fake ranks are real processes; the agent's time is the test's.
class SilenceTest : public ::testing::Test {
 protected:
  SilenceTest() {
    agent_.Connected([this](const proto::FromAgent& message) { said_.push_back(message); });
  }
  ~SilenceTest() override {
    ::kill(pid_, SIGCONT);
    ::unsetenv("FAKE_RANK_FAULT");
  }

  void Start() {
    proto::ToAgent command;
    command.mutable_spawn()->set_job(1);
    command.mutable_spawn()->set_epoch(4);
    command.mutable_spawn()->mutable_start()->set_world_size(1);
    agent_.OnCommand(command);
    Await([this] { return pid_ != 0; });
  }
  // In the machine's time: the agent's clock stands still.
  template <typename Done>
  void Await(Done done) {
    const auto drive = [this] {
      scheduler_.RunUntilIdle();
      for (const auto& message : said_) {
        if (message.rank_said().message().has_hello()) {
          pid_ = message.rank_said().message().hello().pid();
        }
      }
    };
    ASSERT_TRUE(DrivenUntil(done, drive)) << "it never came";
  }
  void Stop() {
    ::kill(pid_, SIGSTOP);
    int status = 0;
    ASSERT_EQ(::waitpid(pid_, &status, WUNTRACED), pid_);
    scheduler_.RunUntilIdle();  // what it said before
    said_.clear();
  }
  // Heard from the coordinator meanwhile.
  void AdvanceMs(int64_t ms) {
    for (; ms > 0; ms -= 100) {
      clock_.AdvanceMs(100);
      agent_.OnCommand(proto::ToAgent());
      scheduler_.RunUntilIdle();
    }
  }
  std::vector<proto::RankSilent> Silences() const {
    std::vector<proto::RankSilent> silences;
    for (const auto& message : said_) {
      if (message.has_rank_silent()) silences.push_back(message.rank_silent());
    }
    return silences;
  }

  std::vector<proto::FromAgent> said_{};
  pid_t pid_ = 0;
  VirtualClock clock_;
  Scheduler scheduler_{{.clock = &clock_, .spin_us = 0}};
  HostAgent agent_{{.name = "a", .slots = 2},
                   {scheduler_, SystemFiles(), ChildRanks(scheduler_, FAKE_RANK)}};
};

TEST_F(SilenceTest, AStoppedRankIsToldOfAgainAndAgainAndWhenItSpeaks) {
  Start();
  Stop();
  AdvanceMs(HostAgent::kSilentMs - 600);
  EXPECT_TRUE(Silences().empty());
  AdvanceMs(1200);
  ASSERT_EQ(Silences().size(), 1u);
  EXPECT_EQ(Silences()[0].job(), 1u);
  EXPECT_EQ(Silences()[0].epoch(), 4u);
  EXPECT_GE(Silences()[0].silent_ms(), HostAgent::kSilentMs);
  EXPECT_TRUE(Silences()[0].stopped());
  AdvanceMs(HostAgent::kTellAgainMs + 600);
  ASSERT_EQ(Silences().size(), 2u);
  EXPECT_GE(Silences()[1].silent_ms(), HostAgent::kSilentMs + HostAgent::kTellAgainMs);
  ::kill(pid_, SIGCONT);
  Await([this] { return Silences().size() == 3; });
  EXPECT_EQ(Silences()[2].silent_ms(), 0);
  EXPECT_EQ(agent_.num_ranks(), 1) << "a pause is no death";
  for (const auto& message : said_) EXPECT_FALSE(message.rank_said().message().has_alive());
}

TEST_F(SilenceTest, ARankThatDoesNotGetOnIsNotStopped) {
  ::setenv("FAKE_RANK_FAULT", "0:hang:1", 1);
  Start();
  proto::ToAgent command;
  command.mutable_tell()->set_job(1);
  command.mutable_tell()->set_epoch(4);
  command.mutable_tell()->mutable_message()->mutable_begin();
  agent_.OnCommand(command);
  Await([this] { return said_.back().rank_said().message().has_progress(); });
  AdvanceMs(HostAgent::kSilentMs + 600);
  ASSERT_FALSE(Silences().empty());
  EXPECT_FALSE(Silences()[0].stopped());
}

TEST_F(HostAgentTest, AProgramThatCannotBeRunIsAnExit) {
  HostAgent other({.name = "b", .slots = 1},
                  {scheduler_, SystemFiles(), ChildRanks(scheduler_, "/nowhere/troupe-rank")});
  std::vector<proto::FromAgent> said;
  other.Connected([&](const proto::FromAgent& message) { said.push_back(message); });
  proto::ToAgent command;
  command.mutable_spawn()->set_job(3);
  other.OnCommand(command);
  ASSERT_TRUE(said.back().has_rank_exited());
  EXPECT_EQ(said.back().rank_exited().exit_code(), 127);
  EXPECT_THAT(said.back().rank_exited().last_lines(0), HasSubstr("/nowhere/troupe-rank"));
}

TEST_F(HostAgentTest, NoRankOutlivesTheAgent) {
  pid_t pid = 0;
  {
    HostAgent other({.name = "b", .slots = 1},
                    {scheduler_, SystemFiles(), ChildRanks(scheduler_, FAKE_RANK)});
    other.Connected([&](const proto::FromAgent& message) {
      if (message.rank_said().message().has_hello()) {
        pid = message.rank_said().message().hello().pid();
      }
    });
    proto::ToAgent command;
    command.mutable_spawn()->set_job(1);
    other.OnCommand(command);
    RunUntil([&] { return pid != 0; });
    EXPECT_TRUE(IsAlive(pid));
  }
  EXPECT_FALSE(IsAlive(pid));
}

}  // namespace
}  // namespace troupe
