#include "coordinator/job/provenance.h"

#include <gtest/gtest.h>

namespace troupe {
namespace {

const Provenance kWritten = {{"name", {"file", "job.yaml:1:7"}},
                             {"train.steps", {"file", "job.yaml:2:9"}},
                             {"batch.seq_len", {"flag", "--set batch.seq_len=8"}},
                             {"model.head_dim", {.source = "default"}}};

TEST(PlaceOfTest, IsThatOfTheKeyInFront) {
  EXPECT_EQ(PlaceOf(kWritten, "train.steps = 0: use 1 or more"), "job.yaml:2:9");
  EXPECT_EQ(PlaceOf(kWritten, "train.steps"), "job.yaml:2:9");
  EXPECT_EQ(PlaceOf(kWritten, "batch.seq_len: too long for train.steps"), "--set batch.seq_len=8");
  EXPECT_EQ(PlaceOf(kWritten, "name = .x: no dot first"), "job.yaml:1:7");
}

TEST(PlaceOfTest, OfADerivedKeyIsThatOfTheNextOne) {
  EXPECT_EQ(PlaceOf(kWritten, "model.head_dim = 3, of train.steps = 5 (batch.seq_len)"),
            "job.yaml:2:9");
  EXPECT_EQ(PlaceOf(kWritten, "batch.seq = 5 and (batch.seq_len)"), "--set batch.seq_len=8");
}

TEST(PlaceOfTest, IsEmptyWhereNobodyWroteAKey) {
  EXPECT_EQ(PlaceOf(kWritten, "model.head_dim = 3 is odd"), "");
  EXPECT_EQ(PlaceOf(kWritten, "train.stepss and a name, train"), "");
  EXPECT_EQ(PlaceOf(kWritten, ""), "");
  EXPECT_EQ(PlaceOf(kWritten, ": name"), "") << "a name is a word here";
}

}  // namespace
}  // namespace troupe
