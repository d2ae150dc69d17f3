#include "coordinator/job/provenance.h"

#include <gtest/gtest.h>

namespace troupe {
namespace {

const Provenance kWritten = {{"name", {"file", {"job.yaml", 1, 7}}},
                             {"train.steps", {"file", {"job.yaml", 2, 9}}},
                             {"batch.seq_len", {"flag", {"--set batch.seq_len=8"}}},
                             {"model.head_dim", {.source = "default"}}};

std::string Said(std::string_view sentence) {
  const Place* place = PlaceOf(kWritten, sentence);
  return place == nullptr ? "" : place->Text();
}

TEST(PlaceOfTest, IsThatOfTheKeyInFront) {
  EXPECT_EQ(Said("train.steps = 0: use 1 or more"), "job.yaml:2:9");
  EXPECT_EQ(Said("train.steps"), "job.yaml:2:9");
  EXPECT_EQ(Said("batch.seq_len: too long for train.steps"), "--set batch.seq_len=8");
  EXPECT_EQ(Said("name = .x: no dot first"), "job.yaml:1:7");
}

TEST(PlaceOfTest, OfADerivedKeyIsThatOfTheNextOne) {
  EXPECT_EQ(Said("model.head_dim = 3, of train.steps = 5 (batch.seq_len)"), "job.yaml:2:9");
  EXPECT_EQ(Said("batch.seq = 5 and (batch.seq_len)"), "--set batch.seq_len=8");
}

TEST(PlaceOfTest, IsEmptyWhereNobodyWroteAKey) {
  EXPECT_EQ(Said("model.head_dim = 3 is odd"), "");
  EXPECT_EQ(Said("train.stepss and a name, train"), "");
  EXPECT_EQ(Said(""), "");
  EXPECT_EQ(Said(": name"), "") << "a name is a word here";
}

TEST(FindingTest, IsALineWithItsPlace) {
  EXPECT_EQ((Finding{.place = {"job.yaml", 7, 16}, .message = "wrong"}).Line(),
            "job.yaml:7:16: wrong");
  EXPECT_EQ((Finding{.place = {.where = "job.yaml"}, .message = "wrong"}).Line(),
            "job.yaml: wrong");
  EXPECT_EQ((Finding{.message = "job.yaml: gone"}).Line(), "job.yaml: gone");
  EXPECT_EQ(LeadingKey("train.steps = 0: of batch.seq_len"), "train.steps");
  EXPECT_EQ(LeadingKey(": train.steps"), "");
}

}  // namespace
}  // namespace troupe
