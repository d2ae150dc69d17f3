// A kind of layer that only tests know trains beside decoder layers: its spec, and the one piece
// below. Gradients against central differences; any partition bit-equal; memory as predicted.
#include <gtest/gtest.h>

#include <memory>

#include "actors/model/linear.h"
#include "kernels/rms_norm.h"
#include "tests/support/biased_layer.h"
#include "tests/support/central_differences.h"

namespace troupe {
namespace {

using testing::SmallModel;
using testing::StageChain;

template <typename Real>
void AddToRows(const TensorView& rows, ConstTensorView bias) {
  for (int64_t t = 0; t < rows.rows(); ++t) {
    for (int64_t c = 0; c < rows.row_elements(); ++c) rows.row<Real>(t)[c] += bias.as<Real>()[c];
  }
}

template <typename Real>
void AddColumnSums(const TensorView& sums, ConstTensorView rows) {
  for (int64_t t = 0; t < rows.rows(); ++t) {
    for (int64_t c = 0; c < rows.row_elements(); ++c) sums.as<Real>()[c] += rows.row<Real>(t)[c];
  }
}

class BiasedLayer final : public Layer {
 public:
  explicit BiasedLayer(const UnitSite& site)
      : eps_(site.config.rms_norm_eps),
        norm_(site, "norm.weight"),
        fc_bias_(site, "fc.bias"),
        proj_bias_(site, "proj.bias"),
        fc_(site, site.spec.Product("fc")),
        proj_(site, site.spec.Product("proj")),
        x_(site.Stash("x")),
        n_(site.Stash("n")),
        rstd_(site.Stash("rstd")),
        inner_(site.Stash("inner")),
        dout_(site.Half("dout")),
        delta_(site.Workspace("delta")) {}

  ResidualStart Input(const Pass& pass) const override {
    return {.x = x_.In(pass.stash),
            .y = n_.In(pass.stash),
            .rstd = rstd_.In(pass.stash),
            .weight = norm_.weight(),
            .eps = eps_};
  }
  Task<Status> Forward(const Pass& pass) const override {
    const TensorView inner = inner_.In(pass.stash);
    const TensorView delta = delta_.In(pass.workspace);
    fc_.Forward(pass, inner, n_.In(pass.stash));
    AddBias(inner, fc_bias_);
    proj_.Forward(pass, delta, inner);
    AddBias(delta, proj_bias_);
    co_return Status{};
  }
  ResidualEnd Output(const Pass& pass) const override {
    return {.x = x_.In(pass.stash), .delta = delta_.In(pass.workspace)};
  }
  Task<Status> BackwardInput(const Pass& pass, ConstTensorView dy, TensorView dx) const override {
    const TensorView dout = dout_.In(pass);
    const TensorView dn = delta_.In(pass.workspace);
    SumBias(pass, dy, proj_bias_);
    proj_.InputGrad(pass, dout, dy);
    SumBias(pass, dout, fc_bias_);
    fc_.InputGrad(pass, dn, dout);
    RmsNormBackward(pass.exec, {.dx = dx,
                                .dweight = norm_.GradientTarget(pass),
                                .dy = dn,
                                .x = x_.In(pass.stash),
                                .rstd = rstd_.In(pass.stash),
                                .weight = norm_.weight(),
                                .residual = dy});
    co_return Status{};
  }
  int num_weight_parts() const override { return 2; }
  Task<Status> BackwardWeight(const Pass& pass, WeightParts parts,
                              ConstTensorView dy) const override {
    for (int part = parts.first; part < parts.end; ++part) {
      if (part == 0) {
        proj_.WeightGrad(pass, dy, inner_.In(pass.stash));
      } else {
        fc_.WeightGrad(pass, dout_.In(pass), n_.In(pass.stash));
      }
    }
    co_return Status{};
  }

 private:
  static void AddBias(const TensorView& rows, const VectorWeight& bias) {
    if (rows.dtype() == DType::kFloat64) return AddToRows<double>(rows, bias.weight());
    AddToRows<float>(rows, bias.weight());
  }
  static void SumBias(const Pass& pass, ConstTensorView rows, const VectorWeight& bias) {
    const TensorView sums = bias.GradientTarget(pass);
    if (rows.dtype() == DType::kFloat64) return AddColumnSums<double>(sums, rows);
    AddColumnSums<float>(sums, rows);
  }

  double eps_;
  VectorWeight norm_, fc_bias_, proj_bias_;
  Linear fc_, proj_;
  TensorSlot x_, n_, rstd_, inner_;
  HalfSlot dout_;
  TensorSlot delta_;
};

SmallModel Mixed(DType dtype) {
  SmallModel model;
  model.dtype = dtype;
  model.spec = testing::MixedModel(model.config);
  model.new_layer = [](const UnitSite& site) -> std::unique_ptr<Layer> {
    if (site.spec.kind == testing::kBiasedKind) return std::make_unique<BiasedLayer>(site);
    return NewLayer(site);
  };
  return model;
}

TEST(LayerKind, GradientsAgreeWithCentralDifferences) {
  testing::ExpectGradientsOfCentralDifferences(Mixed(DType::kFloat64));
}

TEST(LayerKind, AnyPartitionComputesWhatOneStageComputes) {
  const auto train = [](int num_stages, bool halves, int num_parts) {
    SmallModel model = Mixed(DType::kFloat32);
    model.num_stages = num_stages;
    model.halves = halves;
    StageChain chain(model);
    std::string bytes;
    for (int step = 1; step <= 2; ++step) {
      chain.RunStep(num_parts);
      bytes += chain.GradientBytes();
      chain.Update({.lr = 0.01, .grad_factor = 0.01, .step = step});
    }
    return bytes + chain.WeightBytes();
  };
  const std::string one = train(1, false, 1);
  for (const int num_stages : {1, 2, 3, 4}) {
    EXPECT_EQ(train(num_stages, false, 1), one) << num_stages;
    EXPECT_EQ(train(num_stages, true, 1), one) << num_stages;
    EXPECT_EQ(train(num_stages, true, 3), one) << num_stages;
  }
}

TEST(LayerKind, MemoryIsWhatTheModelPredicts) {
  SmallModel model = Mixed(DType::kFloat32);
  model.num_stages = 2;
  model.halves = true;
  StageChain chain(model);
  chain.RunStep();
  for (size_t i = 0; i < chain.num_stages(); ++i) {
    const MemoryPrediction predicted = PredictMemory(
        chain.table(), {.shape = chain.stage(i).options().shape, .isa = ThisVectorIsa()});
    const auto used = chain.ledger(i).Snapshot().peak_bytes;
    for (const MemoryTag tag :
         {MemoryTag::kParams, MemoryTag::kGrads, MemoryTag::kActivations, MemoryTag::kWorkspace}) {
      EXPECT_EQ(used[static_cast<size_t>(tag)], predicted[static_cast<size_t>(tag)])
          << MemoryTagName(tag) << " of stage " << i;
    }
  }
}

}  // namespace
}  // namespace troupe
