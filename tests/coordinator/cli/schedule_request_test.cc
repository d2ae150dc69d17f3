#include "coordinator/cli/schedule_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

constexpr const char* kTwoRanks = "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n";

ScheduleFlags Of(std::vector<std::string> names, int ranks = 4, int microbatches = 8) {
  return {.names = std::move(names), .ranks = ranks, .microbatches = microbatches};
}

ScheduleRequest Request(const ScheduleFlags& options) {
  auto request = MakeScheduleRequest(options, SystemFiles());
  EXPECT_TRUE(request.ok()) << request.error().message;
  return *std::move(request);
}

std::string Refusal(const ScheduleFlags& options) {
  const auto request = MakeScheduleRequest(options, SystemFiles());
  EXPECT_FALSE(request.ok());
  if (request.ok()) return "";
  EXPECT_EQ(ExitCode(request.error().code), 2);
  return request.error().message;
}

TEST(ScheduleRequestTest, ANameBecomesItsLists) {
  const ScheduleRequest request = Request(Of({"ZBV"}));
  EXPECT_FALSE(request.compare);
  ASSERT_EQ(request.schedules.size(), 1U);
  const RequestedSchedule& requested = request.schedules.front();
  EXPECT_EQ(requested.name, "zb-v");
  EXPECT_EQ(requested.placement, "v");
  EXPECT_EQ(requested.executable.schedule.num_stages, 8);
  EXPECT_EQ(static_cast<double>(requested.costs.stages[0].forward_ns) * 2, request.unit.ns);
  EXPECT_EQ(request.unit.name, "");
  EXPECT_THAT(request.remarks, ElementsAre());
}

TEST(ScheduleRequestTest, AFileBringsItsOwnShape) {
  TemporaryFolder folder;
  const std::string path = folder.Write("mine.csv", kTwoRanks);
  const ScheduleRequest request = Request({.names = {path}});
  EXPECT_EQ(request.schedules[0].name, path);
  EXPECT_EQ(request.schedules[0].placement, "loop");
  EXPECT_EQ(request.schedules[0].executable.schedule.num_microbatches, 2);
  EXPECT_THAT(Refusal(Of({path})), HasSubstr("--stages 4: " + path + " is for 2 ranks"));
  EXPECT_THAT(Refusal({.names = {path}, .microbatches = 4}),
              HasSubstr("--microbatches 4: " + path + " is for 2 microbatches"));
}

TEST(ScheduleRequestTest, CollectivesArePutIntoTheLists) {
  ScheduleFlags options = Of({"1f1b"}, 2, 2);
  options.unshard = 1;
  options.costs.unshard = 0.5;
  options.costs.reduce_grad = 2;
  const ScheduleRequest request = Request(options);
  EXPECT_EQ(ToCsv(request.schedules[0].executable.schedule),
            "0UNSHARD,0F0,0F1,0B0,0B1,0REDUCE_GRAD,0RESHARD\r\n"
            "1UNSHARD,1F0,1B0,1F1,1B1,1REDUCE_GRAD,1RESHARD\r\n");
  const StageCost& cost = request.schedules[0].costs.stages[1];
  EXPECT_EQ(static_cast<double>(cost.unshard_ns), request.unit.ns / 2);
  EXPECT_EQ(static_cast<double>(cost.reduce_grad_ns), request.unit.ns * 2);
}

TEST(ScheduleRequestTest, CollectivesArePutWhereTheyHaveAPlace) {
  TemporaryFolder folder;
  const std::string path = folder.Write("own.csv", "0UNSHARD,0F0,0B0,0RESHARD\n");
  EXPECT_EQ(Refusal({.names = {path}, .unshard = 2}),
            "--unshard 2: " + path + " has collectives of its own; leave --unshard out");
  ScheduleFlags options = Of({"dualpipe-v"}, 2, 4);
  options.unshard = 1;
  EXPECT_THAT(Refusal(options), HasSubstr("--unshard 1: row 1, cell"));
  options.unshard = 0;
  EXPECT_EQ(Refusal(options), "--unshard 0: use 1 to 32768");
  options = Of({"dynamic"});
  options.unshard = 2;
  EXPECT_THAT(Refusal(options), HasSubstr("free-run follows none; use strict or guided"));
  options.names = {"auto"};
  EXPECT_EQ(Refusal(options), "--unshard: schedule auto chooses it; leave it out");
}

