// A layer that needs another rank in its middle: a decoder layer whose result, and whose input's
// gradient, are sums over the ranks along tp of equal shares. Halves are exact, so two members
// compute, bit for bit, what one computes alone.
#pragma once

#include <memory>

#include "actors/model/layer.h"
#include "runtime/collective/group.h"

namespace troupe::testing {

class WaitingLayer final : public Layer {
 public:
  explicit WaitingLayer(const UnitSite& site)
      : alone_(troupe::NewLayer(site)), delta_(site.Workspace("delta")) {}

  static std::unique_ptr<Layer> New(const UnitSite& site) {
    return std::make_unique<WaitingLayer>(site);
  }

  void WriteConstants(std::byte* shared) const override { alone_->WriteConstants(shared); }
  ResidualStart Input(const Pass& pass) const override { return alone_->Input(pass); }
  ResidualEnd Output(const Pass& pass) const override { return alone_->Output(pass); }
  Task<Status> Forward(const Pass& pass) const override {
    CO_RETURN_IF_ERROR(co_await alone_->Forward(pass));
    co_return co_await SumOfShares(pass, delta_.In(pass.workspace), "forward");
  }
  Task<Status> BackwardInput(const Pass& pass, ConstTensorView dy, TensorView dx) const override {
    CO_RETURN_IF_ERROR(co_await alone_->BackwardInput(pass, dy, dx));
    co_return co_await SumOfShares(pass, dx, "backward");
  }
  int num_weight_parts() const override { return alone_->num_weight_parts(); }
  Task<Status> BackwardWeight(const Pass& pass, WeightParts parts,
                              ConstTensorView dy) const override {
    return alone_->BackwardWeight(pass, parts, dy);
  }

 private:
  static Task<Status> SumOfShares(const Pass& pass, TensorView share, std::string_view activity) {
    Group& group = *pass.groups[Axis::kTp];
    const auto members = static_cast<float>(group.size());
    for (int64_t i = 0; i < share.num_elements(); ++i) share.Flat().as<float>()[i] /= members;
    const Elements elements{static_cast<uint8_t>(share.dtype()), share.data(),
                            share.num_elements()};
    const GroupPurpose purpose{.activity = activity, .microbatch = pass.microbatch};
    co_return co_await group.AllReduce(elements, purpose);
  }

  std::unique_ptr<Layer> alone_;
  TensorSlot delta_;
};

}  // namespace troupe::testing
