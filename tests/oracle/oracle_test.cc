// Ten training steps from a Hugging Face folder against PyTorch: the same weights, samples, AdamW
// and clipping. expected.json was recorded by record_llama.py; where python3 has torch the script
// runs again and we are compared with that too.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "actors/model/stage_model.h"
#include "actors/plan/stage_partition.h"
#include "actors/step_decision.h"
#include "runtime/format/hf_config.h"
#include "runtime/format/safetensors.h"
#include "runtime/format/widen.h"
#include "tests/support/small_model.h"

namespace troupe {
namespace {

using nlohmann::json;

constexpr double kLossTolerance = 1e-4;  // relative
constexpr double kNormTolerance = 1e-4;  // relative

struct StepNumbers {
  double loss = 0;
  double grad_norm = 0;
};

std::string DataFolder(const std::string& name) {
  return std::string(TROUPE_SOURCE_DIR) + "/tests/oracle/data/" + name;
}

json Expected(const std::string& name) {
  auto text = SystemFiles().ReadFile(DataFolder(name) + "/expected.json", 1 << 20);
  CHECK(text.ok(), "{}", text.error().message);
  return json::parse(*text);
}

ModelConfig ConfigOf(const HfConfig& hf) {
  ModelConfig config{.hidden_size = hf.hidden_size,
                     .intermediate_size = hf.intermediate_size,
                     .num_hidden_layers = hf.num_hidden_layers,
                     .num_attention_heads = hf.num_attention_heads,
                     .num_key_value_heads = hf.num_key_value_heads,
                     .head_dim = hf.head_dim,
                     .vocab_size = hf.vocab_size,
                     .max_position_embeddings = hf.max_position_embeddings,
                     .rms_norm_eps = hf.rms_norm_eps,
                     .rope_theta = hf.rope_theta,
                     .tie_word_embeddings = hf.tie_word_embeddings};
  if (hf.rope_scaling) {
    config.rope_scaling = RopeScaling{hf.rope_scaling->factor, hf.rope_scaling->low_freq_factor,
                                      hf.rope_scaling->high_freq_factor,
                                      hf.rope_scaling->original_max_position_embeddings};
  }
  return config;
}

// A model of one stage with the folder's weights.
class Trainee {
 public:
  Trainee(const std::string& folder, const json& training) {
    const auto hf = ReadHfConfig(SystemFiles(), folder + "/config.json");
    CHECK(hf.ok(), "{}", hf.error().message);
    const ModelConfig config = ConfigOf(*hf);
    batch_.micro_batch_size = training["micro_batch_size"];
    batch_.num_microbatches = training["num_microbatches"];
    batch_.seq_len = training["seq_len"];
    batch_.global_batch_size = batch_.micro_batch_size * batch_.num_microbatches;
    table_ = std::make_unique<ParameterTable>(config);
    const auto partition = PartitionStages(config, 1, batch_.seq_len);
    CHECK(partition.ok());
    StageModelOptions options;
    options.shape = {.model = config,
                     .layout = partition->front(),
                     .batch = batch_,
                     .widths = testing::WidthsOf(DType::kFloat32)};
    model_ = std::make_unique<StageModel>(options, *table_, ledger_);
    const auto tensors = SafetensorsFolder::Open(SystemFiles(), folder);
    CHECK(tensors.ok(), "{}", tensors.error().message);
    CHECK(tensors->Names().size() == static_cast<size_t>(table_->size()));
    for (const StageParameter& parameter : model_->parameters().all()) {
      const auto tensor = tensors->Require(parameter.spec->name, parameter.spec->shape());
      CHECK(tensor.ok(), "{}", tensor.error().message);
      CHECK(WidenToFloat32(*tensor, 0,
                           {parameter.weight.as<float>(),
                            static_cast<size_t>(parameter.weight.num_elements())})
                .ok());
    }
    model_->WeightsChanged();
  }

