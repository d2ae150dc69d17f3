#include "coordinator/job/job_file.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "tests/support/job_folder.h"

namespace troupe::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(JobFileTest, DefaultsFillTheEffectiveJob) {
  const JobFolder small;
  const auto job = small.Load();
  ASSERT_TRUE(job.ok()) << job.error().message;
  const proto::JobSpec& spec = job->spec;
  EXPECT_EQ(spec.model().head_dim(), 4);
  EXPECT_EQ(spec.resources().workers(), 2);
  EXPECT_EQ(spec.batch().gradient_groups(), 1);
  EXPECT_EQ(spec.lr_scheduler().decay_steps(), 20);
  EXPECT_EQ(spec.checkpoint().resume(), "never");
  EXPECT_EQ(spec.data().train(), small.folder / "text.txt") << "relative to the job file";
  EXPECT_EQ(job->provenance.at("train.steps").source, "file");
  EXPECT_EQ(job->provenance.at("resources.workers").source, "default");
}

// zero_stage says when gradients are added up, and that how they are grouped.
TEST(JobFileTest, DefaultsFollowWhatDataParallelRanksShareOut) {
  const JobFolder small;
  struct Case {
    std::vector<std::string> sets;
    std::string_view grad_reduce;
    int groups;
  };
  for (const Case& c : {
           Case{{}, "step", 1},
           Case{{"parallelism.dp=2"}, "step", 2},
           Case{{"parallelism.dp=2", "parallelism.zero_stage=1"}, "step", 2},
           Case{{"parallelism.zero_stage=2"}, "microbatch", 4},
           Case{{"parallelism.dp=4", "parallelism.zero_stage=2"}, "microbatch", 1},
           Case{{"parallelism.dp=2", "parallelism.zero_stage=3"}, "microbatch", 2},
           Case{{"parallelism.dp=2", "parallelism.zero_stage=3", "parallelism.grad_reduce=step"},
                "step",
                2},
           Case{{"parallelism.dp=2", "parallelism.grad_reduce=microbatch",
                 "parallelism.schedule=dynamic"},
                "microbatch",
                2},
           Case{{"parallelism.dp=2", "parallelism.zero_stage=2", "parallelism.schedule=auto"},
                "microbatch",
                2},
           Case{{"parallelism.zero_stage=2", "parallelism.schedule=dualpipe"}, "microbatch", 2},
       }) {
    const auto job = small.Load(c.sets);
    ASSERT_TRUE(job.ok()) << job.error().message;
    EXPECT_EQ(job->spec.parallelism().grad_reduce(), c.grad_reduce);
    EXPECT_EQ(job->spec.batch().gradient_groups(), c.groups);
    const bool gathers = job->spec.parallelism().zero_stage() == 3;
    EXPECT_EQ(job->spec.parallelism().has_zero_prefetch(), gathers);
    EXPECT_EQ(job->spec.parallelism().reshard_after_forward(), gathers);
  }
}

