#include "coordinator/state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/coordinator/harness.h"

namespace troupe {
namespace {

using testing::Harness;
using ::testing::HasSubstr;
using testing::SmallJob;

TEST(PlaceRanks, FillsAHostBeforeTheNext) {
  testing::RecordingAgent port;
  std::map<HostId, Host> hosts;
  hosts[1] = {.name = "a", .slots = 3, .port = &port, .used_slots = {1}};
  hosts[2] = {.name = "gone", .slots = 9};
  hosts[3] = {.name = "b", .slots = 2, .port = &port};
  const auto places = PlaceRanks(hosts, 3);
  ASSERT_TRUE(places.ok());
  ASSERT_EQ(places->size(), 3u);
  const std::vector<std::pair<HostId, int>> expected = {{1, 0}, {1, 2}, {3, 0}};
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ((*places)[i].host, expected[i].first) << i;
    EXPECT_EQ((*places)[i].slot, expected[i].second) << i;
  }
}

TEST(PlaceRanks, SaysHowManyAreMissing) {
  testing::RecordingAgent port;
  std::map<HostId, Host> hosts;
  hosts[1] = {.name = "a", .slots = 3, .port = &port, .used_slots = {0}};
  const auto places = PlaceRanks(hosts, 4);
  ASSERT_FALSE(places.ok());
  EXPECT_THAT(places.error().message, HasSubstr("4 workers need as many slots, 2 of 3 are free"));
  EXPECT_THAT(places.error().message, HasSubstr("--slots 2"));
}

TEST(StartWhatFits, OneJobAfterAnother) {
  Harness h;
  const HostId host = h.Join("a", 2);
  JobLife& first = h.Submitted(SmallJob(2));
  JobLife& second = h.Submitted(SmallJob(2));
  JobLife& third = h.Submitted(SmallJob(1));
  EXPECT_EQ(first.state(), proto::JOB_STATE_STARTING);
  EXPECT_EQ(second.state(), proto::JOB_STATE_QUEUED);
  EXPECT_THAT(second.summary().reason(), HasSubstr("0 of 2 are free"));
  first.Cancel({.checkpoint = false, .kill = true});
  h.Exits(first, 0, 0, 9);
  h.Exits(first, 1, 0, 9);
  EXPECT_EQ(second.state(), proto::JOB_STATE_STARTING);
  EXPECT_EQ(third.state(), proto::JOB_STATE_QUEUED) << "first come, first served";
  EXPECT_EQ(h.state.hosts.at(host).used_slots.size(), 2u);
}

TEST(HostGoneTest, QueuedJobsStay) {
  Harness h;
  const HostId host = h.Join("a", 1);
  JobLife& job = h.Submitted(SmallJob(2));
  HostGone(h.state, host, "test");
  HostGone(h.state, host, "twice");
  EXPECT_EQ(job.state(), proto::JOB_STATE_QUEUED);
  h.Join("b", 2);
  EXPECT_EQ(job.state(), proto::JOB_STATE_STARTING);
}

}  // namespace
}  // namespace troupe
