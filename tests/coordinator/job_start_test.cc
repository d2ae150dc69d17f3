// What a job makes of its ranks' first words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "tests/coordinator/harness.h"

namespace troupe {
namespace {

using testing::Harness;
using ::testing::HasSubstr;
using testing::SmallJob;

TEST(JobStartTest, AJobThatDoesNotFitItsHostIsRefusedWhenEveryRankHasSaidHello) {
  Harness h;
  const HostId host = h.Join("a", 2);
  JobLife& job = h.Submitted(SmallJob(2));
  for (int rank : {0, 1}) {
    proto::FromRank message;
    message.mutable_hello()->set_memory_bytes(int64_t{8} << 30);
    message.mutable_hello()->set_predicted_bytes(int64_t{5} << 30);
    h.Says(job, rank, message);
  }
  EXPECT_EQ(h.Orders(host, proto::ToRank::kPeers), 0);
  for (int rank : {0, 1}) h.Exits(job, rank, 0, SIGKILL);
  EXPECT_EQ(job.summary().exit_code(), 3);
  EXPECT_THAT(job.summary().reason(),
              HasSubstr("does not fit host a: its 2 ranks need 10.1 GiB, it has 8.0 GiB"));
}

TEST(JobStartTest, HostsWithOtherDataUnderTheSamePathAreRefusedBeforeTheFirstStep) {
  Harness h;
  const HostId a = h.Join("alpha", 1);
  h.Join("beta", 1);
  JobLife& job = h.Submitted(SmallJob(2));
  for (int rank : {0, 1}) h.Hello(job, rank);
  for (int rank : {0, 1}) {
    proto::FromRank message;
    message.mutable_ready()->mutable_data()->set_num_bytes(500);
    message.mutable_ready()->mutable_data()->set_digest(static_cast<uint64_t>(7 + rank));
    h.Says(job, rank, message);
  }
  EXPECT_EQ(h.Orders(a, proto::ToRank::kBegin), 0);
  for (int rank : {0, 1}) h.Exits(job, rank, 0, SIGKILL);
  EXPECT_EQ(job.summary().exit_code(), 2);
  EXPECT_THAT(job.summary().reason(),
              HasSubstr("data.train = /text.txt on host beta has other bytes than on host alpha"));
}

}  // namespace
}  // namespace troupe