// Defaults that would have no effect are not written down.
TEST(JobFileTest, DefaultsOfSumsAreThoseThatHaveAnEffect) {
  const JobFolder small;
  const auto of = [&small](std::vector<std::string> sets) {
    const auto job = small.Load(sets);
    EXPECT_TRUE(job.ok()) << job.error().message;
    const auto again = JobFolder(job->effective_text).Load();
    EXPECT_TRUE(again.ok()) << again.error().message;
    const proto::Parallelism& p = job->spec.parallelism();
    const bool shares_with_nobody = (p.dp() == 1 && !sets.empty()) || p.zero_group() == 1;
    EXPECT_TRUE(shares_with_nobody || again->warnings.empty()) << again->warnings[0].Line();
    return job->spec;
  };
  const proto::JobSpec alone = of({});
  EXPECT_EQ(alone.train().grad_dtype(), "float32");
  EXPECT_FALSE(alone.parallelism().has_reduction() || alone.has_data_parallel());
  const std::string dp = "parallelism.dp=2";
  const proto::JobSpec whole = of({dp});
  EXPECT_EQ(whole.parallelism().reduction(), "ordered");
  EXPECT_EQ(whole.parallelism().bucket_bytes(), 4 << 20);
  EXPECT_EQ(whole.data_parallel().algorithm(), "all_reduce");
  EXPECT_FALSE(whole.parallelism().has_zero_group());
  EXPECT_FALSE(of({dp, "parallelism.grad_reduce=microbatch"}).parallelism().has_bucket_bytes());
  const proto::JobSpec shards = of({dp, "parallelism.zero_stage=1"});
  EXPECT_EQ(shards.parallelism().zero_group(), 2);
  EXPECT_TRUE(shards.parallelism().has_persist_elements());
  EXPECT_FALSE(shards.parallelism().has_bucket_bytes() || shards.has_data_parallel());
  const proto::JobSpec given =
      of({dp, "parallelism.zero_stage=3", "parallelism.zero_group=1", "parallelism.reduction=ring",
          "parallelism.persist_elements=100000", "train.grad_dtype=bfloat16"});
  EXPECT_EQ(given.parallelism().zero_group(), 1);
  EXPECT_EQ(given.parallelism().persist_elements(), 100'000);
  EXPECT_EQ(given.train().grad_dtype(), "bfloat16");
}

TEST(JobFileTest, HowSequencesAreSharedIsWrittenDownWhereTheyAre) {
  const JobFolder small;
  const auto of = [&small](const std::vector<std::string>& sets) {
    const auto job = small.Load(sets);
    EXPECT_TRUE(job.ok()) << job.error().message;
    return job.ok() ? job->spec : proto::JobSpec();
  };
  EXPECT_FALSE(of({}).parallelism().has_cp_method());
  EXPECT_FALSE(of({}).parallelism().has_cp_load_balance());
  EXPECT_EQ(of({}).train().recompute(), "none");
  EXPECT_EQ(of({"train.recompute=full"}).train().recompute(), "full");
  const proto::JobSpec ring = of({"parallelism.cp=2"});
  EXPECT_EQ(ring.parallelism().cp_method(), "ring");
  EXPECT_EQ(ring.parallelism().cp_load_balance(), "zigzag");
  EXPECT_EQ(ring.resources().workers(), 4);
  EXPECT_EQ(of({"parallelism.cp=2", "parallelism.cp_method=all-gather"}).parallelism().cp_method(),
            "all_gather");
  EXPECT_EQ(
      of({"parallelism.cp=2", "parallelism.cp_method=ulysses"}).parallelism().cp_load_balance(),
      "contiguous");
}

TEST(JobFileTest, TwoDirectionsOfDataParallelRanksSumAGroupEach) {
  const JobFolder small;
  const auto job = small.Load({"parallelism.dp=2", "parallelism.schedule=dualpipe",
                               "parallelism.zero_stage=1", "batch.global_batch_size=8"});
  ASSERT_TRUE(job.ok()) << job.error().message;
  EXPECT_EQ(job->spec.batch().gradient_groups(), 4);
  EXPECT_THAT(small.Errors({"parallelism.dp=2", "parallelism.schedule=dualpipe",
                            "parallelism.zero_stage=2", "batch.global_batch_size=8"}),
              HasSubstr("parallelism.grad_reduce = microbatch: with parallelism.dp = 2 the two "
                        "directions of schedule dualpipe are added up once a step; use step"));
}

TEST(JobFileTest, ARunShorterThanItsWarmUpNeedsNoOtherDecay) {
  const auto job = JobFolder().Load(
      {"train.steps=3", "lr_scheduler.name=cosine", "lr_scheduler.warmup_steps=10"});
  ASSERT_TRUE(job.ok()) << job.error().message;
  EXPECT_EQ(job->spec.lr_scheduler().decay_steps(), 10);
  EXPECT_EQ(job->provenance.at("lr_scheduler.decay_steps").source, "default");
}

TEST(JobFileTest, TheEffectiveTextSaysWhereEachKeyIsFromAndLoadsToTheSameJob) {
  const JobFolder small;
  const auto job = small.Load({"train.steps=9"});
  ASSERT_TRUE(job.ok()) << job.error().message;
  EXPECT_THAT(job->effective_text, HasSubstr("  steps: 9  # from: flag\n"));
  EXPECT_THAT(job->effective_text, HasSubstr("  hidden_size: 16  # from: file\n"));
  EXPECT_THAT(job->effective_text, HasSubstr("  betas: [0.9, 0.95]  # from: default\n"));
  const JobFolder again(job->effective_text);
  const auto reloaded = again.Load();
  ASSERT_TRUE(reloaded.ok()) << reloaded.error().message;
  EXPECT_EQ(reloaded->spec.SerializeAsString(), job->spec.SerializeAsString());
}

TEST(JobFileTest, TextWithQuotesAndNewlinesSurvivesTheEffectiveFile) {
  const JobFolder small(std::string(kTinyJob) +
                        "eval: {sample: {prompt: \"a \\\"b\\\" \\\\ # : \\n c\"}}\n");
  const auto job = small.Load();
  ASSERT_TRUE(job.ok()) << job.error().message;
  EXPECT_EQ(job->spec.eval().sample().prompt(), "a \"b\" \\ # : \n c");
  const auto again = JobFolder(job->effective_text).Load();
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again->spec.eval().sample().prompt(), job->spec.eval().sample().prompt());
}

