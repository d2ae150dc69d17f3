// Every command of the README runs: the lines that begin with "$ " in its console blocks, from the
// repository's root. `./run test` itself is left out: it is what runs this.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/shell.h"

namespace troupe {
namespace {

struct Command {
  std::string text{};
  std::vector<std::string> output{};  // the lines below it
};

std::vector<Command> ReadmeCommands() {
  std::ifstream file(std::string(TROUPE_SOURCE_DIR) + "/README.md");
  std::vector<Command> commands;
  bool console = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("```")) {
      console = line == "```console";
    } else if (console && line.starts_with("$ ")) {
      commands.push_back({.text = line.substr(2)});
    } else if (console && !commands.empty()) {
      commands.back().output.push_back(line);
    }
  }
  return commands;
}

TEST(Readme, EveryCommandRunsAndSaysWhatItPromises) {
  const auto commands = ReadmeCommands();
  ASSERT_GE(commands.size(), 2u);
  // As on a machine that has built nothing: the commands must make what they run.
  for (const std::string program : {"troupe", "troupe-rank"}) {
    std::remove((TROUPE_SOURCE_DIR "/build/bin/" + program).c_str());
  }
  // Nor run anything: a folder that holds a run is refused.
  (void)testing::Shell("rm -rf " TROUPE_SOURCE_DIR "/runs/readme");
  for (const Command& command : commands) {
    if (command.text.starts_with("./run test") || command.text.starts_with("./run bench")) continue;
    const auto result =
        testing::Shell("cd " TROUPE_SOURCE_DIR " && CI=1 " + command.text + " 2>&1");
    EXPECT_EQ(result.exit_code, 0) << command.text << "\n" << result.output;
    for (const std::string& line : command.output) {
      // Numbers that depend on the machine are cut away in the README by "…".
      if (line.find("bit-equal") == std::string::npos) continue;
      EXPECT_NE(result.output.find(line), std::string::npos) << command.text << ": " << line;
    }
  }
}

TEST(Readme, NamesOnlyFoldersAndFilesThatExist) {
  std::ifstream file(std::string(TROUPE_SOURCE_DIR) + "/README.md");
  int named = 0;
  for (std::string line; std::getline(file, line);) {
    // The table of folders: "| `runtime/actor/` | …".
    if (!line.starts_with("| `") || line.find("/` |") == std::string::npos) continue;
    const std::string path = line.substr(3, line.find('`', 3) - 3);
    EXPECT_TRUE(std::ifstream(std::string(TROUPE_SOURCE_DIR) + "/" + path).good()) << path;
    ++named;
  }
  EXPECT_GE(named, 6);
}

}  // namespace
}  // namespace troupe
