#include "coordinator/decided_orders.h"

#include <fmt/format.h>

#include <utility>

#include "actors/plan/job_orders.h"

namespace troupe {

Status DecidedOrders::Decide(const proto::JobSpec& spec, const std::vector<proto::Hello>& hellos) {
  if (!MeasuresCosts(spec)) return {};
  std::vector<ModelCosts> costs;
  std::vector<std::string> hardware;
  for (const proto::Hello& hello : hellos) {
    costs.push_back(FromProto(hello.costs()));
    hardware.push_back(hello.cpu());
  }
  costs_ = LeastOfAlike(costs, hardware);
  if (!orders_.empty() || !ChoosesSchedule(spec.parallelism())) return {};
  ASSIGN_OR_RETURN(JobOrders decided, DecideOrders(spec, costs_));
  orders_ = std::move(decided.orders);
  reason_ = fmt::format("schedule auto: {}", decided.reason);
  return {};
}

void DecidedOrders::Move(const proto::JobSpec& spec, const std::vector<int>& stage_layers) {
  if (orders_.empty()) orders_ = {spec.parallelism()};
  for (proto::Parallelism& order : orders_) {
    order.mutable_stage_layers()->Assign(stage_layers.begin(), stage_layers.end());
  }
  reason_.clear();
}

void DecidedOrders::WriteTo(proto::Peers& peers) const {
  peers.mutable_orders()->Assign(orders_.begin(), orders_.end());
  peers.set_reason(reason_);
  for (const ModelCosts& of_rank : costs_) *peers.add_costs() = ToProto(of_rank);
}

}  // namespace troupe
