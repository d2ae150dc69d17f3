#include "coordinator/job/job_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <sstream>

#include "coordinator/job/yaml_walker.h"
#include "tests/support/job_folder.h"

namespace troupe::testing {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

struct Wrong {
  std::vector<std::string> sets;
  std::string said;  // part of the sentence
  int exit_code;
};

void PrintTo(const Wrong& wrong, std::ostream* out) { *out << wrong.said; }

class JobChecksTest : public ::testing::TestWithParam<Wrong> {};

TEST_P(JobChecksTest, NamesThePlaceTheFieldAndTheRemedy) {
  const JobFolder small;
  const auto job = small.Load(GetParam().sets);
  ASSERT_FALSE(job.ok());
  EXPECT_THAT(job.error().message, HasSubstr(GetParam().said));
  EXPECT_EQ(ExitCode(job.error().code), GetParam().exit_code) << job.error().message;
  // Every key here is written by somebody, so every error has a place.
  for (const std::string& line : Lines(job.error().message)) {
    EXPECT_THAT(line, ContainsRegex("^(--set [^ ]*|.*/job.yaml:[0-9]+:[0-9]+|--set .*[]]): "
                                    "[a-z_.]+ = [^ ]"));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Fields, JobChecksTest,
    ::testing::Values(
        Wrong{{"model.num_attention_heads=3"}, "model.num_attention_heads", 2},
        Wrong{{"model.num_attention_heads=6", "model.num_key_value_heads=6"},
              "model.num_attention_heads = 6 does not divide model.hidden_size = 16",
              2},
        Wrong{{"model.hidden_size=12"}, "model.head_dim = 3 is odd", 2},
        Wrong{{"model.rope_scaling.rope_type=llama3", "model.rope_scaling.factor=0.5"},
              "model.rope_scaling.factor = 0.5: use 1 or more",
              2},
        Wrong{{"model.rope_scaling.rope_type=llama3", "model.rope_scaling.high_freq_factor=0.5"},
              "model.rope_scaling.high_freq_factor = 0.5: use more than",
              2},
        Wrong{{"model.num_key_value_heads=3"}, "model.num_key_value_heads", 2},
        Wrong{{"model.hidden_size=0"}, "model.hidden_size", 2},
        Wrong{{"batch.global_batch_size=5", "batch.micro_batch_size=2"},
              "batch.global_batch_size",
              2},
        Wrong{{"batch.gradient_groups=3"}, "batch.gradient_groups", 2},
        Wrong{{"train.steps=0"}, "train.steps = 0: use 1 or more", 2},
        Wrong{{"train.stop_after=21"}, "train.stop_after = 21: use 1 to train.steps = 20", 2},
        Wrong{{"train.dtype=float16"}, "train.dtype", 2},
        Wrong{{"optimizer.lr=nan"}, "optimizer.lr", 2},
        Wrong{{"optimizer.lr=-1"}, "optimizer.lr", 2},
        Wrong{{"optimizer.eps=0"}, "optimizer.eps", 2},
        Wrong{{"optimizer.betas=[0.9]"}, "optimizer.betas", 2},
        Wrong{{"optimizer.betas=[0.9, 1.0]"}, "optimizer.betas", 2},
        Wrong{{"optimizer.grad_clip=-1"}, "optimizer.grad_clip", 2},
        Wrong{{"optimizer.name=sgd"}, "optimizer.name = sgd: use adamw", 2},
        Wrong{{"lr_scheduler.name=step"}, "lr_scheduler.name", 2},
        Wrong{{"lr_scheduler.min_lr=1"}, "lr_scheduler.min_lr = 1: use 0 to optimizer.lr", 2},
        Wrong{{"lr_scheduler.name=cosine", "lr_scheduler.warmup_steps=30",
               "lr_scheduler.decay_steps=20"},
              "--set lr_scheduler.decay_steps=20: lr_scheduler.decay_steps = 20 is below",
              2},
        Wrong{
            {"parallelism.schedule=1f1c"}, "parallelism.schedule = 1f1c: use one of auto, 1f1b", 2},
        Wrong{{"parallelism.dp=0"}, "parallelism.dp = 0: use 1 to", 2},
        Wrong{{"resources.workers=3"}, "leave it out, or set 2", 2},
        Wrong{{"resources.peer_silence_seconds=2"}, "resources.peer_silence_seconds = 2", 2},
        Wrong{{"resources.hang_seconds=0"}, "resources.hang_seconds = 0", 2},
        Wrong{{"resources.hang_seconds=2"}, "resources.hang_seconds = 2", 2},
        Wrong{{"resources.threads_per_worker=0"}, "resources.threads_per_worker = 0", 2},
        Wrong{{"eval.every=5"}, "set data.val_fraction", 2},
        Wrong{{"eval.every=5", "data.val_fraction=0.0001"}, "leaves none to evaluate on", 2},
        Wrong{{"data.val_fraction=1.5"}, "data.val_fraction", 2},
        Wrong{{"data.ignore_label=-100"},
              "data.ignore_label = -100: use a token of the vocabulary, 0 to 255",
              2},
        Wrong{{"data.ignore_label=256"}, "data.ignore_label = 256: use a token", 2},
        Wrong{{"data.document_separator=256"},
              "data.document_separator = 256: use a token of the vocabulary, 0 to 255",
              2},
        Wrong{{"parallelism.cp=3"},
              "batch.seq_len = 8 is not a multiple of 2 x 3: the ranks of parallelism.cp = 3 have "
              "two of 6 equal parts of a sequence each (zigzag); use batch.seq_len = 6 or 12, or "
              "parallelism.cp = 2 or 4",
              2},
        Wrong{{"parallelism.cp=2", "parallelism.cp_method=star"},
              "parallelism.cp_method = star: use ring",
              2},
        Wrong{{"parallelism.cp=2", "parallelism.cp_load_balance=even"},
              "parallelism.cp_load_balance = even: use zigzag",
              2},
        Wrong{{"parallelism.cp=2", "parallelism.cp_method=ulysses",
               "parallelism.cp_load_balance=striped"},
              "parallelism.cp_load_balance = striped: with parallelism.cp_method = ulysses",
              2},
        Wrong{{"parallelism.cp=8", "parallelism.cp_method=ulysses"},
              "parallelism.cp = 8 does not divide model.num_attention_heads = 4: with "
              "parallelism.cp_method = ulysses each rank has whole heads; use parallelism.cp = 4, "
              "or cp_method: ring",
              2},
        Wrong{{"train.recompute=some"},
              "train.recompute = some: use none (everything is kept for the backward), attention",
              2},
        Wrong{{"eval.check_against=pytorch"}, "eval.check_against = pytorch", 2},
        Wrong{{"checkpoint.keep=0"}, "checkpoint.keep = 0", 2},
        Wrong{{"parallelism.rebalance=true"},
              "parallelism.rebalance = true: layers move at a checkpoint, and checkpoint.every = 0",
              2},
        Wrong{{"parallelism.schedule=auto", "parallelism.weight_parts=2"},
              "parallelism.schedule = auto chooses parallelism.weight_parts",
              2},
        Wrong{{"parallelism.schedule=auto", "parallelism.activation_limit=0.5"},
              "parallelism.activation_limit = 0.5: no schedule of 2 ranks",
              3},
        Wrong{{"parallelism.stage_layers=[1,2]"},
              "parallelism.stage_layers = [1, 2]: they add up to 3, model.num_hidden_layers = 4",
              2},
        Wrong{{"spec_version=2"}, "spec_version = 2: use 1", 2},
        Wrong{{"name=../elsewhere"}, "name = ../elsewhere: use up to 100 letters", 2},
        Wrong{{"batch.global_batch_size=8388608"},
              "batch.global_batch_size = 8388608 makes 8388608 microbatches",
              2},
        Wrong{{"model.num_hidden_layers=3000"}, "model.num_hidden_layers = 3000: use 1 to 2048", 2},
        Wrong{{"parallelism.dp=65536", "parallelism.cp=65536"},
              "dp x cp x tp x pp = 65536 x 65536 x 1 x 2: use at most 1048576 ranks in all",
              2},
        Wrong{{"kind=evaluate"}, "kind = evaluate needs weights: give a Hugging Face folder as", 2},
        Wrong{{"kind=sample", "checkpoint.resume=auto"},
              "kind = sample: checkpoint.resume = auto: use never, and model.init_from with",
              2},
        Wrong{{"kind=serve"}, "kind = serve: use pretrain, evaluate or sample", 2},
        Wrong{{"data.train=/no/such/text.txt"}, "data.train = /no/such/text.txt: ", 2},
        Wrong{{"batch.seq_len=1000"},
              "has 1000 tokens, a sample needs batch.seq_len + 1 = 1001: use",
              2},
        Wrong{{"model.vocab_size=200"}, "model.vocab_size = 200: bytes as tokens", 2},
        Wrong{{"parallelism.pp=5"}, "parallelism.pp = 5", 3},
        Wrong{{"parallelism.tp=2"}, "parallelism.tp", 2},
        Wrong{{"parallelism.zero_stage=4"}, "parallelism.zero_stage = 4: use 0", 2},
        Wrong{{"parallelism.zero_prefetch=-1"}, "parallelism.zero_prefetch = -1: use 0 to", 2},
        Wrong{{"parallelism.grad_reduce=often"},
              "parallelism.grad_reduce = often: use step (once, at the end of a step) or",
              2},
        Wrong{{"parallelism.dp=2", "parallelism.zero_stage=2", "parallelism.executor=guided"},
              "--set parallelism.executor=guided: parallelism.executor = guided: with "
              "parallelism.dp = 2 and parallelism.grad_reduce = microbatch",
              2},
        Wrong{{"parallelism.dp=2", "parallelism.grad_reduce=microbatch",
               "parallelism.schedule=zb-h1", "parallelism.weight_parts=2"},
              "parallelism.weight_parts = 2: weight gradients in parts cannot be reduced",
              2},
        Wrong{{"parallelism.dp=2", "parallelism.zero_stage=3", "batch.gradient_groups=4"},
              "batch.gradient_groups = 4: with parallelism.dp = 2 and parallelism.grad_reduce = "
              "microbatch each of a rank's 2 microbatches",
              2},
        Wrong{{"parallelism.dp=4", "parallelism.zero_stage=1", "parallelism.zero_group=3"},
              "parallelism.zero_group = 3 does not divide parallelism.dp = 4",
              2},
        Wrong{{"parallelism.zero_group=0"}, "parallelism.zero_group = 0: use the number of", 2},
        Wrong{{"parallelism.persist_elements=-1"},
              "parallelism.persist_elements = -1: use 0 (everything is shared out) or",
              2},
        Wrong{{"parallelism.bucket_bytes=0"}, "parallelism.bucket_bytes = 0: use 1 to", 2},
        Wrong{{"parallelism.reduction=tree"}, "parallelism.reduction = tree: use ordered", 2},
        Wrong{{"data_parallel.algorithm=tree"},
              "data_parallel.algorithm = tree: use all_reduce, or reduce_broadcast",
              2},
        Wrong{{"parallelism.dp=2", "parallelism.zero_stage=1",
               "data_parallel.algorithm=reduce-broadcast"},
              "data_parallel.algorithm = reduce_broadcast brings whole gradients to every rank",
              2},
        Wrong{{"parallelism.dp=2", "parallelism.reduction=ring",
               "data_parallel.algorithm=reduce_broadcast"},
              "data_parallel.algorithm = reduce_broadcast adds along a chain of ranks",
              2},
        Wrong{
            {"parallelism.dp=4", "parallelism.reduction=ring", "eval.check_against=single_worker"},
            "eval.check_against = single_worker compares bits, and parallelism.reduction = ring",
            2},
        Wrong{
            {"train.grad_dtype=float16"}, "train.grad_dtype = float16: use float32 or bfloat16", 2},
        Wrong{{"parallelism.dp=2", "batch.gradient_groups=4"},
              "batch.gradient_groups = 4: with parallelism.dp = 2 every rank sums one group",
              2}));

TEST(JobChecksTest, DataThatCannotBeReadIsRefused) {
  const JobFolder small;
  ASSERT_EQ(::mkfifo((small.folder / "fifo").c_str(), 0600), 0);
  ASSERT_TRUE(SystemFiles().CreateDirectories(small.folder / "folder").ok());
  for (const std::string name : {"fifo", "folder"}) {
    const std::string set = "data.train=" + (small.folder / name);
    EXPECT_EQ(small.Errors({set}), "--set " + set + ": data.train = " + (small.folder / name) +
                                       ": not a regular file: give a .txt or .bin file that can "
                                       "be read");
  }
  if (::geteuid() == 0) GTEST_SKIP() << "root may read every file";
  ASSERT_EQ(::chmod((small.folder / "text.txt").c_str(), 0), 0);
  EXPECT_THAT(small.Errors(), HasSubstr("text.txt: cannot open: Permission denied: give a .txt"));
}

// llm.c's header, then tokens of zero.
void WriteBin(const TemporaryFolder& folder, int32_t magic, int32_t version, int32_t num_tokens,
              int32_t token_bytes) {
  std::string bytes(1024 + static_cast<size_t>(num_tokens * token_bytes), '\0');
  const int32_t header[] = {magic, version, num_tokens};
  std::memcpy(bytes.data(), header, sizeof(header));
  folder.Write("text.bin", bytes);
}

TEST(JobChecksTest, TheHeaderOfABinFileCounts) {
  const JobFolder small;
  const std::string set = "data.train=" + (small.folder / "text.bin");
  WriteBin(small.folder, 20240801, 7, 81, 4);  // 10 samples
  EXPECT_EQ(small.Errors({set}), "");
  EXPECT_THAT(small.Errors({set, "eval.every=5", "data.val_fraction=0.09"}),
              HasSubstr("data.val_fraction = 0.09 of 10 samples leaves none to evaluate on"));
  WriteBin(small.folder, 20240801, 7, 8, 4);
  EXPECT_THAT(small.Errors({set}), HasSubstr("text.bin has 8 tokens, a sample needs"));
  WriteBin(small.folder, 1, 7, 81, 4);
  EXPECT_THAT(small.Errors({set}), HasSubstr("text.bin: magic 1 version 7 is no token file"));
}

TEST(JobChecksTest, TokensLieInTheVocabulary) {
  const JobFolder small;
  const std::string set = "data.train=" + (small.folder / "text.bin");
  std::string bytes(1024, '\0');
  const int32_t header[] = {20240520, 1, 81};
  std::memcpy(bytes.data(), header, sizeof(header));
  for (int i = 0; i < 81; ++i) bytes += i == 50 ? std::string("\x00\x01", 2) : std::string(2, '\0');
  small.folder.Write("text.bin", bytes);
  EXPECT_EQ(small.Errors({set}), "--set " + Shown(set) +
                                     ": data.train = " + (small.folder / "text.bin") +
                                     ": token 256 at position 50 lies outside model.vocab_size = "
                                     "256: raise it, or give the file of this vocabulary");
  EXPECT_EQ(small.Errors({set, "model.vocab_size=257"}), "");
}

TEST(JobChecksTest, DataThatIsNoTextIsRefused) {
  const JobFolder small;
  const std::string path = small.folder.Write(
      "tokenizer.json", "{\"version\": 1, \"vocab\": {" + std::string(999, ' ') + "}}");
  const std::string set = "data.train=" + path;
  EXPECT_THAT(small.Errors({set}), HasSubstr("tokenizer.json: this is JSON, not text: "));
  EXPECT_EQ(small.Errors({set, "data.format=bytes"}), "");
  EXPECT_THAT(small.Errors({set, "data.format=tokens"}), HasSubstr("no token file of llm.c"));
  EXPECT_THAT(small.Errors({"data.format=utf8"}),
              HasSubstr("data.format = utf8: use auto (by the name's ending), bytes or tokens"));
}

TEST(JobChecksTest, ThePromptLiesInTheVocabulary) {
  const JobFolder small;
  WriteBin(small.folder, 20240520, 1, 81, 2);
  const std::vector<std::string> sets = {"data.train=" + (small.folder / "text.bin"),
                                         "model.vocab_size=100", "eval.sample.tokens=4"};
  auto with = [&](const std::string& prompt) {
    auto all = sets;
    all.push_back("eval.sample.prompt=" + prompt);
    return small.Errors(all);
  };
  EXPECT_EQ(with("abc"), "");
  EXPECT_EQ(with("abcd"),
            "--set eval.sample.prompt=abcd: eval.sample.prompt = abcd: its bytes are tokens, and "
            "100 lies outside model.vocab_size = 100: use other text");
}

TEST(JobChecksTest, AllErrorsComeInOnePass) {
  const JobFolder small;
  const std::vector<std::string> wrong = {
      "optimizer.eps=0",   "checkpoint.keep=0",       "kind=x",
      "parallelism.tp=0",  "parallelism.cp=-1",       "optimizer.lr=-1",
      "train.steps=0",     "lr_scheduler.name=step",  "lr_scheduler.warmup_steps=-1",
      "train.dtype=half",  "parallelism.schedule=zz", "model.hidden_size=0",
      "data.train=nobody", "data.val_fraction=2"};
  const auto lines = Lines(small.Errors(wrong));
  for (const std::string& set : wrong) {
    const std::string key = set.substr(0, set.find('='));
    EXPECT_TRUE(std::ranges::any_of(lines, [&](const std::string& line) {
      return line.starts_with("--set " + set + ": " + key + " = ");
    })) << set;
  }
  EXPECT_EQ(lines.size(), wrong.size()) << small.Errors(wrong);
}

// Settings that are wrong by themselves, and what is said of each.
const std::vector<std::pair<std::string, std::string>> kIndependent = {
    {"model.num_key_value_heads=3", "model.num_key_value_heads = 3 does not divide"},
    {"model.intermediate_size=0", "model.intermediate_size = 0: use"},
    {"model.vocab_size=4k", "write 4000 or 4096"},
    {"model.rms_norm_eps=-1", "model.rms_norm_eps = -1"},
    {"model.hidden_act=gelu", "model.hidden_act = gelu"},
    {"model.bos_token_id=-4", "model.bos_token_id = -4"},
    {"model.max_position_embeddings=4", "batch.seq_len = 8 exceeds"},
    {"model.init_from=/nonexistent", "model.init_from"},
    {"batch.global_batch_size=7", "batch.global_batch_size = 7 is not a multiple"},
    {"batch.gradient_groups=0", "batch.gradient_groups = 0"},
    {"parallelism.dp=0", "parallelism.dp = 0"},
    {"parallelism.tp=2", "parallelism.tp = 2"},
    {"parallelism.pp=9", "parallelism.pp = 9 needs"},
    {"parallelism.schedule=nosuch", "parallelism.schedule = nosuch"},
    {"parallelism.virtual_stages=-1", "parallelism.virtual_stages = -1"},
    {"parallelism.stage_layers=[1]", "parallelism.stage_layers = [1]"},
    {"parallelism.executor=lazy", "parallelism.executor = lazy"},
    {"parallelism.pairs=odd", "parallelism.pairs = odd"},
    {"parallelism.activation_slack=nan", "parallelism.activation_slack = nan"},
    {"parallelism.nonesuch=1", "there is no key parallelism.nonesuch"},
    {"data.format=json", "data.format = json"},
    {"data.train=/nonexistent.txt", "data.train = /nonexistent.txt: "},
    {"train.dtype=half", "train.dtype = half"},
    {"train.grad_dtype=half", "train.grad_dtype = half"},
    {"train.recompute=half", "train.recompute = half"},
    {"parallelism.cp_method=star", "parallelism.cp_method = star"},
    {"parallelism.cp_load_balance=even", "parallelism.cp_load_balance = even"},
    {"parallelism.persist_elements=-2", "parallelism.persist_elements = -2"},
    {"parallelism.zero_group=-2", "parallelism.zero_group = -2"},
    {"parallelism.bucket_bytes=-2", "parallelism.bucket_bytes = -2"},
    {"parallelism.reduction=mean", "parallelism.reduction = mean"},
    {"data_parallel.algorithm=mean", "data_parallel.algorithm = mean"},
    {"optimizer.lr=nan", "optimizer.lr = nan"},
    {"lr_scheduler.name=step", "lr_scheduler.name = step"},
    {"eval.batches=0", "eval.batches = 0"},
    {"checkpoint.keep=x", "checkpoint.keep = x"},
};

TEST(JobChecksTest, NoErrorHidesAnother) {
  const JobFolder small(std::string(kTinyJob).replace(kTinyJob.find("micro_batch_size: 1"),
                                                      sizeof("micro_batch_size: 1") - 1,
                                                      "micro_batch_size: 2"));
  ASSERT_EQ(small.Errors(), "");
  for (const auto& [first, first_said] : kIndependent) {
    for (const auto& [second, second_said] : kIndependent) {
      if (first >= second) continue;
      const std::string said = small.Errors({first, second});
      EXPECT_THAT(said, AllOf(HasSubstr(first_said), HasSubstr(second_said)))
          << first << " " << second;
    }
  }
}

TEST(JobChecksTest, EveryFindingIsASpecError) {
  const JobFolder small;
  for (const auto& [set, said] : kIndependent) {
    const auto job = small.Load({set, "train.steps=20"});
    if (set == "model.max_position_embeddings=4" || job.ok()) continue;
    const bool alone = set == "parallelism.pp=9";
    EXPECT_EQ(ExitCode(job.error().code), alone ? 3 : 2) << set;
  }
  small.folder.Write("empty.bin", "");
  small.folder.Write("short.bin", "abc");
  WriteBin(small.folder, 1, 1, 81, 2);
  ASSERT_TRUE(SystemFiles().CreateDirectories(small.folder / "folder.bin").ok());
  ASSERT_EQ(::mkfifo((small.folder / "fifo.bin").c_str(), 0600), 0);
  for (const char* name : {"empty.bin", "short.bin", "text.bin", "folder.bin", "fifo.bin"}) {
    const auto job = small.Load({"data.train=" + (small.folder / name)});
    ASSERT_FALSE(job.ok()) << name;
    EXPECT_EQ(ExitCode(job.error().code), 2) << job.error().message;
  }
}

TEST(JobChecksTest, OneErrorDoesNotMakeAnother) {
  const JobFolder small;
  EXPECT_EQ(Lines(small.Errors({"eval.every=5"})).size(), 1u);
  EXPECT_EQ(Lines(small.Errors({"train.steps=0", "train.stop_after=5"})).size(), 1u);
  EXPECT_EQ(Lines(small.Errors({"model.hidden_size=-8"})).size(), 1u);
  EXPECT_EQ(Lines(small.Errors({"parallelism.dp=-2"})).size(), 1u);
  EXPECT_EQ(Lines(small.Errors({"parallelism.pp=x", "parallelism.stage_layers=[2, 1, 1]"})).size(),
            1u);
  EXPECT_EQ(Lines(small.Errors({"parallelism.pp=9", "parallelism.stage_layers=[2, 2]"})).size(),
            1u);
  EXPECT_EQ(
      Lines(small.Errors({"parallelism.schedule=dualpipe", "batch.global_batch_size=0"})).size(),
      1u);
  EXPECT_EQ(Lines(small.Errors({"model.vocab_size=0", "model.bos_token_id=3"})).size(), 1u);
  EXPECT_EQ(Lines(small.Errors({"model.init_from=/nonexistent"})).size(), 1u);
}

TEST(JobChecksTest, APlaceIsTheValueInTheFileThatGaveIt) {
  const JobFolder small(std::string(kTinyJob) + "optimizer: {eps: 0, betas: [1, 2]}\n");
  EXPECT_EQ(small.Errors(),
            small.path +
                ":13:28: optimizer.betas = [1, 2]: use two numbers from 0 to below 1, as "
                "[0.9, 0.95]\n" +
                small.path + ":13:18: optimizer.eps = 0: use 1e-8");
  const std::string child =
      small.folder.Write("child.yaml", "extends: job.yaml\ncheckpoint:\n  keep: 0\n");
  const auto job =
      testing::LoadJob(SystemFiles(), child, {{"kind", "x"}, {"optimizer.betas", "[0.8, 0.9]"}});
  ASSERT_FALSE(job.ok());
  EXPECT_EQ(job.error().message, "--set kind=x: kind = x: use pretrain, evaluate or sample\n" +
                                     small.path + ":13:18: optimizer.eps = 0: use 1e-8\n" + child +
                                     ":3:9: checkpoint.keep = 0: use 1 or more");
}

TEST(JobChecksTest, AnAbsentKeyIsSaidOfTheFileAlone) {
  const JobFolder empty("{}\n");
  const auto lines = Lines(empty.Errors());
  EXPECT_EQ(lines.size(), 10u) << empty.Errors();
  for (const std::string& line : lines) {
    EXPECT_THAT(line, AllOf(StartsWith(empty.path + ": "), HasSubstr(" is missing")));
  }
}

TEST(JobChecksTest, WhatAUserWroteIsShownInOneShortLine) {
  const JobFolder small;
  const std::string errors = small.Errors({"kind=" + std::string(4000, 'x')});
  EXPECT_EQ(Lines(errors).size(), 1u);
  EXPECT_LT(errors.size(), 1200u);
  EXPECT_THAT(errors, HasSubstr("kind = xxx"));
  EXPECT_THAT(small.Errors({"kind=" + std::string(100'000, 'x')}),
              HasSubstr("...: kind has 100000 bytes: use at most 4096"));
  EXPECT_THAT(small.Errors({"kind=\"a\\nb\""}),
              HasSubstr(": kind has the control character 0x0a at byte 1: take it out"));
}

TEST(JobChecksTest, WithoutAnIntervalACheckpointIsWrittenEveryTenMinutes) {
  const JobFolder small;
  EXPECT_EQ(small.Load()->spec.checkpoint().every_seconds(), 600);
  EXPECT_EQ(small.Load({"checkpoint.every=0"})->spec.checkpoint().every_seconds(), 0);
  EXPECT_EQ(small.Load({"checkpoint.every=5", "checkpoint.every_seconds=30"})
                ->spec.checkpoint()
                .every_seconds(),
            30);
  EXPECT_THAT(small.Errors({"checkpoint.every_seconds=-1"}),
              ::testing::HasSubstr("checkpoint.every_seconds = -1: use 0 (never) or more"));
  EXPECT_THAT(small.Errors({"checkpoint.resume_as=other"}),
              ::testing::HasSubstr("checkpoint.resume_as = other: use same_run or new_run"));
}

}  // namespace
}  // namespace troupe::testing
