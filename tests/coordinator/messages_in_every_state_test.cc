// Every message that an agent or a rank can send, in every state of a job, twice, from ranks and
// epochs that exist and that do not: the coordinator goes on, the job ends once, and its slots are
// free afterwards.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/coordinator/harness.h"

namespace troupe {
namespace {

using testing::Harness;
using testing::RecordingFollower;
using testing::SmallJob;

// A job of two ranks on two hosts, brought to some state.
struct Scene {
  Harness h{};
  std::vector<HostId> hosts{};
  JobLife* job = nullptr;
  uint64_t epoch = 1;

  explicit Scene(bool checked = false, bool moving = false) {
    for (const char* name : {"a", "b"}) hosts.push_back(h.Join(name, 1));
    proto::JobSpec spec = SmallJob(2);
    if (checked) spec.mutable_eval()->set_check_against("single_worker");
    if (moving) {
      spec.mutable_parallelism()->set_rebalance(true);
      spec.mutable_checkpoint()->set_every(1);
    }
    job = &h.Submitted(spec);
  }
  void Run() {
    h.Begins(*job, 2);
    h.Step(*job, 1, 5.0);
  }
  void Succeed() {
    h.Finishes(*job, 0, {}, false, epoch);
    h.Finishes(*job, 1, {}, false, epoch);
    for (int rank : {1, 0}) h.Exits(*job, rank, 0, 0, epoch);
  }
};

struct NamedState {
  const char* name;
  std::function<std::unique_ptr<Scene>()> reach;
};

std::unique_ptr<Scene> With(const std::function<void(Scene&)>& then, bool checked = false,
                            bool moving = false) {
  auto scene = std::make_unique<Scene>(checked, moving);
  then(*scene);
  return scene;
}

void FinishToMove(Scene& s) {
  proto::FromRank message;
  message.mutable_finished()->set_checkpoint("/run/checkpoints/step-00000001");
  for (const int layers : {5, 3}) message.mutable_finished()->add_stage_layers(layers);
  s.h.Says(*s.job, 0, message);
  s.h.Finishes(*s.job, 1);
  for (int rank : {0, 1}) s.h.Exits(*s.job, rank, 0);
  s.epoch = 2;
}

const std::vector<NamedState>& States() {
  static const std::vector<NamedState> states = {
      {"starting", [] { return With([](Scene&) {}); }},
      {"one rank has said Hello", [] { return With([](Scene& s) { s.h.Hello(*s.job, 1); }); }},
      {"introduced",
       [] {
         return With([](Scene& s) {
           for (int rank : {0, 1}) s.h.Hello(*s.job, rank);
         });
       }},
      {"running", [] { return With([](Scene& s) { s.Run(); }); }},
      {"stopping",
       [] {
         return With([](Scene& s) {
           s.Run();
           s.job->Cancel({});
         });
       }},
      {"killing",
       [] {
         return With([](Scene& s) {
           s.Run();
           s.job->Cancel({.kill = true});
         });
       }},
      {"a rank has failed",
       [] {
         return With([](Scene& s) {
           s.Run();
           s.h.FinishesWith(*s.job, 1, ErrorCode::kFailed, "loss is not finite");
         });
       }},
      {"a peer is suspected",
       [] {
         return With([](Scene& s) {
           s.Run();
           s.h.FinishesWith(*s.job, 1, ErrorCode::kPeerDown, "rank 0 does not answer");
         });
       }},
      {"draining",
       [] {
         return With([](Scene& s) {
           s.Run();
           s.h.Finishes(*s.job, 0);
         });
       }},
      {"one host is lost",
       [] {
         return With([](Scene& s) {
           s.Run();
           HostGone(s.h.state, s.hosts[1], "cut");
         });
       }},
      {"the run on one worker",
       [] {
         return With(
             [](Scene& s) {
               s.Run();
               s.Succeed();
               s.epoch = 2;
             },
             /*checked=*/true);
       }},
      {"layers have moved",
       [] {
         return With(
             [](Scene& s) {
               s.Run();
               FinishToMove(s);
             },
             /*checked=*/false, /*moving=*/true);
       }},
      {"succeeded",
       [] {
         return With([](Scene& s) {
           s.Run();
           s.Succeed();
         });
       }},
      {"cancelled",
       [] {
         return With([](Scene& s) {
           s.job->Cancel({.kill = true});
           for (int rank : {0, 1}) s.h.Exits(*s.job, rank, 0, 9);
         });
       }},
  };
  return states;
}

// One of each kind that the descriptor has, so that none is forgotten.
std::vector<proto::FromRank> RankMessages() {
  std::vector<proto::FromRank> messages(1);  // the first says nothing
  const auto& type = *proto::FromRank::descriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    proto::FromRank message;
    (void)message.GetReflection()->MutableMessage(&message, type.field(i));
    messages.push_back(message);
  }
  proto::FromRank failed;
  failed.mutable_finished()->set_error_code(1000);
  failed.mutable_finished()->set_error("no such code");
  failed.mutable_finished()->set_lost_peer(std::numeric_limits<int32_t>::max());
  messages.push_back(failed);
  proto::FromRank moves;
  for (const int layers : {-1, 0, 1 << 30}) moves.mutable_finished()->add_stage_layers(layers);
  messages.push_back(moves);
  return messages;
}

std::vector<proto::FromAgent> AgentMessages(uint64_t job, uint64_t epoch, int32_t rank) {
  std::vector<proto::FromAgent> messages;
  for (const proto::FromRank& said : RankMessages()) {
    proto::FromAgent message;
    message.mutable_rank_said()->set_job(job);
    message.mutable_rank_said()->set_epoch(epoch);
    message.mutable_rank_said()->set_rank(rank);
    *message.mutable_rank_said()->mutable_message() = said;
    messages.push_back(message);
  }
  const auto& type = *proto::FromAgent::descriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    proto::FromAgent message;
    auto& body = *message.GetReflection()->MutableMessage(&message, type.field(i));
    const auto& fields = *body.GetDescriptor();
    if (const auto* field = fields.FindFieldByName("job")) {
      body.GetReflection()->SetUInt64(&body, field, job);
    }
    if (const auto* field = fields.FindFieldByName("epoch")) {
      body.GetReflection()->SetUInt64(&body, field, epoch);
    }
    if (const auto* field = fields.FindFieldByName("rank")) {
      body.GetReflection()->SetInt32(&body, field, rank);
    }
    messages.push_back(message);
  }
  proto::FromAgent silent;
  silent.mutable_rank_silent()->set_job(job);
  silent.mutable_rank_silent()->set_epoch(epoch);
  silent.mutable_rank_silent()->set_rank(rank);
  silent.mutable_rank_silent()->set_silent_ms(std::numeric_limits<int64_t>::min());
  messages.push_back(silent);
  silent.mutable_rank_silent()->set_silent_ms(2000);
  messages.push_back(silent);
  return messages;
}

