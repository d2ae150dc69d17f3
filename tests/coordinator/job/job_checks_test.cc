#include "coordinator/job/job_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/job_folder.h"

namespace troupe::testing {
namespace {

using ::testing::HasSubstr;

struct Wrong {
  std::vector<std::string> sets;
  std::string said;  // part of the sentence
  int exit_code;
};

void PrintTo(const Wrong& wrong, std::ostream* out) { *out << wrong.said; }

class JobChecksTest : public ::testing::TestWithParam<Wrong> {};

TEST_P(JobChecksTest, NamesTheFieldAndTheRemedy) {
  const JobFolder small;
  const auto job = small.Load(GetParam().sets);
  ASSERT_FALSE(job.ok());
  EXPECT_THAT(job.error().message, HasSubstr(GetParam().said));
  EXPECT_EQ(ExitCode(job.error().code), GetParam().exit_code) << job.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    Fields, JobChecksTest,
    ::testing::Values(
        Wrong{{"model.num_attention_heads=3"}, "model.num_attention_heads", 2},
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
        Wrong{{"resources.workers=3"}, "leave it out, or set 2", 2},
        Wrong{{"resources.threads_per_worker=0"}, "resources.threads_per_worker = 0", 2},
        Wrong{{"eval.every=5"}, "set data.val_fraction", 2},
        Wrong{{"eval.every=5", "data.val_fraction=0.0001"}, "leaves none to evaluate on", 2},
        Wrong{{"data.val_fraction=1.5"}, "data.val_fraction", 2},
        Wrong{{"eval.check_against=pytorch"}, "eval.check_against = pytorch", 2},
        Wrong{{"checkpoint.keep=0"}, "checkpoint.keep = 0", 2},
        Wrong{{"spec_version=2"}, "spec_version = 2: use 1", 2},
        Wrong{{"name=../elsewhere"}, "name: use up to 100 letters", 2},
        Wrong{{"batch.global_batch_size=8388608"}, "microbatches", 2},
        Wrong{{"model.num_hidden_layers=3000"}, "model.num_hidden_layers = 3000: use 1 to 2048", 2},
        Wrong{{"parallelism.dp=65536", "parallelism.cp=65536"}, "parallelism", 2},
        Wrong{{"kind=serve"}, "kind = serve: use pretrain", 2},
        Wrong{{"data.train=/no/such/text.txt"}, "data.train: /no/such/text.txt", 2},
        Wrong{{"batch.seq_len=1000"}, "a sample needs batch.seq_len + 1 = 1001 tokens", 2},
        Wrong{{"model.vocab_size=200"}, "model.vocab_size = 200: bytes as tokens", 2},
        Wrong{{"parallelism.pp=5"}, "parallelism.pp = 5", 3},
        Wrong{{"parallelism.tp=2"}, "parallelism.tp", 2},
        Wrong{{"parallelism.dp=2"}, "parallelism.dp", 2}));

TEST(JobChecksTest, SeveralErrorsComeTogetherEachWithTheFile) {
  const JobFolder small;
  const std::string errors = small.Errors({"optimizer.eps=0", "checkpoint.keep=0", "kind=x"});
  EXPECT_EQ(std::ranges::count(errors, '\n'), 2);
  EXPECT_THAT(errors, HasSubstr(small.path + ": optimizer.eps"));
}

}  // namespace
}  // namespace troupe::testing
