// Any pipeline computes what one worker computes: real models through the real executor, stage and
// schedule actors over the inproc transport, bit for bit.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "tests/support/model_job.h"

namespace troupe {
namespace {

using testing::ModelJob;
using testing::Outcome;
using testing::SmallModel;

Schedule Lists(const std::string& name, int num_ranks, int num_microbatches) {
  auto schedule =
      Generate({.name = name, .num_ranks = num_ranks, .num_microbatches = num_microbatches});
  CHECK(schedule.ok(), "{}", schedule.error().message);
  return *schedule;
}

SmallModel Drawn() {
  SmallModel model;
  auto& c = model.config;
  c.num_key_value_heads = *rc::gen::element<int64_t>(1, 2);
  c.num_attention_heads = c.num_key_value_heads * *rc::gen::inRange<int64_t>(1, 4);
  c.head_dim = 2 * *rc::gen::inRange<int64_t>(1, 5);
  c.hidden_size = *rc::gen::inRange<int64_t>(2, 24);
  c.intermediate_size = *rc::gen::inRange<int64_t>(2, 30);
  c.num_hidden_layers = *rc::gen::inRange<int64_t>(1, 7);
  c.vocab_size = *rc::gen::inRange<int64_t>(2, 40);
  c.tie_word_embeddings = *rc::gen::arbitrary<bool>();
  auto& batch = model.batch;
  batch.micro_batch_size = *rc::gen::inRange<int64_t>(1, 3);
  batch.seq_len = *rc::gen::inRange<int64_t>(1, 12);
  batch.gradient_groups = *rc::gen::inRange<int32_t>(1, 3);
  batch.num_microbatches = batch.gradient_groups * *rc::gen::inRange<int32_t>(1, 5);
  batch.global_batch_size = batch.micro_batch_size * batch.num_microbatches;
  model.seed = *rc::gen::inRange<uint64_t>(0, 1000);
  return model;
}

TEST(PipelineParity, AnyPipelineComputesWhatOneWorkerComputes) {
  EXPECT_TRUE(rc::check("losses, gradient norms and weights are bit-equal", [] {
    const SmallModel model = Drawn();
    const int num_microbatches = static_cast<int>(model.batch.num_microbatches);
    const Outcome one = ModelJob(model, Lists("1f1b", 1, num_microbatches)).Run();
    RC_ASSERT(one.losses.size() == static_cast<size_t>(ModelJob::kSteps));
    const int num_ranks = *rc::gen::inRange<int>(
        1, static_cast<int>(std::min<int64_t>(4, model.config.num_hidden_layers)) + 1);
    const auto name = *rc::gen::element<std::string>("1f1b", "gpipe");
    const Outcome many = ModelJob(model, Lists(name, num_ranks, num_microbatches)).Run();
    RC_ASSERT(many.losses == one.losses);
    RC_ASSERT(many.norms == one.norms);
    RC_ASSERT(many.weights == one.weights);
  }));
}

}  // namespace
}  // namespace troupe