void ExpectEndsOnce(Scene& s, const std::string& what) {
  for (const HostId host : s.hosts) HostGone(s.h.state, host, "the test ends");
  s.h.AdvanceMs(1000);
  ASSERT_TRUE(s.job->ended()) << what;
  int results = 0;
  for (const auto& event : s.h.FollowerOf(*s.job).events) results += event.has_result();
  EXPECT_EQ(results, 1) << what;
  EXPECT_EQ(s.h.FollowerOf(*s.job).Result()->state(), s.job->state()) << what;
  for (const auto& [id, host] : s.h.state.hosts) EXPECT_TRUE(host.used_slots.empty()) << what;
}

TEST(MessagesInEveryState, EachTwiceAndTheJobStillEndsOnce) {
  const std::vector<std::pair<uint64_t, int32_t>> places = {
      {0, 0},  {0, 1},  // the epoch that is current is put in for 0
      {0, -1}, {0, 2}, {0, std::numeric_limits<int32_t>::max()}, {77, 0}};
  for (const NamedState& state : States()) {
    for (const auto& [epoch, rank] : places) {
      const size_t count = AgentMessages(1, 1, rank).size();
      for (size_t i = 0; i < count; ++i) {
        const auto scene = state.reach();
        Scene& s = *scene;
        const proto::FromAgent message =
            AgentMessages(s.job->id(), epoch == 0 ? s.epoch : epoch, rank)[i];
        const std::string what = std::string(state.name) + ", rank " + std::to_string(rank) + ": " +
                                 message.ShortDebugString();
        for (int twice = 0; twice < 2; ++twice) {
          for (const HostId host : s.hosts) AgentSaid(s.h.state, s.h.seams, host, message);
          s.h.scheduler.RunUntilIdle();
        }
        ExpectEndsOnce(s, what);
      }
    }
  }
}

TEST(MessagesInEveryState, WhoeverAsksGetsAnAnswer) {
  for (const NamedState& state : States()) {
    const auto scene = state.reach();
    Scene& s = *scene;
    int answers = 0;
    proto::GetStatusRequest why;
    why.set_job(s.job->id());
    why.set_why(true);
    for (int twice = 0; twice < 2; ++twice) {
      GetStatus(s.h.state, why,
                [&](const Result<proto::GetStatusReply>& reply) { answers += reply.ok(); });
      RecordingFollower late;
      const FollowerId follower = s.job->Follow(&late);
      EXPECT_FALSE(late.events.empty()) << state.name;
      s.job->Unfollow(follower);
    }
    s.h.AdvanceMs(JobLife::kWaitsMs);
    EXPECT_EQ(answers, 2) << state.name;
    for (int twice = 0; twice < 2; ++twice) {
      s.job->Cancel({.preempted = true, .cause = "SIGTERM at the coordinator"});
      s.job->Cancel({.kill = true});
    }
    ExpectEndsOnce(s, state.name);
  }
}

}  // namespace
}  // namespace troupe