TEST(JobFileTest, AFlagWinsOverTheFileAndTheFileOverItsParents) {
  const JobFolder small;
  const std::string child = small.folder.Write(
      "child.yaml", "extends: job.yaml\ntrain: {steps: 30}\noptimizer: {betas: [0.5, 0.6]}\n");
  const auto job = testing::LoadJob(SystemFiles(), child, {{"train.seed", "5"}});
  ASSERT_TRUE(job.ok()) << job.error().message;
  EXPECT_EQ(job->spec.train().steps(), 30);
  EXPECT_EQ(job->spec.train().seed(), 5);
  EXPECT_EQ(job->spec.model().hidden_size(), 16);
  EXPECT_THAT(job->spec.optimizer().betas(), ElementsAre(0.5, 0.6)) << "a list replaces a list";
  EXPECT_EQ(job->provenance.at("model.hidden_size").source, small.path);
}

TEST(JobFileTest, ExtendsInACircleIsRefused) {
  const JobFolder small("extends: job.yaml\n");
  EXPECT_THAT(small.Errors(), HasSubstr(small.path + ":1:10: extends = job.yaml: goes through"));
}

TEST(JobFileTest, AParentThatIsMissingIsToldWithTheChildsPlace) {
  const JobFolder small(std::string(kTinyJob) + "extends: gone.yaml\n");
  EXPECT_THAT(small.Errors(), HasSubstr(small.path + ":13:10: extends = gone.yaml: "));
  EXPECT_THAT(small.Errors(), HasSubstr("gone.yaml: cannot open"));
}

TEST(JobFileTest, PlacesNameTheFileAsItWasTyped) {
  const JobFolder small(std::string(kTinyJob) + "kind: x\n");
  small.folder.Write("child.yaml", "extends: job.yaml\nname: .x\n");
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(small.folder.path());
  const auto job = testing::LoadJob(SystemFiles(), "child.yaml", {});
  std::filesystem::current_path(before);
  ASSERT_FALSE(job.ok());
  EXPECT_THAT(job.error().message,
              HasSubstr("job.yaml:13:7: kind = x: use pretrain, evaluate or sample\n"));
  EXPECT_THAT(job.error().message, HasSubstr("\nchild.yaml:2:7: name = .x: "));
}

