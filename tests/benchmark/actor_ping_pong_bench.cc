// In-process messages through the public actor API against CAF, one thread each. Ours pays for
// everything that a training message pays for: typed handlers, bounded mailboxes, a wait record
// with a deadline around every message under way, and a span for every handler.
#include <memory>
#include <utility>

#ifdef TROUPE_HAS_CAF
#include <caf/all.hpp>
#endif

#include "runtime/actor/actor.h"
#include "tests/benchmark/bench.h"

namespace troupe {
namespace {

constexpr int kMessages = 400'000;  // a sample; half of them pings

struct Ping;
struct Pong {
  int number;
};
struct Ping {
  int number;
};

class PongActor : public Actor<PongActor, Ping> {
 public:
  explicit PongActor(std::shared_ptr<ActorRef<Pong>> ping) : ping_(std::move(ping)) {}
  Status On(Ping ping) { return ping_->Send(Pong{ping.number}); }

 private:
  std::shared_ptr<ActorRef<Pong>> ping_;
};

class PingActor : public Actor<PingActor, Pong> {
 public:
  PingActor(ActorRef<Ping> pong, int rounds) : pong_(pong), rounds_(rounds) {}
  Status OnStart() override { return SendPing(rounds_); }
  Status On(Pong pong) {
    wait_.Reset();
    if (pong.number == 0) return {};
    return SendPing(pong.number - 1);
  }

 private:
  Status SendPing(int number) {
    wait_ = context().BeginWait(
        {.waiter = "ping", .owed = "pong", .from = "pong", .deadline_ms = 10'000});
    return pong_.Send(Ping{number});
  }
  ActorRef<Ping> pong_;
  const int rounds_;
  WaitHandle wait_;
};

double OurNsPerMessage() {
  Scheduler scheduler;
  auto ping_slot = std::make_shared<ActorRef<Pong>>();
  auto pong = scheduler.Spawn<PongActor>({.name = "pong"}, ping_slot);
  *ping_slot = scheduler.Spawn<PingActor>({.name = "ping"}, pong, kMessages / 2 - 1);
  const double start_ns = bench::ProcessCpuNs();
  scheduler.RunUntilIdle();
  const double spent_ns = bench::ProcessCpuNs() - start_ns;
  CHECK(scheduler.counters().messages == kMessages, "{}", scheduler.counters().messages);
  return spent_ns / kMessages;
}

#ifdef TROUPE_HAS_CAF

caf::behavior CafPong(caf::event_based_actor* self) {
  return {[self](caf::put_atom, int number) {
    self->send(caf::actor_cast<caf::actor>(self->current_sender()), caf::ok_atom_v, number);
  }};
}

caf::behavior CafPing(caf::event_based_actor* self, caf::actor pong, int rounds) {
  self->send(pong, caf::put_atom_v, rounds);
  return {[self, pong](caf::ok_atom, int number) {
    if (number == 0) {
      self->send_exit(pong, caf::exit_reason::user_shutdown);
      self->quit();
    } else {
      self->send(pong, caf::put_atom_v, number - 1);
    }
  }};
}

double CafNsPerMessage() {
  caf::actor_system_config config;
  config.set("scheduler.max-threads", size_t{1});
  caf::actor_system system(config);
  const double start_ns = bench::ProcessCpuNs();
  auto pong = system.spawn(CafPong);
  system.spawn(CafPing, pong, kMessages / 2 - 1);
  pong = nullptr;
  system.await_all_actors_done();
  return (bench::ProcessCpuNs() - start_ns) / kMessages;
}

#endif

TROUPE_BENCHMARK(ActorPingPong) {
  const bench::Comparison what{.name = "actor_ping_pong/1_thread",
                               .unit = "CPU ns/message",
                               .peer_name = "CAF 0.17",
                               .goal = 5};
#ifdef TROUPE_HAS_CAF
  bench.Compare(what, OurNsPerMessage, CafNsPerMessage);
#else
  bench.Measure(what, OurNsPerMessage, "CAF is not installed (libcaf-dev)");
#endif
}

}  // namespace
}  // namespace troupe
