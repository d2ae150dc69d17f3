// PyTorch's two processes that train what a MeasuredJob trains, by a script that answers as
// torch_parallel_step.py; what they fail with is why nothing is compared.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "tests/benchmark/measured_job.h"
#include "tests/benchmark/torch_process.h"

namespace troupe {

class TorchPeer {
 public:
  TorchPeer(MeasuredJob& job, const testing::SmallModel& model, const std::string& script,
            const std::string& sharding = "")
      : tolerance_(model.dtype == DType::kFloat32 ? 1e-3 : 2e-2) {
    const TorchPython python = FindTorch();
    failure_ = python.why_none;
    if (!failure_.empty()) return;
    process_ = std::make_unique<TorchProcess>(python.path, script, "");
    nlohmann::json request = TorchRequest(model, job.folder().Write("weights", job.WeightBytes()),
                                          job.folder().Write("rows", job.RowBytes()));
    request["sharding"] = sharding;
    const nlohmann::json ready = process_->Ask(request.dump());
    failure_ = ready.value("failed", "");
    version_ = ready.value("torch", "");
    loss_ = ready.value("loss", 0.0);
  }

  // The milliseconds of a step; 0 where it fails.
  double Sample(int num_steps) {
    if (!failure_.empty()) return 0;
    const nlohmann::json answer = process_->Ask(std::to_string(num_steps));
    failure_ = answer.value("failed", "");
    if (!failure_.empty()) return 0;
    loss_ = answer.value("loss", 0.0);
    num_steps_ += num_steps;
    return 1000 * answer.value("seconds", 0.0);
  }
  // After as many steps of ours, by step. It trains on from sample to sample: nothing once it has
  // gone further than a run of ours does.
  void CompareLoss(const std::vector<double>& ours) {
    if (!failure_.empty() || num_steps_ > std::ssize(ours)) return;
    const double our_loss = ours[static_cast<size_t>(num_steps_ - 1)];
    if (std::abs(loss_ - our_loss) <= tolerance_ * our_loss) return;
    failure_ = fmt::format("its loss of step {} is {}, ours {}", num_steps_, loss_, our_loss);
  }
  const std::string& failure() const { return failure_; }
  const std::string& version() const { return version_; }

 private:
  const double tolerance_;
  std::string failure_;
  std::string version_{};
  std::unique_ptr<TorchProcess> process_{};
  int num_steps_ = 1;
  double loss_ = 0;  // of the last
};

}  // namespace troupe