// The run that goes on from runs/small/latest becomes runs/small/latest itself.
TEST(JobFileTest, LatestIsFollowedWhenTheJobIsRead) {
  const JobFolder small;
  const std::string runs = small.folder / "runs/small";
  ASSERT_TRUE(SystemFiles().CreateDirectories(runs + "/one").ok());
  ASSERT_TRUE(SystemFiles().PointLink(runs + "/latest", "one").ok());
  const auto job = small.Load({"checkpoint.resume=" + runs + "/latest"});
  ASSERT_TRUE(job.ok()) << job.error().message;
  EXPECT_EQ(job->spec.checkpoint().resume(), runs + "/one");
  const auto inside = small.Load({"checkpoint.resume=" + runs + "/latest/checkpoints/latest-one"});
  ASSERT_TRUE(inside.ok()) << inside.error().message;
  EXPECT_EQ(inside->spec.checkpoint().resume(), runs + "/one/checkpoints/latest-one");
}

TEST(JobFileTest, SchedulesHaveSeveralSpellings) {
  const JobFolder small;
  for (const char* name : {"afab", "gpipe"}) {
    const auto job = small.Load({std::string("parallelism.schedule=") + name});
    ASSERT_TRUE(job.ok()) << job.error().message;
    EXPECT_EQ(job->spec.parallelism().schedule(), "gpipe");
  }
  EXPECT_THAT(small.Errors({"parallelism.schedule=1f1c"}), HasSubstr("1f1b"));
}

// What a run directory keeps must say the same from there.
TEST(JobFileTest, TheTextRunsFromWhereverItLies) {
  const JobFolder small(std::string(kTinyJob) +
                        "checkpoint: {resume: 'it''s/old', keep: 3}  # a \"comment\", kept\n");
  small.folder.Write("child.yaml", "extends: job.yaml  # the parent\ntrain:\n  steps: 9\n");
  for (const char* file : {"job.yaml", "child.yaml"}) {
    const auto job = testing::LoadJob(SystemFiles(), small.folder / file, {});
    ASSERT_TRUE(job.ok()) << job.error().message;
    const TemporaryFolder elsewhere;
    const auto again = testing::LoadJob(SystemFiles(), elsewhere.Write("job.yaml", job->text), {});
    ASSERT_TRUE(again.ok()) << again.error().message << job->text;
    EXPECT_EQ(again->spec.SerializeAsString(), job->spec.SerializeAsString());
    EXPECT_EQ(again->text, job->text) << "nothing is left to change";
  }
  const std::string text = small.Load()->text;
  EXPECT_THAT(text, HasSubstr("\ndata: {train: " + (small.folder / "text.txt") + "}\n"));
  EXPECT_THAT(text, HasSubstr("{resume: \"" + (small.folder / "it's/old") +
                              "\", keep: 3}  # a \"comment\", kept\n"));
  EXPECT_THAT(testing::LoadJob(SystemFiles(), small.folder / "child.yaml", {})->text,
              HasSubstr("extends: " + small.path + "  # the parent\n"));
}

TEST(JobFileTest, ATextThatTakesNoAbsolutePathsBecomesTheEffectiveOne) {
  std::string yaml(kTinyJob);
  yaml.replace(yaml.find("train: text.txt"), 15, "train: &t text.txt");
  const JobFolder small(yaml);
  const auto job = small.Load();
  ASSERT_TRUE(job.ok()) << job.error().message;
  EXPECT_EQ(job->text,
            "# What " + small.path + " says, with its paths absolute.\n" + job->effective_text);
}

TEST(JobFileTest, TheEffectiveTextNeedsNoFileThatWasReadIntoIt) {
  const JobFolder small(
      "extends: parent.yaml\nmodel: {config: config.json}\n"
      "parallelism: {pp: 2, schedule_csv: order.csv}\n");
  small.folder.Write("parent.yaml",
                     "data: {train: text.txt}\ntrain: {steps: 3}\n"
                     "batch: {micro_batch_size: 1, global_batch_size: 2, seq_len: 8}\n");
  small.folder.Write("config.json", R"({"model_type": "llama", "hidden_size": 16, "vocab_size": 256,
      "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4})");
  small.folder.Write("order.csv", "\"0F0\",0F1,0B0,0B1,\r\n1F0,1B0,1F1,1B1,\r\n,,,\r\n");
  const auto job = small.Load();
  ASSERT_TRUE(job.ok()) << job.error().message;
  EXPECT_FALSE(job->spec.parallelism().has_schedule_csv());
  EXPECT_EQ(job->spec.model().config(), "");
  EXPECT_THAT(job->effective_text,
              HasSubstr("  config: \"\"  # from: " + (small.folder / "config.json") + "\n"));
  for (const char* file : {"parent.yaml", "config.json", "order.csv"}) {
    ASSERT_TRUE(SystemFiles().RemoveAll(small.folder / file).ok());
  }
  const auto again = testing::LoadJob(
      SystemFiles(), small.folder.Write("effective.yaml", job->effective_text), {});
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again->spec.SerializeAsString(), job->spec.SerializeAsString());
}

