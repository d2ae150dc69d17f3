// RunPictures: gathers what a run's pictures are drawn from and draws them: loss over steps, memory
// over time by tag, and the newest whole step's schedule, measured over planned. Owned by the run
// directory. Pure; one thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "actors/plan/job_plan.h"
#include "proto/worker.pb.h"
#include "runtime/format/svg_chart.h"

namespace troupe {

class RunPictures {
 public:
  static constexpr size_t kMemorySamplesMax = 4096;
  static constexpr size_t kStepsGatheredMax = 8;
  static constexpr int kRanksDrawnMax = 512;

  // `isa` tells which rank needs most; what each needs is in its own reports.
  RunPictures(std::string job_name, const JobPlan& plan, VectorIsa isa);

  void AddLoss(int64_t step, double loss);
  void AddValidationLoss(int64_t step, double loss);
  void AddMemory(int32_t rank, double seconds, const proto::MemoryReport& report);
  // Spans other than a training step's compute actions are passed over. Times on one axis.
  void AddSpan(int32_t rank, const proto::Span& span);

  // SVG text; empty while there is nothing to draw.
  std::string LossSvg() const;
  std::string MemorySvg() const;
  std::string ScheduleSvg() const;
  // The newest whole step's costs in milliseconds, as runtime/format/costs_file.h has them.
  std::string CostsJson() const;

  int64_t drawn_step() const { return whole_step_; }

 private:
  // A step's bars until every rank has told all of its actions.
  struct Gathering {
    Timeline timeline{};
    std::vector<size_t> missing{};  // per rank
    size_t ranks_missing = 0;
  };
  Gathering& GatheringOf(int64_t step);

  const std::string job_name_;
  const Schedule schedule_;
  const ExecutionPolicy policy_;
  const int32_t fullest_rank_;  // by prediction; its memory is the one drawn
  ChartSeries loss_{};
  ChartSeries validation_loss_{};
  StackedData memory_{};
  double memory_predicted_ = 0;               // bytes, all tags
  std::map<int64_t, Gathering> gathering_{};  // step → bars, the newest few
  Timeline whole_{};
  int64_t whole_step_ = 0;
};

// Mean CPU time of every stage's actions in a measured step, of a weight gradient's parts together:
// what the plan's panel is simulated from.
CostModel MeasuredCosts(const Timeline& measured, int num_stages);

}  // namespace troupe
