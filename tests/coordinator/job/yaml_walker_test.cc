#include "coordinator/job/yaml_walker.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/job.pb.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Walked {
  proto::JobSpec spec{};
  std::vector<std::string> errors{};
  Provenance provenance{};
  std::set<std::string> unread{};
};

// With the lines that a user is shown.
Walked WithErrors(Walked walked, const std::vector<Finding>& errors) {
  for (const Finding& error : errors) walked.errors.push_back(error.Line());
  return walked;
}

Walked Walk(std::string_view text, ExtraKeys* extra = nullptr) {
  Walked walked;
  std::vector<Finding> errors;
  WalkYaml(text, {"job.yaml", "file", &errors, &walked.provenance, &walked.unread}, walked.spec,
           extra);
  return WithErrors(std::move(walked), errors);
}

Walked WalkSet(std::string_view path, std::string_view value) {
  Walked walked;
  std::vector<Finding> errors;
  WalkOverride(path, value, {"--set", "flag", &errors, &walked.provenance, &walked.unread},
               walked.spec);
  return WithErrors(std::move(walked), errors);
}

TEST(YamlWalkerTest, ReadsEveryTypeOfKey) {
  const Walked walked = Walk(
      "name: a job\n"
      "model: {hidden_size: 64, tie_word_embeddings: true, eos_token_id: [1, 2]}\n"
      "optimizer: {lr: 3.0e-4, betas: [0.9, 0.95]}\n");
  EXPECT_THAT(walked.errors, IsEmpty());
  EXPECT_EQ(walked.spec.name(), "a job");
  EXPECT_EQ(walked.spec.model().hidden_size(), 64);
  EXPECT_TRUE(walked.spec.model().tie_word_embeddings());
  EXPECT_THAT(walked.spec.model().eos_token_id(), ElementsAre(1, 2));
  EXPECT_EQ(walked.spec.optimizer().lr(), 3e-4);
  EXPECT_THAT(walked.spec.optimizer().betas(), ElementsAre(0.9, 0.95));
  EXPECT_EQ(walked.provenance.at("model.hidden_size").source, "file");
  EXPECT_EQ(walked.provenance.at("model.hidden_size").place.Text(), "job.yaml:2:22");
  EXPECT_EQ(walked.provenance.at("optimizer.betas").place.Text(), "job.yaml:3:32");
  EXPECT_FALSE(walked.provenance.contains("model.head_dim"));
}

TEST(YamlWalkerTest, OneValueStandsForAListOfOne) {
  EXPECT_THAT(Walk("model: {eos_token_id: 5}").spec.model().eos_token_id(), ElementsAre(5));
}

TEST(YamlWalkerTest, AnUnknownKeyIsPlacedAndHelpedWith) {
  const Walked near = Walk("name: x\nparalelism:\n  pp: 2\n");
  EXPECT_THAT(near.errors,
              ElementsAre("job.yaml:2:1: there is no key paralelism: did you mean parallelism?"));
  const Walked nested = Walk("batch:\n  micro_batch: 4\n  zzz: 1\n");
  EXPECT_THAT(nested.errors,
              ElementsAre(HasSubstr("job.yaml:2:3: there is no key batch.micro_batch"),
                          HasSubstr("job.yaml:3:3: there is no key batch.zzz: use one of "
                                    "micro_batch_size, global_batch_size, seq_len")));
}

TEST(YamlWalkerTest, AKeyGivenTwiceIsRefusedAlsoUnderAnAlias) {
  EXPECT_THAT(Walk("train: {steps: 1, steps: 2}").errors,
              ElementsAre(HasSubstr("job.yaml:1:19: train.steps is given twice")));
  EXPECT_THAT(Walk("parallelism: {pp: 1, pipeline_parallel_size: 2}").errors,
              ElementsAre(HasSubstr("parallelism.pp is given twice")));
}

TEST(YamlWalkerTest, WhatPeopleTypeElsewhereIsUnderstood) {
  const Walked walked = Walk("parallelism: {pipeline_parallel_size: 4}");
  EXPECT_THAT(walked.errors, IsEmpty());
  EXPECT_EQ(walked.spec.parallelism().pp(), 4);
  EXPECT_EQ(WalkSet("parallelism.pipeline_parallel_size", "3").spec.parallelism().pp(), 3);
}

