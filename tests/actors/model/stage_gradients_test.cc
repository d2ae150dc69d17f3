// Gradients of the whole model, parameter by parameter, against central differences in float64.
#include <gtest/gtest.h>

#include "tests/support/central_differences.h"

namespace troupe {
namespace {

using testing::ExpectGradientsOfCentralDifferences;
using testing::SmallModel;

TEST(StageGradients, OfAllLayersAgreeWithCentralDifferences) {
  SmallModel model{.dtype = DType::kFloat64};
  ExpectGradientsOfCentralDifferences(model);
}

TEST(StageGradients, WithLlama3ScalingAndOneHeadEach) {
  SmallModel model{.dtype = DType::kFloat64};
  model.config.num_key_value_heads = 4;
  model.config.rope_scaling = RopeScaling{.factor = 4, .original_max_position_embeddings = 8};
  model.config.rope_theta = 30;
  ExpectGradientsOfCentralDifferences(model);
}

// Backward turns each microbatch's heads back by its own positions.
TEST(StageGradients, WithAnyPositions) {
  ExpectGradientsOfCentralDifferences({.dtype = DType::kFloat64, .random_positions = true});
}

// One worker: a change of the weight changes both uses at once.
TEST(StageGradients, OfATiedWeightAreTheSumOfBothUses) {
  SmallModel model{.dtype = DType::kFloat64};
  model.config.tie_word_embeddings = true;
  model.config.num_hidden_layers = 2;
  ExpectGradientsOfCentralDifferences(model);
}

}  // namespace
}  // namespace troupe