  // Step `step` (from 1) on the next samples of `tokens`, in plain order.
  StepNumbers RunStep(int64_t step, const std::vector<int32_t>& tokens, const json& training) {
    double loss_sum = 0;
    int64_t num_labels = 0;
    for (int32_t m = 0; m < batch_.num_microbatches; ++m) {
      const Microbatch data =
          MicrobatchOf(NextRows(tokens), batch_, testing::kAllFields, PositionsOfSequences(batch_));
      const auto result = *RunStraight(model_->Forward(m, {}, data));
      CHECK(RunStraight(model_->Backward(m, {})).ok());
      loss_sum += result.loss->nll;
      num_labels += result.loss->num_tokens;
    }
    proto::Vote vote;
    for (const proto::NormNode& node : model_->NormNodes()) *vote.add_norm_nodes() = node;
    const auto sum_norm = GradientNorm({&vote, 1}, table_->size());
    CHECK(sum_norm.ok(), "{}", sum_norm.error().message);
    const double mean_norm = *sum_norm / static_cast<double>(num_labels);
    model_->ApplyUpdate(
        {.lr = training["lr"],
         .beta1 = training["betas"][0],
         .beta2 = training["betas"][1],
         .eps = training["eps"],
         .weight_decay = training["weight_decay"],
         .grad_factor = GradientFactor(mean_norm, training["grad_clip"], num_labels),
         .step = step},
        true);
    return {loss_sum / static_cast<double>(num_labels), mean_norm};
  }

 private:
  std::vector<int32_t> NextRows(const std::vector<int32_t>& tokens) {
    std::vector<int32_t> rows;
    for (int64_t row = 0; row < batch_.micro_batch_size; ++row, ++next_sample_) {
      const auto begin = tokens.begin() + next_sample_ * batch_.seq_len;
      rows.insert(rows.end(), begin, begin + batch_.seq_len + 1);
    }
    return rows;
  }

  BatchArithmetic batch_;
  std::unique_ptr<ParameterTable> table_;
  MemoryLedger ledger_;
  std::unique_ptr<StageModel> model_;
  int64_t next_sample_ = 0;
};

std::vector<StepNumbers> Train(const std::string& name) {
  const json expected = Expected(name);
  const json& training = expected["training"];
  const auto tokens = expected["tokens"].get<std::vector<int32_t>>();
  Trainee trainee(DataFolder(name), training);
  std::vector<StepNumbers> steps;
  for (int64_t step = 1; step <= training["steps"].get<int64_t>(); ++step) {
    steps.push_back(trainee.RunStep(step, tokens, training));
  }
  return steps;
}

void ExpectAgreement(const std::vector<StepNumbers>& ours, const json& theirs) {
  ASSERT_EQ(ours.size(), theirs.size());
  ASSERT_EQ(ours.size(), 10u);
  double worst_loss = 0;
  double worst_norm = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    const double loss = theirs[i]["loss"];
    const double norm = theirs[i]["grad_norm"];
    EXPECT_NEAR(ours[i].loss, loss, kLossTolerance * loss) << "step " << i + 1;
    EXPECT_NEAR(ours[i].grad_norm, norm, kNormTolerance * norm) << "step " << i + 1;
    worst_loss = std::max(worst_loss, std::abs(ours[i].loss / loss - 1));
    worst_norm = std::max(worst_norm, std::abs(ours[i].grad_norm / norm - 1));
  }
  std::printf("largest relative difference: loss %.1e, gradient norm %.1e\n", worst_loss,
              worst_norm);
}

// What the script prints with this machine's PyTorch, once a process; null where there is none.
const json& RerunHere() {
  static const json steps = []() -> json {
    if (std::system("python3 -c 'import torch' 2>/dev/null") != 0) return nullptr;
    const std::string command = std::string("python3 '") + TROUPE_SOURCE_DIR +
                                "/tests/oracle/record_llama.py' --rerun '" + DataFolder("") + "'";
    FILE* pipe = ::popen(command.c_str(), "r");
    CHECK(pipe != nullptr, "{}", command);
    std::string output;
    std::array<char, 4096> piece{};
    while (const size_t got = std::fread(piece.data(), 1, piece.size(), pipe)) {
      output.append(piece.data(), got);
    }
    CHECK(::pclose(pipe) == 0, "{}", command);
    return json::parse(output);
  }();
  return steps;
}

class OracleTest : public ::testing::TestWithParam<const char*> {};

TEST_P(OracleTest, TenStepsAgreeWithThoseRecordedFromPyTorch) {
  ExpectAgreement(Train(GetParam()), Expected(GetParam())["steps"]);
}

TEST_P(OracleTest, TenStepsAgreeWithPyTorchHere) {
  const json& steps = RerunHere();
  if (steps.is_null()) GTEST_SKIP() << "python3 has no torch here";
  ExpectAgreement(Train(GetParam()), steps[GetParam()]);
}

INSTANTIATE_TEST_SUITE_P(Models, OracleTest, ::testing::Values("untied", "tied"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace troupe
