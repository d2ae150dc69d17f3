// RunPictures: gathers what a run's pictures are drawn from and draws them: loss over steps, memory
// by tag (memory_picture.h), and the schedule of the step of median time: as planned, replayed with
// the times that this step measured, and measured. Owned by the run directory. Pure; one thread.
#pragma once

#include <cstdint>
#include <string>

#include "actors/plan/job_plan.h"
#include "coordinator/report/measured_steps.h"
#include "coordinator/report/memory_picture.h"
#include "proto/worker.pb.h"
#include "runtime/format/svg_chart.h"

namespace troupe {

// A curve of any length in bounded room: every stride-th point and the last one, the stride doubled
// whenever kPointsMax are reached.
struct LongCurve {
  static constexpr size_t kPointsMax = 16'384;
  void Add(double x, double y);

  ChartSeries series{};

 private:
  int64_t count_ = 0;
  int64_t stride_ = 1;
  bool loose_ = false;  // the last point stands between two strides
};

class RunPictures {
 public:
  // `isa` tells which rank needs most; what each needs is in its own reports.
  RunPictures(std::string job_name, const JobPlan& plan, VectorIsa isa);

  // The ranks run another plan from now on: chosen at their start, or after layers have moved.
  void Replan(const JobPlan& plan, VectorIsa isa);

  void AddLoss(int64_t step, double loss);
  void AddValidationLoss(int64_t step, double loss);
  void AddMemory(int32_t rank, double seconds, const proto::MemoryReport& report) {
    memory_.AddReport(rank, seconds, report);
  }
  void AddStepMemory(int32_t rank, const proto::StepMemory& step) { memory_.AddStep(rank, step); }
  void AddSpan(int32_t rank, const proto::Span& span) { steps_.AddSpan(rank, span); }
  void AddStep(int64_t step, int32_t order, double seconds) {
    steps_.AddStep(step, order, seconds);
  }

  // SVG text; empty while there is nothing to draw.
  std::string LossSvg() const;
  std::string MemorySvg() const { return memory_.Svg(); }
  std::string ScheduleSvg() const;
  // The drawn step's costs in milliseconds, as runtime/format/costs_file.h has them.
  std::string CostsJson() const;
  // The order that it took, as a file that parallelism.schedule_csv takes.
  std::string ScheduleCsv() const;

  int64_t drawn_step() const { return steps_.step(); }

 private:
  const std::string job_name_;
  MeasuredSteps steps_;
  Timeline planned_{};  // as `troupe plan` shows it: by operations
  LongCurve loss_{};
  LongCurve validation_loss_{};
  MemoryPicture memory_;
};

// `planned` stretched so that its work takes as long as that of `measured`.
Timeline AtScaleOf(const Timeline& measured, Timeline planned);

// Mean CPU time of every stage's actions in a measured step, of a weight gradient's parts together:
// what the plan's panel is simulated from.
CostModel MeasuredCosts(const Timeline& measured, int num_stages);

}  // namespace troupe
