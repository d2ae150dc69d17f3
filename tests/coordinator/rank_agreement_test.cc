#include "coordinator/rank_agreement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <limits>
#include <string>
#include <vector>

namespace troupe {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kGibibyte = int64_t{1} << 30;

class RankAgreementTest : public ::testing::Test {
 protected:
  void Add(const std::string& host, int64_t predicted_bytes, int64_t memory_bytes) {
    proto::Hello& hello = hellos_.emplace_back();
    hello.set_predicted_bytes(predicted_bytes);
    hello.set_memory_bytes(memory_bytes);
    words_.push_back({.host = host, .hello = &hello, .ready = &readies_.emplace_back()});
  }
  proto::Ready& ReadyOf(size_t rank) { return readies_[rank]; }

  std::deque<proto::Hello> hellos_{};
  std::deque<proto::Ready> readies_{};
  std::vector<RankWords> words_{};
};

TEST_F(RankAgreementTest, RanksOfOneHostShareItsMemory) {
  Add("a", 3 * kGibibyte, 8 * kGibibyte);
  Add("a", 3 * kGibibyte, 8 * kGibibyte);
  Add("b", 7 * kGibibyte, 8 * kGibibyte);
  EXPECT_TRUE(CheckRoomOnHosts(words_).ok());
  Add("a", 3 * kGibibyte, 8 * kGibibyte);
  const Status room = CheckRoomOnHosts(words_);
  ASSERT_FALSE(room.ok());
  EXPECT_EQ(room.error().code, ErrorCode::kInfeasible);
  EXPECT_THAT(room.error().message, HasSubstr("host a: its 3 ranks need 9.1 GiB, it has 8.0 GiB"));
  for (const char* remedy : {"--slots", "parallelism.pp", "batch.micro_batch_size"}) {
    EXPECT_THAT(room.error().message, HasSubstr(remedy));
  }
}

TEST_F(RankAgreementTest, WhatIsNotKnownIsNotJudged) {
  Add("a", 3 * kGibibyte, 0);
  Add("b", 9 * kGibibyte, 8 * kGibibyte);
  Add("b", 0, 8 * kGibibyte);
  EXPECT_TRUE(CheckRoomOnHosts(words_).ok());
}

TEST_F(RankAgreementTest, NumbersOfAnySizeAreJudged) {
  for (int i = 0; i < 4; ++i) Add("a", std::numeric_limits<int64_t>::max(), kGibibyte);
  EXPECT_FALSE(CheckRoomOnHosts(words_).ok());
}

TEST_F(RankAgreementTest, FilesAreTheSameWhereTheyAreRead) {
  proto::JobSpec spec;
  spec.mutable_data()->set_train("/data/text.txt");
  spec.mutable_model()->set_init_from("/weights");
  for (const char* host : {"a", "b", "c"}) Add(host, 0, 0);
  EXPECT_TRUE(CheckSameContent(words_, spec).ok()) << "nobody reads";
  ReadyOf(0).mutable_data()->set_num_bytes(500);
  ReadyOf(2).mutable_data()->set_num_bytes(500);
  EXPECT_TRUE(CheckSameContent(words_, spec).ok()) << "the middle of a pipeline has no say";
  ReadyOf(2).mutable_data()->set_num_bytes(400);
  const Status data = CheckSameContent(words_, spec);
  ASSERT_FALSE(data.ok());
  EXPECT_EQ(data.error().code, ErrorCode::kInvalidSpec);
  EXPECT_EQ(data.error().message,
            "data.train = /data/text.txt on host c has other bytes than on host a (400 instead "
            "of 500): give every host the same");
  ReadyOf(2).mutable_data()->set_num_bytes(500);
  ReadyOf(2).mutable_data()->set_digest(1);
  EXPECT_THAT(CheckSameContent(words_, spec).error().message, HasSubstr("(500 on both)"));
  ReadyOf(2).mutable_data()->set_digest(0);
  for (size_t rank : {0, 1}) ReadyOf(rank).mutable_init_from()->set_digest(rank);
  EXPECT_THAT(CheckSameContent(words_, spec).error().message,
              HasSubstr("model.init_from = /weights on host b has other bytes than on host a"));
}

}  // namespace
}  // namespace troupe
