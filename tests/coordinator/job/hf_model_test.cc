#include "coordinator/job/hf_model.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/job_folder.h"

namespace troupe::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::string_view kConfig = R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32",
  "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 4,
  "num_key_value_heads": 2, "vocab_size": 256, "max_position_embeddings": 4096,
  "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": true,
  "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                   "high_freq_factor": 4.0, "original_max_position_embeddings": 1024},
  "bos_token_id": 6, "eos_token_id": [7, 8], "pad_token_id": -1, "someone_elses_key": {"x": 1}})";

constexpr std::string_view kJob = R"(
data: {train: text.txt}
batch: {micro_batch_size: 1, global_batch_size: 4, seq_len: 8}
train: {steps: 20}
)";

std::string JobWith(std::string_view model) { return fmt::format("{}model: {}\n", kJob, model); }

TEST(HfModelTest, TheFileFillsWhatTheJobLeavesOpen) {
  const JobFolder small(JobWith("{config: config.json, num_hidden_layers: 2, rope_theta: 1.0e4}"));
  small.folder.Write("config.json", kConfig);
  const auto job = small.Load();
  ASSERT_TRUE(job.ok()) << job.error().message;
  const proto::Model& model = job->spec.model();
  EXPECT_EQ(model.hidden_size(), 32);
  EXPECT_EQ(model.num_hidden_layers(), 2) << "the job's own keys win";
  EXPECT_EQ(model.rope_theta(), 1e4);
  EXPECT_EQ(model.head_dim(), 8);
  EXPECT_EQ(model.max_position_embeddings(), 4096);
  EXPECT_TRUE(model.tie_word_embeddings());
  EXPECT_EQ(model.rope_scaling().factor(), 8.0);
  EXPECT_THAT(model.eos_token_id(), ElementsAre(7, 8));
  EXPECT_EQ(job->provenance.at("model.hidden_size").source, "model.config");
  EXPECT_EQ(job->provenance.at("model.num_hidden_layers").source, "file");
  EXPECT_EQ(job->provenance.at("model.head_dim").source, "default");
}

TEST(HfModelTest, TokenIdsOfTheFileStayWhereTheyAreTokens) {
  const JobFolder small(JobWith("{config: config.json}"));
  small.folder.Write("config.json", kConfig);
  const auto job = small.Load();
  ASSERT_TRUE(job.ok()) << job.error().message;
  EXPECT_EQ(job->spec.model().bos_token_id(), 6);
  EXPECT_THAT(job->spec.model().eos_token_id(), ElementsAre(7, 8));
  EXPECT_FALSE(job->spec.model().has_pad_token_id()) << "-1 is how some files say none";
  EXPECT_EQ(job->provenance.at("model.bos_token_id").source, "model.config");
  const auto own = small.Load({"model.pad_token_id=3", "model.eos_token_id=[9]"});
  ASSERT_TRUE(own.ok()) << own.error().message;
  EXPECT_EQ(own->spec.model().pad_token_id(), 3);
  EXPECT_THAT(own->spec.model().eos_token_id(), ElementsAre(9));
  EXPECT_THAT(small.Errors({"model.pad_token_id=256"}), HasSubstr("model.pad_token_id = 256: use"));
  // A smaller vocabulary than the file's.
  std::string larger(kConfig);
  larger.replace(larger.find("\"vocab_size\": 256"), 17, "\"vocab_size\": 512");
  larger.replace(larger.find("[7, 8]"), 6, "[7, 300]");
  small.folder.Write("config.json", larger);
  EXPECT_THAT(small.Load()->spec.model().eos_token_id(), ElementsAre(7, 300));
  const auto smaller = small.Load({"model.vocab_size=256"});
  ASSERT_TRUE(smaller.ok()) << smaller.error().message;
  EXPECT_THAT(smaller->spec.model().eos_token_id(), ElementsAre(7));
}

TEST(HfModelTest, AFolderToStartFromHasItsOwnConfig) {
  const JobFolder small(JobWith("{init_from: .}"));
  small.folder.Write("config.json", kConfig);
  const auto job = small.Load({"checkpoint.resume=/runs/x"});  // whose weights are taken
  ASSERT_TRUE(job.ok()) << job.error().message;
  EXPECT_EQ(job->spec.model().num_hidden_layers(), 6);
  EXPECT_EQ(job->provenance.at("model.num_hidden_layers").source, "model.init_from");
}

TEST(HfModelTest, AKeyOfTheFileIsPlacedThere) {
  const JobFolder small(JobWith("{config: config.json, head_dim: 7}"));
  const std::string config =
      small.folder.Write("config.json", R"({"hidden_size": 32, "vocab_size": 256,
      "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
      "num_key_value_heads": 3})");
  EXPECT_THAT(small.Errors(),
              HasSubstr(config + ": model.num_key_value_heads = 3 does not divide"));
  EXPECT_THAT(small.Errors(), HasSubstr(small.path + ":5:40: model.head_dim = 7 is odd"));
}

TEST(HfModelTest, AMissingOrBrokenFileIsOneSentence) {
  const JobFolder missing(JobWith("{config: nowhere.json}"));
  EXPECT_THAT(missing.Errors(), HasSubstr(missing.path + ":5:17: model.config: "));
  EXPECT_THAT(missing.Errors(), HasSubstr("nowhere.json"));
  const JobFolder broken(JobWith("{config: config.json}"));
  broken.folder.Write("config.json", "{\"hidden_size\": \"many\"}");
  EXPECT_THAT(broken.Errors(), HasSubstr("hidden_size"));
  broken.folder.Write("config.json", "not json");
  EXPECT_THAT(broken.Errors(), HasSubstr("config.json"));
}

}  // namespace
}  // namespace troupe::testing
