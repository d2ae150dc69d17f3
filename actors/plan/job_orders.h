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

// The memory limit of `auto`: activation_limit, or DefaultActivationLimit. Keys that the choice
// itself sets (executor, activation_slack, weight_parts, virtual_stages) are refused beside `auto`
// by name. `costs` as CostsOfRank takes them.
Result<JobOrders> DecideOrders(const proto::JobSpec& spec, std::span<const ModelCosts> costs);

// The same with costs by FLOPs on equal ranks: what is known before anything has run.
Result<JobOrders> DecideOrders(const proto::JobSpec& spec);

}  // namespace troupe
