// Which orders a job may run: the one that its `parallelism` names, or with schedule `auto` the
// ones that simulation with the ranks' costs ranks best. Pure; the coordinator decides once per
// start of the ranks, and every rank plans with what it was told.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "actors/plan/model_costs.h"
#include "proto/job.pb.h"
#include "runtime/base/result.h"

namespace troupe {

struct JobOrders {
  // The first runs until a re-plan takes another. All have the same stages on the same ranks and
  // the same stage_layers, and none is `auto`.
  std::vector<proto::Parallelism> orders{};
  std::string reason{};  // why the first leads; empty where the job names it
};

inline constexpr size_t kOrdersMax = 6;

bool ChoosesSchedule(const proto::Parallelism& parallelism);
// Whether ranks measure what the model's parts take before the job is laid out.
bool MeasuresCosts(const proto::JobSpec& spec);

// What a job may not say beside `auto`, each by name; 0 ranks or microbatches are not known.
// Nothing where the job names its schedule.
void CheckChoice(const proto::Parallelism& parallelism, int num_ranks, int num_microbatches,
                 std::vector<Error>& errors);

// The memory limit of `auto`: activation_limit, or DefaultActivationLimit. Refuses as
// CheckChoice does. `of_ranks` as CostsAlongPipeline takes them.
Result<JobOrders> DecideOrders(const proto::JobSpec& spec, std::span<const ModelCosts> of_ranks);

// The same with costs by FLOPs on equal ranks: what is known before anything has run.
Result<JobOrders> DecideOrders(const proto::JobSpec& spec);

}  // namespace troupe
