#include "coordinator/report/memory_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

namespace troupe {
namespace {

constexpr int kWidthPx = 960;
constexpr int kRunHeightPx = 420;
constexpr int kStepHeadPx = 100;
constexpr int kPanelHeightPx = 170;
constexpr int kLonePanelHeightPx = 280;

int32_t FullestRank(const JobPlan& plan, VectorIsa isa) {
  int32_t fullest = 0;
  int64_t most = 0;
  for (int32_t rank = 0; rank < plan.mesh.num_ranks(); ++rank) {
    const MemoryPrediction memory = plan.MemoryOf(Rank(rank), isa);
    const int64_t total = std::accumulate(memory.begin(), memory.end(), int64_t{0});
    if (total <= most) continue;
    fullest = rank;
    most = total;
  }
  return fullest;
}

std::string TitleOf(const JobPlan& plan, int32_t rank) {
  const std::vector<StageId> stages = plan.StagesOf(Rank(rank));
  if (stages.size() == 1) return fmt::format("rank {} · stage {}", rank, stages.front());
  if (stages.size() == 2) {
    return fmt::format("rank {} · stages {} and {}", rank, stages.front(), stages.back());
  }
  return fmt::format("rank {} · {} stages", rank, stages.size());
}

double SumOf(const StackedSample& sample) {
  return std::accumulate(sample.values.begin(), sample.values.end(), 0.0);
}

// Half as many samples; of each two the higher stays.
void Thin(std::vector<StackedSample>& samples) {
  size_t kept = 0;
  for (size_t i = 0; i + 1 < samples.size(); i += 2) {
    const size_t higher = SumOf(samples[i]) >= SumOf(samples[i + 1]) ? i : i + 1;
    std::swap(samples[kept++], samples[higher]);
  }
  samples.resize(kept);
}

// Nothing where the message is none of a rank of ours.
std::optional<StackedData> CourseOf(const proto::StepMemory& step) {
  if (step.samples_size() == 0 || step.samples_size() > MemoryPicture::kStepSamplesMax ||
      step.tags_size() != kNumMemoryTags) {
    return std::nullopt;
  }
  StackedData data{.layers = {step.tags().begin(), step.tags().end()}};
  data.around.name = "allocated";
  int64_t last_ns = 0;
  for (const auto& sample : step.samples()) {
    if (sample.used_bytes_size() != step.tags_size() || sample.time_ns() < last_ns ||
        sample.allocated_bytes() < 0 ||
        std::ranges::any_of(sample.used_bytes(), [](int64_t bytes) { return bytes < 0; })) {
      return std::nullopt;
    }
    last_ns = sample.time_ns();
    const double x_ms = static_cast<double>(last_ns) * 1e-6;
    data.samples.push_back(
        {.x = x_ms, .values = {sample.used_bytes().begin(), sample.used_bytes().end()}});
    data.around.points.push_back({.x = x_ms, .y = static_cast<double>(sample.allocated_bytes())});
  }
  data.predicted = {.name = "predicted peak", .dashed = true};
  for (const double x_ms : {0.0, data.samples.back().x}) {
    const auto bytes = static_cast<double>(std::max<int64_t>(0, step.predicted_bytes()));
    data.predicted.points.push_back({.x = x_ms, .y = bytes});
  }
  return data;
}

}  // namespace

void MemoryPicture::Replan(const JobPlan& plan, VectorIsa isa) {
  num_ranks_ = plan.mesh.num_ranks();
  fullest_rank_ = FullestRank(plan, isa);
  gathering_.clear();  // steps may come again
  rank_titles_.clear();
  for (int32_t rank = 0; rank < num_ranks_; ++rank) {
    if (Shows(rank)) rank_titles_[rank] = TitleOf(plan, rank);
  }
}

bool MemoryPicture::Shows(int32_t rank) const {
  return rank >= 0 && rank < num_ranks_ &&
         (num_ranks_ <= kRanksShown || rank < kRanksShown / 2 ||
          rank >= num_ranks_ - kRanksShown / 2);
}

void MemoryPicture::AddReport(int32_t rank, double seconds, const proto::MemoryReport& report) {
  if (rank != fullest_rank_ || report.tags_size() == 0) return;
  if (run_.layers.empty()) {
    for (const auto& tag : report.tags()) run_.layers.push_back(tag.tag());
    run_.layers.emplace_back("other");
  }
  StackedSample sample{.x = seconds};
  run_predicted_ = 0;
  for (const auto& tag : report.tags()) {
    sample.values.push_back(static_cast<double>(tag.current_bytes()));
    run_predicted_ += static_cast<double>(tag.predicted_bytes());
  }
  sample.values.push_back(static_cast<double>(std::max<int64_t>(0, report.other_bytes())));
  if (sample.values.size() != run_.layers.size()) return;
  run_.samples.push_back(std::move(sample));
  if (run_.samples.size() > kRunSamplesMax) Thin(run_.samples);
}

void MemoryPicture::AddStep(int32_t rank, const proto::StepMemory& step) {
  if (!Shows(rank)) return;
  auto course = CourseOf(step);
  if (!course) return;
  StepOfRanks& ranks = gathering_[step.step()];
  ranks[rank] = *std::move(course);
  if (ranks.size() == rank_titles_.size()) {
    drawn_step_ = step.step();
    drawn_ = std::move(ranks);
    gathering_.erase(gathering_.begin(), gathering_.upper_bound(drawn_step_));
  } else if (gathering_.size() > kStepsGathered) {
    gathering_.erase(gathering_.begin());
  }
}

std::string MemoryPicture::StepSvg(int height_px) const {
  std::vector<StackedPanel> panels;
  for (const auto& [rank, data] : drawn_) {
    const auto title = rank_titles_.find(rank);
    panels.push_back(
        {title == rank_titles_.end() ? fmt::format("rank {}", rank) : title->second, data});
  }
  std::string title = fmt::format("{} · memory in use, step {}", job_name_, drawn_step_);
  if (num_ranks_ > kRanksShown) {
    title +=
        fmt::format(", the first {0} and the last {0} of {1} ranks", kRanksShown / 2, num_ranks_);
  }
  return StackedPanels(panels, {.title = std::move(title),
                                .x_label = "time in the step (ms)",
                                .unit = ChartUnit::kBytes,
                                .stepped = true,
                                .width_px = kWidthPx,
                                .height_px = height_px});
}

std::string MemoryPicture::RunSvg(int height_px) const {
  StackedData data = run_;
  data.predicted = {
      .name = "predicted without other",
      .points = {{data.samples.front().x, run_predicted_}, {data.samples.back().x, run_predicted_}},
      .dashed = true};
  const std::string whose = num_ranks_ == 1 ? "memory of the worker"
                                            : fmt::format("memory of rank {}, the fullest of {}",
                                                          fullest_rank_, num_ranks_);
  return StackedAreaChart(data, {.title = fmt::format("{} · {}", job_name_, whose),
                                 .x_label = "time (s)",
                                 .y_label = "memory",
                                 .unit = ChartUnit::kBytes,
                                 .stepped = true,
                                 .width_px = kWidthPx,
                                 .height_px = height_px});
}

std::string MemoryPicture::Svg() const {
  std::vector<ChartPiece> pieces;
  if (!drawn_.empty()) {
    const int num_rows = static_cast<int>(drawn_.size() + 1) / 2;
    const int height_px =
        kStepHeadPx + (drawn_.size() == 1 ? kLonePanelHeightPx : num_rows * kPanelHeightPx);
    pieces.push_back({StepSvg(height_px), height_px});
  }
  if (!run_.samples.empty()) pieces.push_back({RunSvg(kRunHeightPx), kRunHeightPx});
  return pieces.empty() ? "" : ChartColumn(pieces, kWidthPx);
}

}  // namespace troupe
