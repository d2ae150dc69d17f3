// Schedules in files that PyTorch's loader takes, and the other way round. SKIPs where python3 has
// no torch; `TROUPE_PYTHON` names other interpreters to try, separated by colons (one environment
// for each version).
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "actors/schedule/collective_lists.h"
#include "actors/schedule/csv.h"
#include "actors/schedule/generators.h"
#include "actors/schedule/validator.h"
#include "tests/support/shell.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using testing::Shell;
using testing::TemporaryFolder;

std::vector<std::string> Pythons() {
  const char* given = std::getenv("TROUPE_PYTHON");
  std::istringstream list(given != nullptr ? given : "python3");
  std::vector<std::string> found;
  for (std::string python; std::getline(list, python, ':');) {
    if (Shell("'" + python + "' -c 'import torch' 2>/dev/null").exit_code == 0) {
      found.push_back(python);
    }
  }
  return found;
}

struct Exchanged {
  std::string name{};  // <schedule>_p<ranks>_m<microbatches>
  Schedule schedule{};
};

// Every schedule that runs in one direction, at a few shapes.
std::vector<Exchanged> AllSchedules() {
  std::vector<Exchanged> all;
  for (const ScheduleInfo& known : KnownSchedules()) {
    for (const auto& [p, m] : {std::pair{2, 4}, std::pair{4, 8}, std::pair{4, 20}}) {
      const Schedule schedule =
          *Generate({.name = std::string(known.name), .num_ranks = p, .num_microbatches = m});
      if (schedule.num_directions == 1) {
        all.push_back({fmt::format("{}_p{}_m{}", known.name, p, m), schedule});
      }
    }
  }
  return all;
}

Schedule Read(const std::string& path, CsvNotes* notes = nullptr) {
  const auto text = SystemFiles().ReadFile(path, 1 << 24);
  EXPECT_TRUE(text.ok()) << text.error().message;
  auto schedule = ParseCsv(*text, path, notes);
  EXPECT_TRUE(schedule.ok()) << path << ": " << schedule.error().message;
  return schedule.ok() ? *schedule : Schedule{};
}

// PyTorch's lowering keeps so many stages of a rank gathered unless told otherwise.
constexpr int kGatheredStages = 3;

// Without waits for sums, which older versions do not have, and recent ones put behind each.
std::vector<std::vector<Action>> WithoutWaits(std::vector<std::vector<Action>> lists) {
  for (std::vector<Action>& actions : lists) {
    std::erase_if(actions,
                  [](const Action& action) { return action.kind == ActionKind::kWaitReduceGrad; });
  }
  return lists;
}

void ExpectExchange(const std::string& python) {
  const TemporaryFolder folder;
  const std::vector<Exchanged> all = AllSchedules();
  for (const Exchanged& one : all) {
    folder.Write(one.name + ".csv", *ToCsv(one.schedule, Dialect::kPyTorch));
    folder.Write(one.name + ".comms.csv", *ToCsvWithCommunication(one.schedule));
    folder.Write(one.name + ".waits.csv", *ToCsvWithCommunication(one.schedule, Dialect::kPyTorch));
    const Schedule gathers = *WithCollectives(one.schedule, kGatheredStages);
    folder.Write(one.name + ".gathers.csv", *ToCsvWithCommunication(gathers));
    folder.Write(one.name + ".gathers_waits.csv",
                 *ToCsvWithCommunication(gathers, Dialect::kPyTorch));
  }
  const auto run =
      Shell("'" + python + "' '" + TROUPE_SOURCE_DIR +
            "/tests/actors/schedule/exchange_with_pytorch.py' '" + folder.path() + "' 2>&1");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  std::printf("%s", run.output.c_str());
  int num_own = 0;
  for (const Exchanged& one : all) {
    CsvNotes notes;
    const Schedule lowered = Read(folder / one.name + ".lowered.csv", &notes);
    EXPECT_TRUE(notes.with_communication);
    EXPECT_TRUE(Validate(lowered).ok()) << one.name << Validate(lowered).error().message;
    EXPECT_EQ(WithoutWaits(lowered.ranks), WithCollectives(one.schedule, kGatheredStages)->ranks)
        << one.name;
    if (!SystemFiles().Exists(folder / one.name + ".pytorch.csv")) {
      continue;
    }
    ++num_own;
    const Schedule own = Read(folder / one.name + ".pytorch.csv");
    EXPECT_EQ(own.placement, one.schedule.placement) << one.name;
    if (one.schedule.name == "looped-bfs") {  // theirs runs backwards from the last microbatch
      EXPECT_TRUE(Validate(own).ok());
    } else {
      EXPECT_EQ(ToCsv(own), ToCsv(one.schedule)) << one.name;
    }
  }
  EXPECT_GT(num_own, 0);
}

TEST(PyTorchExchange, EachReadsWhatTheOtherWrites) {
  const auto pythons = Pythons();
  if (pythons.empty()) {
    GTEST_SKIP() << "python3 has no torch here";
  }
  for (const std::string& python : pythons) {
    ExpectExchange(python);
  }
}

}  // namespace
}  // namespace troupe