TEST(JobFileTest, AnEmptyOverrideTakesAKeyBackToItsDefault) {
  const JobFolder small;
  EXPECT_EQ(small.Load({"train.seed="})->spec.train().seed(), 1234);
  EXPECT_EQ(small.Load({"train.seed=", "train.seed=8"})->spec.train().seed(), 8);
  EXPECT_THAT(small.Errors({"train.steps="}), HasSubstr(small.path + ": train.steps is missing"));
  EXPECT_EQ(small.Errors({"train.sed="}),
            "--set train.sed=: there is no key train.sed: did you mean seed?");
}

TEST(JobFileTest, TheEffectiveTextHasNoKeyWithoutEffectThatNobodyGave) {
  const JobFolder small;
  const auto job = small.Load({});
  ASSERT_TRUE(job.ok());
  EXPECT_THAT(job->effective_text, Not(HasSubstr("decay_steps")));
  EXPECT_THAT(job->effective_text, Not(HasSubstr("min_lr")));
  const auto given = small.Load({"lr_scheduler.min_lr=1e-5"});
  EXPECT_THAT(given->effective_text, HasSubstr("min_lr: 1e-05  # from: flag"));
  const auto linear = small.Load({"lr_scheduler.name=linear"});
  EXPECT_THAT(linear->effective_text, HasSubstr("decay_steps: 20  # from: default"));
  for (const auto& text : {job->effective_text, linear->effective_text}) {
    const auto again = JobFolder(text).Load();
    ASSERT_TRUE(again.ok()) << again.error().message;
    EXPECT_TRUE(again->warnings.empty()) << again->warnings[0].Line();
  }
}

