// Gradients of a small model, parameter by parameter, against central differences in float64.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/small_model.h"

namespace troupe::testing {

inline double LossAt(StageChain& chain, const SmallModel& model) {
  double loss = 0;
  for (int32_t m = 0; m < model.batch.num_microbatches; ++m) loss += chain.Evaluate(m);
  return loss;
}

// Every parameter: a few elements spread over it, and all of a small one.
inline void ExpectGradientsOfCentralDifferences(const SmallModel& model) {
  StageChain chain(model);
  chain.RunStep();
  constexpr double kStep = 1e-5;
  for (int index = 0; index < chain.table().size(); ++index) {
    const auto [stage, parameter] = chain.Owner(index);
    const ConstTensorView gradient = stage->Gradient(*parameter);
    const int64_t elements = gradient.num_elements();
    for (int64_t i = 0; i < elements; i += std::max<int64_t>(1, elements / 7)) {
      double& weight = parameter->weight.Flat().as<double>()[i];
      const double before = weight;
      double losses[2];
      for (const int side : {0, 1}) {
        weight = before + (side == 0 ? -kStep : kStep);
        stage->WeightsChanged();
        losses[side] = LossAt(chain, model);
      }
      weight = before;
      stage->WeightsChanged();
      const double expected = (losses[1] - losses[0]) / (2 * kStep);
      EXPECT_NEAR(gradient.as<double>()[i], expected, 1e-6 * (1 + std::abs(expected)))
          << parameter->spec->name << " element " << i;
    }
  }
}

}  // namespace troupe::testing
