// A stage whose arithmetic is time: an action holds its stream as long as the cost model says,
// leaves it for the pauses that the model gives it, and sends as many bytes as it is told. For runs
// of real processes beside the simulator.
#pragma once

#include <cerrno>
#include <cstring>
#include <ctime>
#include <memory>
#include <utility>
#include <vector>

#include "actors/schedule/action_costs.h"
#include "proto/worker.pb.h"
#include "runtime/actor/stream_wait.h"
#include "tests/support/answering_stage.h"
#include "tests/support/in_process_job.h"

namespace troupe::testing {

class TimedStage : public AnsweringStage<TimedStage> {
 public:
  struct Options {
    const std::vector<ActionTimes>& steps;  // from step 1 on
    int64_t message_bytes = 0;              // of an output, at least a stamp's
    MemoryLedger& ledger;
    proto::SpanBatch& spans;  // what has run, by the name of the action; on the actor's thread
  };

  TimedStage(const RankPlace& place, StageId stage, const Options& options)
      : AnsweringStage(place, stage), options_(options) {}

  using AnsweringStage::On;
  Status On(RunAction run) {
    auto done = std::make_shared<ActionDone>(AnswerTo(run));
    const Action action = run.action;
    place().stream.LaunchTask(
        scope_, Work(std::move(run), *done),
        [this, done](const WorkTime& time, Status status) {
          done->time = time;
          done->status = std::move(status);
          Note(*done);
          (void)executor().Send(std::move(*done));
        },
        [this, action](bool waits) {
          (void)executor().Send(ActionWaits{.action = action, .waits = waits});
        });
    return {};
  }

 private:
  // Which output of a step a buffer holds, in its first and last bytes.
  struct Stamp {
    int64_t step = 0;
    int32_t stage = 0;  // that reads it
    int32_t microbatch = 0;
    InputKind kind = InputKind::kActivation;
    bool operator==(const Stamp&) const = default;
  };

  // On the stream's thread. What an output costs to make is part of the first segment's time.
  Task<Status> Work(RunAction run, ActionDone& done) const {
    const ActionTimes& times = options_.steps[static_cast<size_t>(run.step - 1)];
    const ActionPauses pauses = times.Pauses(run.action);
    const int64_t segment_ns = times.Ns(run.action) / (pauses.count + 1);
    const int64_t end_ns = place().scheduler.clock().NowNs() + segment_ns;
    for (const Transfer& input : InputsOf(plan().train, run.action)) CheckInput(run, input);
    if (const auto output = OutputOf(plan().train, run.action)) {
      const Stamp stamp{run.step, output->to_stage.value, output->microbatch.value, output->kind};
      done.output = Buffer(options_.ledger, MemoryTag::kActivations, options_.message_bytes);
      std::memcpy(done.output.data(), &stamp, sizeof(stamp));
      std::memcpy(done.output.bytes().last<sizeof(stamp)>().data(), &stamp, sizeof(stamp));
    }
    HoldUntil(end_ns);
    for (int32_t pause = 0; pause < pauses.count; ++pause) {
      co_await StreamSleep(pauses.each_ns / 1'000'000);
      HoldUntil(place().scheduler.clock().NowNs() + segment_ns);
    }
    co_return Status{};
  }

  static void HoldUntil(int64_t end_ns) {
    const timespec end{.tv_sec = end_ns / 1'000'000'000, .tv_nsec = end_ns % 1'000'000'000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, nullptr) == EINTR) {
    }
  }

  void CheckInput(const RunAction& run, const Transfer& input) const {
    const Stamp expected{run.step, input.to_stage.value, input.microbatch.value, input.kind};
    Stamp first;
    Stamp last;
    const std::span<const std::byte> bytes = run.inputs[static_cast<size_t>(input.input)];
    CHECK(static_cast<int64_t>(bytes.size()) == options_.message_bytes);
    std::memcpy(&first, bytes.data(), sizeof(first));
    std::memcpy(&last, bytes.last<sizeof(last)>().data(), sizeof(last));
    CHECK(first == expected && last == expected, "{} of step {} was given another input",
          ToString(run.action), run.step);
  }

  void Note(const ActionDone& done) const {
    auto* span = options_.spans.add_spans();
    span->set_name(ToString(done.action));
    span->set_step(done.step);
    span->set_start_ns(done.time.start_ns);
    span->set_end_ns(done.time.end_ns);
    span->set_cpu_ns(done.time.cpu_ns);
  }

  const Options options_;
  const StreamScope scope_{place().stream};
};

}  // namespace troupe::testing
