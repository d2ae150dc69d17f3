// DecidedOrders: what a job's ranks are told to run in place of what their spec says: the choice of
// schedule `auto`, or layers that have moved off a slow rank. Owned by a job's life; one thread.
#pragma once

#include <string>
#include <vector>

#include "actors/plan/model_costs.h"
#include "proto/job.pb.h"
#include "proto/worker.pb.h"
#include "runtime/base/result.h"

namespace troupe {

class DecidedOrders {
 public:
  // From what the ranks measured (their Hellos, by rank), once; later calls keep the orders and
  // take over the costs. Does nothing where the spec asks for no measurements.
  Status Decide(const proto::JobSpec& spec, const std::vector<proto::Hello>& hellos);
  // The same orders with other layers on their stages.
  void Move(const proto::JobSpec& spec, const std::vector<int>& stage_layers);
  void WriteTo(proto::Peers& peers) const;

  // The first runs first (JobOrders). Empty: as the spec says.
  const std::vector<proto::Parallelism>& orders() const { return orders_; }

 private:
  std::vector<proto::Parallelism> orders_{};
  std::string reason_{};  // said once, by rank 0
  std::vector<ModelCosts> costs_{};
};

}  // namespace troupe