TEST(JobFileTest, WhatIsLegalAndOddIsWarnedAbout) {
  const auto warned = [](const std::vector<std::string>& sets) {
    const auto job = JobFolder().Load(sets);
    EXPECT_TRUE(job.ok()) << job.error().message;
    std::string lines;
    for (const Finding& warning : job->warnings) lines += warning.Line() + "\n";
    return lines;
  };
  EXPECT_EQ(warned({}), "");
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"lr_scheduler.warmup_steps=30"},
       "--set lr_scheduler.warmup_steps=30: lr_scheduler.warmup_steps = 30 is more than "
       "train.steps "
       "= 20: the warm-up outlasts the run"},
      {{"train.stop_after=5", "lr_scheduler.warmup_steps=6"}, "is more than train.stop_after = 5"},
      {{"eval.every=30", "data.val_fraction=0.1"}, "nothing is evaluated"},
      {{"data.val_fraction=0.1"}, "data.val_fraction = 0.1 keeps data from training"},
      {{"checkpoint.every=30"}, "the only checkpoint is that of the end"},
      {{"log.every=21"}, "few steps are shown"},
      {{"log.trace={first: 21}"}, "log.trace.first = 21 is more than train.steps = 20: no step"},
      {{"optimizer.lr=3"}, "optimizer.lr = 3 is more than AdamW bears"},
      {{"optimizer.lr=0.1", "optimizer.weight_decay=10"}, "optimizer.weight_decay = 10 times"},
      {{"optimizer.betas=[0.95, 0.9]"}, "optimizer.betas = [0.95, 0.9]: the first is usually"},
      {{"lr_scheduler.min_lr=1e-5"}, "lr_scheduler.min_lr has no effect"},
      {{"parallelism.zero_stage=1"}, "parallelism.zero_stage = 1 has no effect"},
      {{"parallelism.zero_prefetch=2"}, "parallelism.zero_prefetch has no effect"},
      {{"parallelism.zero_group=1"},
       "parallelism.zero_group has no effect: parallelism.zero_stage"},
      {{"parallelism.persist_elements=9"},
       "parallelism.persist_elements has no effect: parallelism.zero_stage = 0 keeps all"},
      {{"parallelism.reduction=ring"}, "parallelism.reduction has no effect: parallelism.dp = 1"},
      {{"parallelism.cp_method=ulysses"},
       "parallelism.cp_method has no effect: parallelism.cp = 1"},
      {{"parallelism.cp_load_balance=striped"}, "parallelism.cp_load_balance has no effect"},
      {{"train.recompute=full", "parallelism.schedule=zb-h1"},
       "train.recompute = full computes again and saves no memory: schedule zb-h1 runs backwards "
       "in halves"},
      {{"data_parallel.algorithm=reduce_broadcast"},
       "data_parallel.algorithm has no effect: parallelism.dp = 1"},
      {{"parallelism.bucket_bytes=100"}, "parallelism.bucket_bytes has no effect: only gradients"},
      {{"parallelism.bucket_bytes=100", "parallelism.dp=2", "parallelism.zero_stage=1"},
       "parallelism.bucket_bytes has no effect: only gradients"},
      {{"lr_scheduler.name=linear", "lr_scheduler.decay_steps=10"},
       "lr_scheduler.decay_steps = 10 is less than train.steps = 20, and lr_scheduler.min_lr = 0"},
      {{"batch.global_batch_size=1"}, "parallelism.pp = 2 with 1 microbatch a step"},
      {{"data.document_separator=0"},
       "data.document_separator = 0: it is not among the first 1000 tokens of data.train = "},
  };
  for (const auto& [sets, said] : cases) {
    const std::string lines = warned(sets);
    EXPECT_THAT(lines, HasSubstr(said));
    EXPECT_EQ(std::ranges::count(lines, '\n'), 1) << lines;
  }
}

TEST(JobFileTest, ASeparatorThatIsRefusedIsNotWarnedAboutToo) {
  const JobFolder small;
  for (const char* token : {"-1", "256"}) {
    const JobReading reading =
        ReadJob(SystemFiles(), small.path, {{"data.document_separator", token}});
    EXPECT_THAT(Joined(reading.errors).message, HasSubstr("data.document_separator = "));
    EXPECT_TRUE(reading.job.warnings.empty()) << reading.job.warnings.front().Line();
  }
}

TEST(JobFileTest, AllErrorsComeInOnePass) {
  const JobFolder small("train: {stesp: 3, seed: x}\nmodell: {}\n");
  const auto job = small.Load({"batch.nothing=1"});
  ASSERT_FALSE(job.ok());
  EXPECT_EQ(job.error().code, ErrorCode::kInvalidSpec);
  EXPECT_EQ(ExitCode(job.error().code), 2);
  EXPECT_THAT(job.error().message, HasSubstr("job.yaml:1:9: there is no key train.stesp"));
  EXPECT_THAT(job.error().message, HasSubstr("job.yaml:1:25: train.seed = x"));
  EXPECT_THAT(job.error().message, HasSubstr("job.yaml:2:1: there is no key modell"));
  EXPECT_THAT(job.error().message, HasSubstr("--set batch.nothing=1: there is no key"));
  // Besides what follows from these, data.train is missing.
  EXPECT_EQ(std::ranges::count(job.error().message, '\n'), 4) << job.error().message;
}