TEST(YamlWalkerTest, AWrongTypeIsPlacedWithWhatIsNeeded) {
  const Walked walked = Walk(
      "train: {steps: ten, seed: 1.5}\n"
      "data: {shuffle: yes}\n"
      "optimizer: {lr: fast}\n"
      "model: 7\n"
      "name: [a]\n"
      "batch: {seq_len: 99999999999}\n");
  EXPECT_THAT(
      walked.errors,
      ElementsAre("job.yaml:1:16: train.steps = ten: needs a whole number",
                  "job.yaml:1:27: train.seed = 1.5: needs a whole number",
                  "job.yaml:2:17: data.shuffle = yes: needs true or false",
                  "job.yaml:3:17: optimizer.lr = fast: needs a number",
                  HasSubstr("job.yaml:4:8: model is not a mapping of keys: config, init_from"),
                  "job.yaml:5:7: name needs text",
                  "job.yaml:6:18: batch.seq_len = 99999999999: needs a whole number from "
                  "-2147483647 to 2147483647"));
}

TEST(YamlWalkerTest, LargeCountsAreWholeNumbersToo) {
  EXPECT_EQ(WalkSet("parallelism.bucket_bytes", "99999999999").spec.parallelism().bucket_bytes(),
            99'999'999'999);
  const auto error = [](const std::string& text) {
    const Walked walked = WalkSet("parallelism.persist_elements", text);
    return walked.errors.empty() ? "" : walked.errors[0];
  };
  EXPECT_THAT(error("8Gi"), HasSubstr("a whole number in plain digits: write 8589934592"));
  EXPECT_THAT(error("1e10"), HasSubstr("a whole number in plain digits: write 10000000000"));
  EXPECT_THAT(error("1e30"), HasSubstr("a whole number from -9007199254740992 to"));
  EXPECT_THAT(error("some"), HasSubstr("needs a whole number"));
}

TEST(YamlWalkerTest, NumbersAreWrittenInPlainDigits) {
  const auto error = [](const std::string& key, const std::string& text) {
    const Walked walked = WalkSet(key, text);
    return walked.errors.empty() ? "" : walked.errors[0];
  };
  EXPECT_EQ(error("train.steps", "1e3"),
            "--set: train.steps = 1e3: needs a whole number in plain digits: write 1000");
  EXPECT_EQ(error("train.steps", "2_000"),
            "--set: train.steps = 2_000: needs a whole number in plain digits: write 2000");
  EXPECT_EQ(error("train.steps", "+5"),
            "--set: train.steps = +5: needs a whole number in plain digits: write 5");
  EXPECT_EQ(error("train.steps", "3.0"),
            "--set: train.steps = 3.0: needs a whole number in plain digits: write 3");
  for (const char* none : {"1e-3", "0x10", "1x", "k", "1e", "_", "nan", "--5", "1 000"}) {
    EXPECT_EQ(error("train.steps", none),
              fmt::format("--set: train.steps = {}: needs a whole number", none));
  }
  const std::pair<const char*, const char*> suffixes[] = {
      {"4k", "4000 or 4096"},
      {"4K", "4000 or 4096"},
      {"1M", "1000000 or 1048576"},
      {"1.5k", "1500 or 1536"},
      {"4Ki", "4096"},
      {"4kb", "4000 or 4096"},
      {"2g", "2000000000"},
      {"1,000", "1000"},
      {"12,345,678", "12345678"},
      {"0.5Mi", "524288"},
      {"2_0k", "20000 or 20480"},
  };
  for (const auto& [text, meant] : suffixes) {
    EXPECT_EQ(error("train.steps", fmt::format("'{}'", text)),
              fmt::format("--set: train.steps = {}: needs a whole number in plain digits: write {}",
                          text, meant));
  }
  EXPECT_EQ(
      error("optimizer.weight_decay", "1k"),
      "--set: optimizer.weight_decay = 1k: needs a number in plain digits: write 1000 or 1024");
  EXPECT_EQ(error("optimizer.lr", "1_0.5"),
            "--set: optimizer.lr = 1_0.5: needs a number in plain digits: write 10.5");
  for (const char* endless : {"nan", "inf", "-inf"}) {
    EXPECT_EQ(error("optimizer.lr", endless),
              fmt::format("--set: optimizer.lr = {}: needs a finite number", endless));
  }
  EXPECT_EQ(error("optimizer.lr", "3e-4"), "");
  EXPECT_EQ(error("train.steps", "-5"), "");
}

TEST(YamlWalkerTest, BooleansHaveThreeSpellings) {
  for (const char* yes : {"true", "True", "TRUE"}) {
    EXPECT_TRUE(WalkSet("data.shuffle", yes).spec.data().shuffle());
  }
  for (const char* no : {"false", "False", "FALSE"}) {
    const Walked walked = WalkSet("data.shuffle", no);
    EXPECT_THAT(walked.errors, IsEmpty());
    EXPECT_TRUE(walked.spec.data().has_shuffle() && !walked.spec.data().shuffle());
  }
  EXPECT_EQ(WalkSet("name", "True").spec.name(), "True") << "text stays text";
  for (const char* word : {"tRue", "yes", "on", "1"}) {
    EXPECT_THAT(WalkSet("data.shuffle", word).errors, ElementsAre(HasSubstr("true or false")));
  }
}

TEST(YamlWalkerTest, ASecondDocumentIsRefusedWithItsLine) {
  const Walked walked = Walk("train: {steps: x}\n---\n\nname: b\n");
  EXPECT_THAT(walked.errors,
              ElementsAre(HasSubstr("job.yaml:1:16: train.steps = x"),
                          HasSubstr("job.yaml:4:1: a second YAML document begins here")));
  EXPECT_EQ(Walk("---\nname: a\n...\n").spec.name(), "a");
  EXPECT_THAT(Walk("name: a\n---\n# nothing\n").errors, IsEmpty()) << "nothing is dropped";
  EXPECT_EQ(WalkSet("name", "a\n---\nb").errors.size(), 1u);
  for (const char* text : {"name: a\n}", "name: a\n]\n", "{name: a}}", "name: a\n...\n}\n"}) {
    EXPECT_EQ(Walk(text).errors.size(), 1u) << text;
  }
}

TEST(YamlWalkerTest, AKeyIsTakenBack) {
  Walked walked = Walk("train: {steps: 1, seed: 2}\nmodel: {rope_scaling: {factor: 2.0}}\n");
  std::vector<Finding> errors;
  const WalkContext context{"--set", "flag", &errors, &walked.provenance, &walked.unread};
  UnsetKey("train.steps", context, walked.spec);
  UnsetKey("model.rope_scaling", context, walked.spec);
  UnsetKey("eval.sample.prompt", context, walked.spec);
  EXPECT_THAT(errors, IsEmpty());
  EXPECT_FALSE(walked.spec.train().has_steps());
  EXPECT_EQ(walked.spec.train().seed(), 2);
  EXPECT_FALSE(walked.spec.model().has_rope_scaling());
  EXPECT_FALSE(walked.spec.has_eval()) << "nothing is made";
  EXPECT_FALSE(walked.provenance.contains("train.steps"));
  EXPECT_FALSE(walked.provenance.contains("model.rope_scaling.factor"));
  UnsetKey("train.stesp", context, walked.spec);
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_EQ(errors[0].Line(), "--set: there is no key train.stesp: did you mean steps?");
}

TEST(YamlWalkerTest, WhatCouldNotBeReadIsKnown) {
  EXPECT_THAT(Walk("train: {stesp: 3, seed: x}\nmodell: {}\nbatch: {zzz: 1}\nzzz: 1\n").unread,
              ElementsAre("batch.", "model", "train.seed", "train.steps"));
  EXPECT_THAT(Walk("a: [1").unread, ElementsAre(""));
}

TEST(YamlWalkerTest, KeysThatOnlyTheCallerKnows) {
  const auto walk = [](std::string_view text, ExtraKeys& extra) { return Walk(text, &extra); };
  ExtraKeys extra = {{"extends", ""}};
  const Walked good = walk("name: x\nextends: a.yaml\n", extra);
  EXPECT_THAT(good.errors, IsEmpty());
  EXPECT_EQ(extra["extends"], "a.yaml");
  EXPECT_EQ(good.provenance.at("extends").place.Text(), "job.yaml:2:10");
  EXPECT_THAT(walk("extend: a.yaml", extra).errors,
              ElementsAre("job.yaml:1:1: there is no key extend: did you mean extends?"));
  EXPECT_THAT(walk("extends: a\nextends: b", extra).errors,
              ElementsAre("job.yaml:2:1: extends is given twice"));
  EXPECT_THAT(walk("extends: [a, b]", extra).errors,
              ElementsAre("job.yaml:1:10: extends needs text"));
  EXPECT_THAT(walk("train: {extends: a}", extra).errors,
              ElementsAre(HasSubstr("there is no key train.extends")));
}

TEST(YamlWalkerTest, AnEmptyListIsRefused) {
  EXPECT_THAT(Walk("optimizer: {betas: []}").errors,
              ElementsAre("job.yaml:1:20: optimizer.betas is empty: leave it out"));
}

TEST(YamlWalkerTest, WhatIsNoYamlIsOneSentence) {
  for (const char* text : {"a: [1, 2", "a: b: c", "\t- x", "&a *a", "{", "\"unclosed", "%TAG"}) {
    EXPECT_EQ(Walk(text).errors.size(), 1u) << text;
  }
  EXPECT_THAT(Walk("just words").errors, ElementsAre(HasSubstr("the job is not a mapping")));
  EXPECT_THAT(Walk("").errors, ElementsAre(HasSubstr("the job is not a mapping")));
}

TEST(YamlWalkerTest, OnlyUtf8IsRead) {
  EXPECT_EQ(Walk("name: \"\u00fc \u20ac \U0001F3AD\"").spec.name(), "\u00fc \u20ac \U0001F3AD");
  for (const char* bad : {"\xff", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                          "\xe2\x82", "\x80"}) {
    EXPECT_THAT(Walk("train:\n  {steps: 1}\nname: " + std::string(bad)).errors,
                ElementsAre("job.yaml:3: not UTF-8: save the file as UTF-8"));
    EXPECT_THAT(WalkSet("name", bad).errors, ElementsAre("--set: not UTF-8"));
  }
}

TEST(YamlWalkerTest, ErrorsAreShortPrintableAndBounded) {
  const Walked long_value = Walk("train: {steps: \"" + std::string(5000, 'x') + "\\n\"}");
  ASSERT_EQ(long_value.errors.size(), 1u);
  EXPECT_LT(long_value.errors[0].size(), 200u);
  EXPECT_THAT(Walk("train: {steps: \"a\\nb\"}").errors,
              ElementsAre(HasSubstr("train.steps = a?b: needs")));
  std::string many;
  for (int i = 0; i < 1000; ++i) many += "unknown" + std::to_string(i) + ": 1\n";
  EXPECT_EQ(Walk(many).errors.size(), 100u);
}

TEST(YamlWalkerTest, HostileSizesAreRefused) {
  EXPECT_THAT(Walk(std::string((1 << 20) + 1, ' ')).errors,
              ElementsAre(HasSubstr("at most 1048576 are read")));
  EXPECT_EQ(Walk(std::string(500'000, '[')).errors.size(), 1u);
  EXPECT_EQ(Walk("model: " + std::string(100'000, '{')).errors.size(), 1u);
  std::string list = "optimizer: {betas: [";
  for (int i = 0; i < 2000; ++i) list += "1,";
  EXPECT_THAT(Walk(list + "1]}").errors, ElementsAre(HasSubstr("too many values")));
}

TEST(YamlWalkerTest, AnOverrideIsCheckedLikeAFile) {
  const Walked good = WalkSet("optimizer.betas", "[0.8, 0.9]");
  EXPECT_THAT(good.errors, IsEmpty());
  EXPECT_THAT(good.spec.optimizer().betas(), ElementsAre(0.8, 0.9));
  EXPECT_EQ(good.provenance.at("optimizer.betas").source, "flag");
  EXPECT_EQ(good.provenance.at("optimizer.betas").place.Text(), "--set");
  EXPECT_THAT(WalkSet("train.stesp", "3").errors,
              ElementsAre("--set: there is no key train.stesp: did you mean steps?"));
  EXPECT_THAT(WalkSet("name.first", "x").errors,
              ElementsAre(HasSubstr("name has no keys of its own")));
  EXPECT_THAT(WalkSet("train.steps", "many").errors,
              ElementsAre(HasSubstr("train.steps = many: needs a whole number")));
  EXPECT_EQ(WalkSet("", "1").errors.size(), 1u);
  EXPECT_EQ(WalkSet("train.", "1").errors.size(), 1u);
}

TEST(ShownTest, CutsBetweenCharactersAndHidesControls) {
  EXPECT_EQ(Shown("a\tb\x7f"), "a?b?");
  EXPECT_EQ(Shown("abcdef", 6), "abcdef");
  EXPECT_EQ(Shown("abcdef", 4), "abcd...");
  EXPECT_EQ(Shown("ab\u20acd", 4), "ab...");
}

TEST(NearestTest, SuggestsOnlyWhatIsNear) {
  const std::vector<std::string> words = {"steps", "seed", "dtype"};
  EXPECT_EQ(Nearest("step", words), "steps");
  EXPECT_EQ(Nearest("dtpye", words), "dtype");
  EXPECT_EQ(Nearest("checkpointing", words), "");
  EXPECT_EQ(Nearest("", {}), "");
}

}  // namespace
}  // namespace troupe
