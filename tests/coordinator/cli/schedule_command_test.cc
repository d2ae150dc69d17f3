// `troupe schedule` as a user runs it: stdout is data, stderr is talk, and how it ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include <nlohmann/json.hpp>

#include "tests/support/shell.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;
using testing::ShellResult;
using testing::TemporaryFolder;

ShellResult Schedule(const std::string& words, const std::string& environment = "") {
  return testing::Shell(environment + " " TROUPE_PROGRAM " schedule " + words);
}

TEST(ScheduleCommand, DrawsToTheTerminalsColumns) {
  const auto widest = [](const ShellResult& result) {
    size_t most = 0;
    std::istringstream lines(result.output);
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("rank ")) most = std::max(most, line.size());
    }
    return most;
  };
  const std::string words = "1f1b --stages 4 --microbatches 8";
  EXPECT_EQ(widest(Schedule(words, "env -u COLUMNS")), 100U);
  EXPECT_EQ(widest(Schedule(words, "COLUMNS=60")), 60U);
  EXPECT_EQ(widest(Schedule(words, "COLUMNS=wide")), 100U);
}

TEST(ScheduleCommand, CsvGoesRound) {
  TemporaryFolder folder;
  const std::string file = folder / "dynamic.csv";
  const ShellResult free = Schedule("dynamic --stages 4 --microbatches 8 --comm 0.1 -o json");
  ASSERT_EQ(free.exit_code, 0);
  ASSERT_EQ(Schedule("dynamic --stages 4 --microbatches 8 --comm 0.1 -o csv > " + file).exit_code,
            0);
  const ShellResult frozen = Schedule(file + " --comm 0.1 -o json");
  ASSERT_EQ(frozen.exit_code, 0);
  const auto before = nlohmann::json::parse(free.output);
  const auto after = nlohmann::json::parse(frozen.output);
  EXPECT_EQ(before["makespan"], after["makespan"]);
  EXPECT_EQ(before["actions"], after["actions"]);
  EXPECT_EQ(after["placement"], "v");
}

TEST(ScheduleCommand, AutoSaysWhatItTookAndWhy) {
  const std::string words = " --stages 4 --microbatches 8 --comm 0.1";
  const ShellResult chosen = Schedule("auto" + words + " --memory-limit 4 -o json 2>&1");
  ASSERT_EQ(chosen.exit_code, 0) << chosen.output;
  EXPECT_TRUE(chosen.output.starts_with("auto: ")) << chosen.output;
  const auto json = nlohmann::json::parse(chosen.output.substr(chosen.output.find("\n{") + 1));
  EXPECT_NE(json["name"], "auto");
  for (const double peak : json["peak_activations"]) EXPECT_LE(peak, 4 + 1e-9);
  const auto plain = nlohmann::json::parse(Schedule("1f1b" + words + " -o json").output);
  EXPECT_LT(json["makespan"].get<double>(), plain["makespan"].get<double>());
  const std::pair<const char*, const char*> refused[] = {
      {" --executor guided", "--executor: schedule auto chooses it; leave it out"},
      {" --memory-limit 1", "--memory-limit 1: no schedule of 4 ranks holds so few microbatches"},
      {" --straggler 9,2", "--straggler 9,2: schedule "}};
  for (const auto& [flag, sentence] : refused) {
    const ShellResult result = Schedule("auto" + words + flag + " 2>&1");
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_THAT(result.output, HasSubstr(sentence));
  }
}

TEST(ScheduleCommand, SvgIsOnePicture) {
  const ShellResult svg = Schedule("compare 1f1b dualpipe --stages 4 --microbatches 8 -o svg");
  EXPECT_EQ(svg.exit_code, 0);
  EXPECT_TRUE(svg.output.starts_with("<svg xmlns"));
  EXPECT_TRUE(svg.output.ends_with("</svg>\n"));
}

TEST(ScheduleCommand, RemarksAreTalk) {
  TemporaryFolder folder;
  const std::string older = folder.Write("older.csv", "0F0,0BW0\n1F0,1B0,1W0\n");
  EXPECT_TRUE(nlohmann::json::accept(Schedule(older + " -o json 2>/dev/null").output));
  EXPECT_THAT(Schedule(older + " -o json 2>&1 >/dev/null").output, HasSubstr("older dialect"));
}

TEST(ScheduleCommand, WhatIsWrongIsASentenceAndTwo) {
  TemporaryFolder folder;
  const std::string broken = folder.Write("broken.csv", "0F0,0B0\n1B0,1F0\n");
  const std::pair<std::string, std::string> cases[] = {
      {broken, broken + ": row 2, cell 1 (1B0): it stands before 1F0"},
      {"zbx --stages 2 --microbatches 2", "schedule 'zbx' is not known; use one of 1f1b"},
      {"auot --stages 2 --microbatches 2", "dualpipe-v, dynamic, auto"},
      {"1f1b --stages two --microbatches 2", "--stages: two: use a whole number"},
      {"1f1b --stages 2 --microbatches 2 --comm far", "--comm: far: use a number"},
      {"1f1b --stages 2 --microbatches 2 -o yaml", "--output yaml: use text, json, csv or svg"},
      {"--list -o svg", "--list: use --output text or json"},
  };
  for (const auto& [words, sentence] : cases) {
    const ShellResult talk = Schedule(words + " 2>&1 >/dev/null");
    EXPECT_EQ(talk.exit_code, 2) << words;
    EXPECT_THAT(talk.output, HasSubstr(sentence));
    EXPECT_EQ(Schedule(words + " 2>/dev/null").output, "") << words;
  }
}

TEST(ScheduleCommand, ANumberThatIsTooLargeIsRefusedByItsFlag) {
  const std::pair<std::string, std::string> flags[] = {{"--seed", "18446744073709551615"},
                                                       {"--stages", "16384"},
                                                       {"--microbatches", "1048576"},
                                                       {"--chunks", "32768"},
                                                       {"--group", "1048576"},
                                                       {"--samples", "1000000"},
                                                       {"--weight-parts", "64"}};
  for (const auto& [flag, most] : flags) {
    for (const char* number : {"99999999999", "18446744073709551616", "340282366920938463463"}) {
      if (flag == "--seed" && std::string(number).size() < 20) continue;
      const ShellResult result = Schedule("1f1b " + flag + " " + number + " 2>&1");
      EXPECT_EQ(result.exit_code, 2) << flag << " " << number;
      EXPECT_THAT(result.output,
                  HasSubstr(flag + ": " + number + ": use a whole number up to " + most));
    }
  }
  EXPECT_EQ(Schedule("1f1b --stages 2 --microbatches 2 --seed 18446744073709551615").exit_code, 0);
  const ShellResult endless = Schedule("1f1b --stages 2 --microbatches 2 --comm 1e999 2>&1");
  EXPECT_EQ(endless.exit_code, 2);
  EXPECT_THAT(endless.output, HasSubstr("--comm inf: use a time from 0 to"));
}

TEST(ScheduleCommand, ALeadingZeroIsNotOctal) {
  const auto json = nlohmann::json::parse(
      Schedule("1f1b --stages 08 --microbatches 010 -o json").output, nullptr, false);
  ASSERT_TRUE(json.is_object());
  EXPECT_EQ(json["ranks"], 8);
  EXPECT_EQ(json["microbatches"], 10);
}

}  // namespace
}  // namespace troupe