TEST(JobFileTest, WhatTheKeysSayIsJudgedBesideWhatCannotBeRead) {
  const JobFolder small(
      "spec_version: 1\nname: small\nstray: 1\n"
      "model: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 4, num_attention_heads: "
      "3,"
      " vocab_size: 4k}\n"
      "data: {train: text.txt}\nparallelism: {pp: x, stage_layers: [1, 2]}\n"
      "batch: {micro_batch_size: 2, global_batch_size: 5, seq_len: 8}\ntrain: {steps: 0}\n"
      "---\ntrain: {steps: 5}\n");
  const JobReading reading = ReadJob(SystemFiles(), small.path, {{"optimizer.lr", "-1"}});
  std::vector<std::string> said;
  for (const Finding& error : reading.errors) {
    said.push_back(fmt::format("{}:{} {}", error.place.line, error.place.column, error.key));
  }
  EXPECT_THAT(said, ::testing::UnorderedElementsAre(
                        "3:1 stray", "4:107 model.vocab_size", "6:19 parallelism.pp", "10:1 ",
                        "4:92 model.num_attention_heads", "7:49 batch.global_batch_size",
                        "8:16 train.steps", "0:0 optimizer.lr", "6:36 parallelism.stage_layers"))
      << Joined(reading.errors).message;
}

TEST(JobFileTest, AMissingFileIsNamed) {
  const auto job = testing::LoadJob(SystemFiles(), "/no/such/job.yaml", {});
  ASSERT_FALSE(job.ok());
  EXPECT_THAT(job.error().message, HasSubstr("/no/such/job.yaml"));
}

TEST(JobFileTest, AnOverrideIsPlacedAsItWasTyped) {
  const JobFolder small;
  const auto job = testing::LoadJob(
      SystemFiles(), small.path, {{.path = "checkpoint.keep", .value = "0", .flag = "--keep 0"}});
  ASSERT_FALSE(job.ok());
  EXPECT_EQ(job.error().message, "--keep 0: checkpoint.keep = 0: use 1 or more");
}

TEST(JobFileTest, AnOverrideNeedsAnEqualsSign) {
  EXPECT_FALSE(ParseOverride("train.steps").ok());
  EXPECT_FALSE(ParseOverride("=3").ok());
  const auto override_of_text = ParseOverride("eval.sample.prompt=a=b");
  ASSERT_TRUE(override_of_text.ok());
  EXPECT_EQ(override_of_text->path, "eval.sample.prompt");
  EXPECT_EQ(override_of_text->value, "a=b");
}

// ---- log.trace -------------------------------------------------------------------------------

TEST(TraceKey, IsAWordOrAWindow) {
  const JobFolder folder;
  const auto trace = [&](const std::string& value) {
    const auto job = folder.Load({"log.trace=" + value});
    CHECK(job.ok(), "{}", job.error().message);
    const proto::TraceWindow& window = job->spec.log().trace();
    return fmt::format("{} {} {}", window.first(), window.steps(), window.every());
  };
  EXPECT_EQ(trace("true"), "1 4 0");
  EXPECT_EQ(trace("false"), "1 0 0");
  EXPECT_EQ(trace("{first: 3, steps: 2}"), "3 2 0");
  EXPECT_EQ(trace("{every: 100}"), "1 4 100");
  const auto job = folder.Load();
  ASSERT_TRUE(job.ok());
  EXPECT_EQ(job->spec.log().trace().steps(), 4) << "a few steps, where nobody asks";
  const auto again = folder.Load({"log.trace=false", "log.trace=true"});
  EXPECT_EQ(again->spec.log().trace().steps(), 4) << "the last word counts";
}

TEST(TraceKey, RefusesByName) {
  const JobFolder folder;
  EXPECT_THAT(folder.Errors({"log.trace=5"}), HasSubstr("log.trace"));
  EXPECT_THAT(folder.Errors({"log.trace.first=0"}),
              HasSubstr("log.trace.first = 0: use 1 or more"));
  EXPECT_THAT(folder.Errors({"log.trace.steps=-1"}), HasSubstr("log.trace.steps = -1"));
  EXPECT_THAT(folder.Errors({"log.trace={steps: 5, every: 3}"}),
              HasSubstr("log.trace.every = 3: use 0 (one window), or log.trace.steps = 5 or more"));
}

}  // namespace
}  // namespace troupe::testing
