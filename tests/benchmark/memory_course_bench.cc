// What it costs to follow a rank's memory through a step, beside the step: every change a sample,
// and the samples as the message that tells them. One worker, one math thread.
#include <omp.h>

#include "actors/rank_reports.h"
#include "runtime/memory/buffer.h"
#include "tests/benchmark/bench.h"
#include "tests/benchmark/trainee.h"

namespace troupe {
namespace {

// A microbatch takes a stash and gives it back, and a rank in a pipeline makes two outputs of it,
// each of which comes and goes.
void ChangesOfAMicrobatch(MemoryLedger& ledger) {
  ledger.AddIdle(MemoryTag::kActivations, -64);
  for (int output = 0; output < 2; ++output) {
    ledger.Add(MemoryTag::kComm, 64);
    ledger.Remove(MemoryTag::kComm, 64);
  }
  ledger.AddIdle(MemoryTag::kActivations, 64);
}

double FollowedUs(int num_microbatches) {
  constexpr int kSteps = 1000;
  MemoryLedger ledger;
  ledger.Add(MemoryTag::kActivations, 64);
  ledger.AddIdle(MemoryTag::kActivations, 64);
  size_t num_bytes = 0;
  const double start_ns = bench::ProcessCpuNs();
  for (int step = 0; step < kSteps; ++step) {
    ledger.BeginCourse(SystemClock());
    for (int m = 0; m < num_microbatches; ++m) ChangesOfAMicrobatch(ledger);
    num_bytes += ReportStepMemory(step, ledger.EndCourse(), {}).SerializeAsString().size();
  }
  const double spent_us = (bench::ProcessCpuNs() - start_ns) / 1000;
  CHECK(num_bytes > 0);
  return spent_us / kSteps;
}

TROUPE_BENCHMARK(MemoryCourse) {
  omp_set_num_threads(1);
  const TrainingCase tiny = TinyCase();
  Trainee trainee(tiny.model);
  bench.Compare(
      {.name = "memory_course/tiny",
       .unit = "CPU us/step",
       .peer_name = "the step itself",
       .goal = 100},
      [&] { return FollowedUs(tiny.model.batch.num_microbatches); },
      [&] {
        const double start_ns = bench::ProcessCpuNs();
        trainee.Step();
        return (bench::ProcessCpuNs() - start_ns) / 1000;
      });
}

}  // namespace
}  // namespace troupe
