#include "coordinator/job/init_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "coordinator/job/job_file.h"
#include "runtime/format/safetensors.h"
#include "tests/support/job_folder.h"

namespace troupe::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

ModelConfig SmallModel(bool tied = false) {
  return {.hidden_size = 8,
          .intermediate_size = 16,
          .num_hidden_layers = 2,
          .num_attention_heads = 2,
          .num_key_value_heads = 2,
          .head_dim = 4,
          .vocab_size = 256,
          .tie_word_embeddings = tied};
}

std::vector<TensorSpec> TensorsOf(const ModelConfig& config,
                                  TensorDtype dtype = TensorDtype::kF32) {
  std::vector<TensorSpec> specs;
  const ParameterTable table(config);
  for (const ParameterSpec& parameter : table.parameters()) {
    specs.push_back({parameter.name, dtype, parameter.shape()});
  }
  return specs;
}

void Save(const TemporaryFolder& folder, const std::vector<TensorSpec>& specs, char fill = '\0') {
  auto writer = *SafetensorsWriter::Create(SystemFiles(), folder / "model.safetensors", specs);
  for (size_t i = 0; i < specs.size(); ++i) {
    // Every tensor its own bytes where `fill` is given.
    const char byte = fill == '\0' ? '\0' : static_cast<char>(fill + i);
    ASSERT_TRUE(
        writer.Append(BytesOf(std::string(static_cast<size_t>(TensorBytes(specs[i])), byte))).ok());
  }
  ASSERT_TRUE(writer.Finish().ok());
}

class InitWeightsTest : public ::testing::Test {
 protected:
  InitWeightsFindings Check(const ModelConfig& config = SmallModel(), bool ignore = false) {
    const ParameterTable table(config);
    return CheckInitWeights(SystemFiles(), folder_.path(), &table, ignore);
  }
  // The one error.
  std::string Said(const ModelConfig& config = SmallModel(), bool ignore = false) {
    const auto findings = Check(config, ignore);
    EXPECT_EQ(findings.errors.size(), 1u);
    if (findings.errors.empty()) return "";
    EXPECT_THAT(findings.errors[0].message, StartsWith("model.init_from"));
    return findings.errors[0].message;
  }

  TemporaryFolder folder_;
};

TEST_F(InitWeightsTest, WhatFitsIsGood) {
  for (const TensorDtype dtype : {TensorDtype::kF32, TensorDtype::kBf16, TensorDtype::kF16}) {
    Save(folder_, TensorsOf(SmallModel(), dtype));
    EXPECT_THAT(Check().errors, IsEmpty());
    EXPECT_THAT(Check().warnings, IsEmpty());
  }
}

TEST_F(InitWeightsTest, OtherDtypesAndShapesAreNamed) {
  auto specs = TensorsOf(SmallModel());
  specs[3].dtype = TensorDtype::kF8E4M3;
  Save(folder_, specs);
  EXPECT_THAT(Said(), HasSubstr("self_attn.k_proj.weight has dtype F8_E4M3: save it as F32, BF16"));
  ModelConfig wider = SmallModel();
  wider.intermediate_size = 24;
  Save(folder_, TensorsOf(SmallModel()));
  EXPECT_THAT(Said(wider), AllOf(HasSubstr("gate_proj.weight has shape [16, 8], the model wants"),
                                 HasSubstr("; 5 more tensors do not fit either")));
}

TEST_F(InitWeightsTest, TensorsWithoutAPlaceAreRefusedByNameOrListed) {
  auto specs = TensorsOf(SmallModel());
  specs.push_back({"model.layers.0.mlp.up_proj.bias", TensorDtype::kF32, {16}});
  specs.push_back({"model.layers.1.mlp.up_proj.bias", TensorDtype::kF32, {16}});
  Save(folder_, specs);
  EXPECT_EQ(Said(), "model.init_from = " + folder_.path() +
                        ": the model has no place for 2 of its tensors: "
                        "model.layers.0.mlp.up_proj.bias, model.layers.1.mlp.up_proj.bias: no bias "
                        "is computed; model.ignore_extra_tensors: true leaves them out");
  const auto ignored = Check(SmallModel(), true);
  EXPECT_THAT(ignored.errors, IsEmpty());
  EXPECT_THAT(ignored.warnings, ElementsAre(HasSubstr("up_proj.bias: they are left out")));
}

