#include "coordinator/cli/schedule_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include <nlohmann/json.hpp>

namespace troupe {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

struct Report {
  ScheduleRequest request{};
  std::vector<ScheduleFigures> figures{};
};

Report Of(const ScheduleFlags& options) {
  auto request = MakeScheduleRequest(options, SystemFiles());
  EXPECT_TRUE(request.ok()) << request.error().message;
  Report report{.request = *std::move(request)};
  for (const RequestedSchedule& requested : report.request.schedules) {
    auto figures = FiguresOf(requested.executable, requested.costs, report.request.figures);
    EXPECT_TRUE(figures.ok()) << figures.error().message;
    report.figures.push_back(*std::move(figures));
  }
  return report;
}

ScheduleFlags Named(std::vector<std::string> names, int ranks = 4, int microbatches = 8) {
  return {.names = std::move(names), .ranks = ranks, .microbatches = microbatches};
}

json Json(const ScheduleFlags& options) {
  const Report report = Of(options);
  return json::parse(ScheduleJson(report.request, report.figures));
}

TEST(ScheduleReport, JsonHasTheKeysAndTheClosedForms) {
  const json zb_v = Json(Named({"zb-v"}, 8, 32));
  std::vector<std::string> keys;
  const Report report = Of(Named({"zb-v"}, 8, 32));
  const auto ordered = nlohmann::ordered_json::parse(ScheduleJson(report.request, report.figures));
  for (const auto& [key, value] : ordered.items()) keys.push_back(key);
  EXPECT_THAT(
      keys, ElementsAre("name", "ranks", "stages", "microbatches", "placement", "makespan", "span",
                        "bubble_makespan", "bubble_span", "bubble_makespan_time",
                        "bubble_span_time", "peak_activations", "parameter_replicas",
                        "messages_per_microbatch", "lower_bound_makespan", "valid", "actions"));
  EXPECT_EQ(zb_v["name"], "zb-v");
  EXPECT_EQ(zb_v["ranks"], 8);
  EXPECT_EQ(zb_v["stages"], 16);
  EXPECT_EQ(zb_v["microbatches"], 32);
  EXPECT_EQ(zb_v["placement"], "v");
  EXPECT_EQ(zb_v["makespan"], 99.5);
  EXPECT_EQ(zb_v["span"], 96.0);
  EXPECT_EQ(zb_v["bubble_makespan_time"], 3.5);
  EXPECT_EQ(zb_v["bubble_span_time"], 0.0);
  EXPECT_EQ(zb_v["bubble_makespan"], 0.0351758793970);
  EXPECT_EQ(zb_v["bubble_span"], 0.0);
  EXPECT_EQ(zb_v["peak_activations"], json(std::vector<double>(8, 8)));
  EXPECT_EQ(zb_v["parameter_replicas"], 1);
  EXPECT_EQ(zb_v["messages_per_microbatch"], 28);
  EXPECT_EQ(zb_v["lower_bound_makespan"], 99.5);
  EXPECT_EQ(zb_v["valid"], true);
  EXPECT_EQ(zb_v["actions"].size(), 8U);
  EXPECT_TRUE(zb_v["actions"][7].get<std::string>().starts_with("7F0,8F0,7F1,8F1,"));
}

// Times come back as they were given, to the last digit.
TEST(ScheduleReport, TimesAreInTheUsersUnit) {
  ScheduleFlags options = Named({"gpipe"});
  options.costs = {.forward = 0.1, .backward_input = 0.2, .backward_weight = 0.3, .hop = 0.01};
  const json one = Json(options);
  EXPECT_EQ(one["makespan"], 6.66) << "11 of 0.6 and 6 hops";
  EXPECT_EQ(one["bubble_makespan_time"], 1.86);
  options.names = {"1f1b"};
  options.costs = {.forward = 18522, .backward_input = 18086, .backward_weight = 9337, .hop = 601};
  options.ranks = 8;
  options.microbatches = 24;
  EXPECT_NEAR(Json(options)["bubble_makespan"].get<double>(), 0.2431, 0.00005) << "published";
}

TEST(ScheduleReport, BidirectionalSchedulesHoldTheirParametersTwice) {
  ScheduleFlags options = Named({"dualpipe"}, 8, 20);
  const json eager = Json(options);
  EXPECT_EQ(eager["placement"], "bidirectional");
  EXPECT_EQ(eager["parameter_replicas"], 2);
  EXPECT_EQ(eager["bubble_makespan_time"], 3.0);
  EXPECT_EQ(eager["lower_bound_makespan"], 63.0);
  options.execution.pairs = "fused";
  EXPECT_EQ(Json(options)["bubble_makespan_time"], 6.0);
}

TEST(ScheduleReport, SamplesAddErrorsAndTheExcess) {
  ScheduleFlags options = Named({"compare", "zb-v", "dynamic"}, 4, 12);
  options.noise.jitter = 0.2;
  options.samples = 40;
  const json both = Json(options)["schedules"];
  ASSERT_EQ(both.size(), 2U);
  for (const json& one : both) {
    EXPECT_EQ(one["samples"], 40);
    for (const char* key :
         {"makespan", "span", "bubble_makespan", "bubble_span", "bubble_makespan_time",
          "bubble_span_time", "excess_over_sampled_lower_bound"}) {
      EXPECT_TRUE(one.contains(key)) << key;
      EXPECT_GT(one[std::string(key) + "_standard_error"].get<double>(), 0) << key;
    }
  }
  EXPECT_LT(both[1]["excess_over_sampled_lower_bound"], both[0]["excess_over_sampled_lower_bound"]);
  const Report report = Of(options);
  EXPECT_THAT(ScheduleText(report.request, report.figures, 100), HasSubstr("above samples'"));
}

TEST(ScheduleReport, TextDrawsWithinItsColumnsAndTellsTheFigures) {
  const Report report = Of(Named({"zb-h1"}));
  const std::string text = ScheduleText(report.request, report.figures, 80);
  std::istringstream lines(text);
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(line, "zb-h1 · 4 ranks × 8 microbatches");
  for (int rank = 0; rank < 4; ++rank) {
    std::getline(lines, line);
    EXPECT_EQ(line.size(), 80U) << line;
  }
  EXPECT_THAT(text, HasSubstr("\nmakespan     27, bubble 11.11 % (3)\n"));
  EXPECT_THAT(text, HasSubstr("\nlower bound  27 with 4 microbatches' activations"));
  EXPECT_THAT(text, HasSubstr("\nactivations  4 microbatches on every rank\n"));
  EXPECT_THAT(text, HasSubstr("\nparameters   held once; 6 messages a microbatch"));
  EXPECT_THAT(text, Not(HasSubstr("ms")));
}

TEST(ScheduleReport, CompareSharesOneScaleAndSetsATable) {
  const Report report = Of(Named({"compare", "1f1b", "zb-v"}));
  const std::string text = ScheduleText(report.request, report.figures, 100);
  EXPECT_THAT(text, HasSubstr("\nschedule  makespan   bubble  span   bubble  peak  copies  messages"
                              "  bound  above it\n"));
  EXPECT_THAT(text, HasSubstr("\n1f1b            33  27.27 %    33  27.27 %     4       1         6"
                              "     27   22.22 %\n"));
  EXPECT_THAT(text, HasSubstr("\nzb-v          25.5   5.88 %    24   0.00 %     4       1        12"
                              "   25.5    0.00 %\n"));
  const std::string svg = ScheduleSvg(report.request, report.figures);
  EXPECT_THAT(svg, HasSubstr("1f1b · 4 ranks × 8 microbatches"));
  EXPECT_THAT(svg, HasSubstr("makespan 25.5 · bubble 5.9 % of it"));
  EXPECT_THAT(svg, HasSubstr(">27.27 %</text>")) << "the table";
}

TEST(ScheduleReport, CsvOfADynamicRunIsTheOrderThatRan) {
  ScheduleFlags options = Named({"dynamic"});
  options.output = "csv";
  const Report report = Of(options);
  const auto csv = ScheduleCsv(report.request, report.figures[0]);
  ASSERT_TRUE(csv.ok()) << csv.error().message;
  EXPECT_NE(*csv, ToCsv(report.request.schedules[0].executable.schedule));
  EXPECT_EQ(ParseCsv(*csv, "frozen")->ranks, report.figures[0].executed.ranks);
  options.dialect = "pytorch";
  const Report parts = Of(options);
  EXPECT_EQ(ScheduleCsv(parts.request, parts.figures[0]).error().message,
            "--dialect pytorch: PyTorch's files have no parts of a weight gradient; give "
            "--weight-parts 1");
  options.execution.weight_parts = 1;
  options.with_communication = true;
  const Report whole = Of(options);
  EXPECT_THAT(*ScheduleCsv(whole.request, whole.figures[0]), HasSubstr("0SEND_F0"));
}

TEST(ScheduleReport, RemarksOnALimitThatIsExceeded) {
  ScheduleFlags options = Named({"compare", "1f1b", "v-min"});
  options.memory_limit = 3;
  const Report report = Of(options);
  EXPECT_THAT(ScheduleRemarks(report.request, report.figures),
              ElementsAre("1f1b holds 4 microbatches' activations on a rank, above --memory-limit "
                          "3"));
}

TEST(ScheduleReport, TheListNamesWhatThereIs) {
  const std::string text = *ScheduleList(ScheduleOutput::kText);
  EXPECT_THAT(text, HasSubstr("\nzb-h1 (zb1p)\n  shape        m >= p; loop placement, 1 chunk\n  "
                              "bubble       (p-1)(f+b-w)\n"));
  const json list = json::parse(*ScheduleList(ScheduleOutput::kJson))["schedules"];
  EXPECT_GE(list.size(), 13U);
  EXPECT_EQ(list[0]["name"], "1f1b");
  EXPECT_EQ(list[0]["chunks_max"], 1);
  for (const json& one : list) {
    for (const char* key : {"name", "aliases", "constraint", "placement", "bubble",
                            "peak_activations", "messages_per_microbatch", "parameter_replicas"}) {
      EXPECT_TRUE(one.contains(key)) << one["name"] << key;
    }
    EXPECT_THAT(text, HasSubstr("\n" + one["name"].get<std::string>())) << "both lists have it";
  }
  EXPECT_FALSE(ScheduleList(ScheduleOutput::kSvg).ok());
}

TEST(ScheduleReport, BothListsHaveAuto) {
  const std::string text = *ScheduleList(ScheduleOutput::kText);
  const json list = json::parse(*ScheduleList(ScheduleOutput::kJson))["schedules"];
  const json& chosen = list.back();
  EXPECT_EQ(chosen["name"], "auto");
  EXPECT_EQ(chosen["parameter_replicas"], 1);
  EXPECT_EQ(chosen["peak_activations"], "at most --memory-limit, unless given 1.5p");
  EXPECT_TRUE(chosen["placement"].is_null()) << "the order that it takes has one";
  const std::string of_auto = text.substr(text.find("\nauto\n"));
  for (const char* fact : {"constraint", "peak_activations", "note"}) {
    EXPECT_THAT(of_auto, HasSubstr(chosen[fact].get<std::string>()));
  }
  for (const auto& [key, value] : list.front().items()) EXPECT_TRUE(chosen.contains(key)) << key;
}

TEST(ScheduleReport, TheListSaysWhichWayBreadthFirstRunsBack) {
  const json list = json::parse(*ScheduleList(ScheduleOutput::kJson))["schedules"];
  std::string note;
  for (const json& one : list) {
    if (one["name"] == "looped-bfs") note = one["note"];
  }
  EXPECT_THAT(note, HasSubstr("backwards ascend"));
  EXPECT_THAT(*ScheduleList(ScheduleOutput::kText), HasSubstr("\n  note         " + note + "\n"));
  EXPECT_TRUE(list.front()["note"].is_null());
}

}  // namespace
}  // namespace troupe