TEST(ScheduleRequestTest, AFilesPlacementIsRecognised) {
  TemporaryFolder folder;
  const auto placement = [&](const char* text) {
    return Request({.names = {folder.Write("p.csv", text)}}).schedules[0].placement;
  };
  EXPECT_EQ(placement("0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n"), "v");
  EXPECT_EQ(placement("0F0,3F1,0B0,3B1\n1F0,2F1,1B0,2B1\n"), "bidirectional");
  EXPECT_EQ(placement("1F0,1B0\n0F0,0B0\n"), "custom");
}

TEST(ScheduleRequestTest, SaysWhatAFileIs) {
  TemporaryFolder folder;
  const std::string older = folder.Write("older.csv", "0F0,0BW0\n1F0,1B0,1W0\n");
  EXPECT_THAT(Request({.names = {older}}).remarks,
              ElementsAre(HasSubstr("PyTorch's older dialect")));
  const std::string sends =
      folder.Write("sends.csv", "0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n");
  EXPECT_THAT(Request({.names = {sends}}).remarks, ElementsAre(HasSubstr("sends and receives")));
  const std::string blank = folder.Write("blank.csv", "0F0,0B0\n\n1F0,1B0\n");
  EXPECT_THAT(Request({.names = {blank}}).remarks,
              ElementsAre(blank + " gives rank 1 nothing to do: row 2 has no action"));
}

TEST(ScheduleRequestTest, ABrokenFileIsRefusedByRowAndCell) {
  TemporaryFolder folder;
  const std::string unread = folder.Write("a.csv", "0F0,0B0\n1F0,nonsense\n");
  EXPECT_THAT(Refusal({.names = {unread}}),
              HasSubstr(unread + ": row 2, cell 2: action 'nonsense'"));
  const std::string invalid = folder.Write("b.csv", "0B0,0F0\n1F0,1B0\n");
  EXPECT_THAT(Refusal({.names = {invalid}}), HasSubstr(invalid + ": row 1, cell 1 (0B0): it stands "
                                                                 "before 0F0"));
  EXPECT_THAT(Refusal({.names = {folder / "none.csv"}}), HasSubstr("none.csv: cannot open"));
}

TEST(ScheduleRequestTest, CompareGivesChunksAndGroupsToThoseThatTakeThem) {
  ScheduleFlags options = Of({"compare", "1f1b", "interleaved-1f1b", "zb-v"});
  options.chunks = 4;
  options.group = 8;
  const ScheduleRequest request = Request(options);
  EXPECT_TRUE(request.compare);
  ASSERT_EQ(request.schedules.size(), 3U);
  EXPECT_EQ(request.schedules[0].executable.schedule.num_stages, 4);
  EXPECT_EQ(request.schedules[1].executable.schedule.num_stages, 16);
  EXPECT_EQ(request.schedules[2].executable.schedule.num_stages, 8);
  options.names = {"compare", "1f1b", "zb-v"};
  EXPECT_THAT(Refusal(options), HasSubstr("--chunks 4: none of the schedules"));
  options.chunks.reset();
  EXPECT_THAT(Refusal(options), HasSubstr("--group 8: none of the schedules"));
}

TEST(ScheduleRequestTest, AMemoryLimitIsFreeRunsAndTheBounds) {
  ScheduleFlags options = Of({"compare", "1f1b", "dynamic"});
  options.memory_limit = 5;
  const ScheduleRequest request = Request(options);
  EXPECT_EQ(request.figures.activations_max, 5);
  EXPECT_EQ(request.schedules[0].executable.policy.mode, ExecutorMode::kStrict);
  EXPECT_EQ(request.schedules[1].executable.policy.activation_limit, 5);
}