TEST_F(InitWeightsTest, MoreLayersThanTheConfigSaysAreCounted) {
  ModelConfig deep = SmallModel();
  deep.num_hidden_layers = 4;
  Save(folder_, TensorsOf(deep));
  EXPECT_THAT(Said(), AllOf(HasSubstr("no place for 18 of its tensors: model.layers.2."),
                            HasSubstr(" and 12 more"),
                            HasSubstr("model.num_hidden_layers = 2, and the file has 4")));
}

TEST_F(InitWeightsTest, AnotherHeadBesideTiedEmbeddingsIsRefused) {
  Save(folder_, TensorsOf(SmallModel()), 'a');
  EXPECT_THAT(Said(SmallModel(true)),
              AllOf(HasSubstr("lm_head.weight"), HasSubstr("it differs from the embedding")));
  Save(folder_, TensorsOf(SmallModel()));  // all zero: a copy
  EXPECT_THAT(Check(SmallModel(true)).errors, IsEmpty());
}

TEST_F(InitWeightsTest, FrequenciesOfOlderFilesAreLeftOutAndListed) {
  auto specs = TensorsOf(SmallModel());
  specs.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", TensorDtype::kF32, {2}});
  Save(folder_, specs);
  const auto findings = Check();
  EXPECT_THAT(findings.errors, IsEmpty());
  EXPECT_THAT(findings.warnings,
              ElementsAre(HasSubstr("inv_freq follows from model.rope_theta: it is left out")));
}

TEST_F(InitWeightsTest, AMissingTensorNamesTheNearest) {
  const auto renamed = [this](const auto& rename) {
    auto specs = TensorsOf(SmallModel());
    for (TensorSpec& spec : specs) spec.name = rename(spec.name);
    Save(folder_, specs);
    return Said();
  };
  for (const std::string prefix : {"_orig_mod.", "module.", "module._orig_mod."}) {
    EXPECT_THAT(renamed([&](const std::string& name) { return prefix + name; }),
                AllOf(HasSubstr("21 tensors are missing, model.embed_tokens.weight first"),
                      HasSubstr("the file calls it " + prefix +
                                "model.embed_tokens.weight, as a "
                                "wrapper")));
  }
  EXPECT_THAT(renamed([](const std::string& name) {
                return name.starts_with("model.") ? name.substr(6) : name;
              }),
              HasSubstr("the file calls it embed_tokens.weight: rename its tensors, or save"));
  EXPECT_THAT(renamed([](const std::string& name) { return "language_model." + name; }),
              HasSubstr("the file calls it language_model.model.embed_tokens.weight: rename"));
  auto specs = TensorsOf(SmallModel());
  specs[2].name = "model.layers.0.self_attn.q_prj.weight";
  Save(folder_, specs);
  EXPECT_THAT(
      Check().errors.front().message,
      HasSubstr("tensor model.layers.0.self_attn.q_proj.weight is missing: the nearest that "
                "the file has is model.layers.0.self_attn.q_prj.weight"));
  Save(folder_, TensorsOf(SmallModel(true)));
  EXPECT_THAT(Said(), HasSubstr("set model.tie_word_embeddings: true"));
}

TEST_F(InitWeightsTest, TheDoorSaysItOfAJob) {
  folder_.Write("config.json", R"({"model_type": "llama", "hidden_size": 8, "vocab_size": 256,
      "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2})");
  folder_.Write("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
  const JobFolder job(
      "data: {train: text.txt}\nbatch: {micro_batch_size: 1, global_batch_size: 4, seq_len: 8}\n"
      "train: {steps: 2}\n");
  const std::string set = "model.init_from=" + folder_.path();
  EXPECT_THAT(job.Errors({set}), AllOf(StartsWith("--set " + set.substr(0, 40)),
                                       HasSubstr("this is a Git-LFS pointer")));
  EXPECT_EQ(job.Errors({set, "checkpoint.resume=/runs/x"}), "") << "it starts from a checkpoint";
  Save(folder_, TensorsOf(SmallModel()));
  EXPECT_EQ(job.Errors({set}), "");
  folder_.Write("config.json", "<!DOCTYPE html><html>");
  EXPECT_THAT(job.Errors({set}), HasSubstr("this is a web page (HTML), not a config.json"));
  EXPECT_THAT(job.Errors({set + "/model.safetensors"}), HasSubstr("give the folder that holds it"));
}

}  // namespace
}  // namespace troupe::testing