TEST(ScheduleRequestTest, SamplesAndNoiseAreTheFigures) {
  ScheduleFlags options = Of({"1f1b"});
  options.noise.jitter = 0.1;
  options.samples = 20;
  const FigureOptions figures = Request(options).figures;
  EXPECT_EQ(figures.num_samples, 20);
  EXPECT_EQ(figures.noise.sigma, 0.1);
}

TEST(ScheduleRequestTest, EveryRefusalIsASentenceWithTheWayOut) {
  const auto with = [](auto change) {
    ScheduleFlags options = Of({"zb-v"});
    change(options);
    return Refusal(options);
  };
  using O = ScheduleFlags&;
  EXPECT_THAT(with([](O o) { o.names = {}; }), HasSubstr("troupe schedule --list"));
  EXPECT_THAT(with([](O o) { o.names = {"zbx"}; }), HasSubstr("use one of 1f1b"));
  EXPECT_THAT(with([](O o) {
                o.names = {"1f1b", "zb-v"};
              }),
              HasSubstr("troupe schedule compare 1f1b zb-v"));
  EXPECT_THAT(with([](O o) { o.names = {"compare", "1f1b"}; }), HasSubstr("name two schedules"));
  EXPECT_THAT(with([](O o) { o.ranks.reset(); }), HasSubstr("give --stages P"));
  EXPECT_EQ(with([](O o) { o.ranks = 0; }), "--stages 0: use 1 to 16384");
  EXPECT_EQ(with([](O o) { o.microbatches = 0; }), "--microbatches 0: use 1 to 1048576");
  EXPECT_THAT(with([](O o) {
                o.ranks = 8000;
                o.microbatches = 8000;
              }),
              HasSubstr("384000000 actions, more than 4000000"));
  EXPECT_THAT(with([](O o) { o.chunks = 3; }), HasSubstr("--chunks 3: schedule zb-v holds 2 a"));
  EXPECT_THAT(with([](O o) {
                o.names = {"interleaved"};
                o.chunks = 1;
              }),
              HasSubstr("holds 2 or more a rank"));
  EXPECT_THAT(with([](O o) { o.group = 4; }), HasSubstr("--group 4: schedule zb-v takes no"));
  EXPECT_THAT(with([](O o) {
                o.names = {"dualpipe"};
                o.microbatches = 4;
              }),
              HasSubstr("at least 2p = 8"));
  EXPECT_EQ(with([](O o) { o.output = "yaml"; }), "--output yaml: use text, json, csv or svg");
  EXPECT_EQ(with([](O o) { o.dialect = "xml"; }), "--dialect xml: use troupe or pytorch");
  EXPECT_EQ(with([](O o) { o.dialect = "pytorch"; }), "--dialect pytorch is for -o csv, not text");
  EXPECT_EQ(with([](O o) {
              o.with_communication = true;
              o.output = "json";
            }),
            "--with-communication is for -o csv, not json");
  EXPECT_THAT(with([](O o) {
                o.names = {"compare", "1f1b", "zb-v"};
                o.output = "csv";
              }),
              HasSubstr("a file holds one schedule"));
  EXPECT_THAT(with([](O o) { o.rho = 1.5; }), HasSubstr("--rho 1.5: use 0 to 1"));
  EXPECT_THAT(with([](O o) { o.memory_limit = 0; }), HasSubstr("--memory-limit 0: a rank must"));
  EXPECT_THAT(with([](O o) { o.noise.straggler = "4,2"; }),
              HasSubstr("schedule zb-v has ranks 0 to 3"));
  EXPECT_EQ(with([](O o) { o.samples = 0; }), "--samples 0: use 1 to 1000000");
  EXPECT_EQ(with([](O o) { o.execution.executor = "loose"; }),
            "--executor loose: use strict, guided or free-run");
  EXPECT_EQ(with([](O o) { o.execution.weight_parts = 99; }), "--weight-parts 99: use 1 to 64");
}

}  // namespace
}  // namespace troupe
