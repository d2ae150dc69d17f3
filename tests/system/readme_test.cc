// What the README promises, as far as a machine can tell. Its commands run, from the repository's
// root, and print what stands below them; what it names is there. `./run test` and `./run bench`
// are left out: the one runs this, the other takes its time and judges itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/support/shell.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

const std::string kRoot = TROUPE_SOURCE_DIR;
const std::string kCut = "…";  // in the README: what depends on the machine, or is left out

struct Command {
  std::string text{};
  std::vector<std::string> output{};  // the lines below it
};

std::string TextOf(const std::string& path) {
  std::ifstream file(kRoot + "/" + path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::string> LinesOf(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// The README from `first` up to `last`.
std::string Passage(const std::string& first, const std::string& last) {
  const std::string text = TextOf("README.md");
  const size_t begin = text.find(first);
  const size_t end = text.find(last, begin);
  EXPECT_TRUE(begin != std::string::npos && end != std::string::npos) << first;
  return begin == std::string::npos || end == std::string::npos ? ""
                                                                : text.substr(begin, end - begin);
}

// Every match of a pattern's group.
std::vector<std::string> All(const std::string& text, const std::regex& pattern) {
  std::vector<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it) {
    found.push_back((*it)[1]);
  }
  return found;
}

std::vector<Command> ReadmeCommands() {
  std::vector<Command> commands;
  bool console = false;
  for (const std::string& line : LinesOf(TextOf("README.md"))) {
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

// A line's text, with each number replaced by one sign, and the numbers.
struct Worded {
  std::string text{};
  std::vector<double> numbers{};
};
Worded WordsOf(const std::string& line) {
  static const std::regex kNumber(R"(-?\d+(\.\d+)?(e[+-]\d+)?)");
  Worded words{.text = std::regex_replace(line, kNumber, "#")};
  for (std::sregex_iterator it(line.begin(), line.end(), kNumber), end; it != end; ++it) {
    words.numbers.push_back(std::stod(it->str()));
  }
  return words;
}

// Losses of training follow the CPU's bits; they are judged within five per cent.
bool IsTraining(const std::string& promise) { return promise.find("| loss ") != std::string::npos; }

bool SaysNearly(const std::string& line, const std::string& promise) {
  const Worded here = WordsOf(line), there = WordsOf(promise);
  if (here.text != there.text || here.numbers.size() != there.numbers.size()) return false;
  for (size_t i = 0; i < here.numbers.size(); ++i) {
    if (std::abs(here.numbers[i] - there.numbers[i]) > 0.05 * std::abs(there.numbers[i])) {
      return false;
    }
  }
  return true;
}

// Up to the promise's cut, where it has one.
bool Says(std::string line, std::string promise) {
  if (const size_t cut = promise.find(kCut); cut != std::string::npos) {
    promise.resize(cut);
    if (IsTraining(promise)) {  // the cut takes whole pieces
      line.resize(std::min(line.size(), line.find("tok/s ") + 6));
      return SaysNearly(line, promise);
    }
    return line.starts_with(promise);
  }
  return IsTraining(promise) ? SaysNearly(line, promise) : line == promise;
}

// What is drawn at random follows the bits too: of a sample its prompt is promised.
std::string PromptOf(const std::string& job_file) {
  const auto found = All(TextOf(job_file), std::regex("prompt: \"([^\"]+)\""));
  return found.empty() ? "?" : found.front();
}

// The promised lines come in this order; where no cut stands between two, nothing does.
void ExpectSaid(const Command& command, const std::string& output) {
  const std::vector<std::string> lines = LinesOf(output);
  size_t at = 0;
  bool anywhere = true;
  bool sampled = false;
  for (std::string promise : command.output) {
    if (promise == kCut) {
      anywhere = true;
      continue;
    }
    if (std::exchange(sampled, promise == "sampled:")) {
      promise = PromptOf("examples/pretrain-tiny.yaml") + kCut;
    }
    size_t found = at;
    while (anywhere && found < lines.size() && !Says(lines[found], promise)) ++found;
    const bool said = found < lines.size() && Says(lines[found], promise);
    EXPECT_TRUE(said) << command.text << "\npromised: " << promise
                      << "\nsaid: " << (at < lines.size() ? lines[at] : "nothing more") << "\n"
                      << output;
    if (!said) return;
    at = found + 1;
    anywhere = promise.ends_with(kCut);
  }
}

TEST(Readme, EveryCommandRunsAndSaysWhatItPromises) {
  const auto commands = ReadmeCommands();
  ASSERT_GE(commands.size(), 2u);
  // As on a machine that has built nothing: the commands must make what they run.
  for (const std::string program : {"troupe", "troupe-rank"}) {
    std::remove((kRoot + "/build/bin/" + program).c_str());
  }
  // Nor run anything: a folder that holds a run is refused.
  (void)testing::Shell("rm -rf " + kRoot + "/runs/readme");
  size_t promises = 0;
  for (const Command& command : commands) {
    if (command.text.starts_with("./run test") || command.text.starts_with("./run bench")) continue;
    const auto result = testing::Shell("cd " + kRoot + " && CI=1 " + command.text + " 2>&1");
    EXPECT_EQ(result.exit_code, 0) << command.text << "\n" << result.output;
    ExpectSaid(command, result.output);
    promises += command.output.size();
  }
  EXPECT_GT(promises, 20u);
  // One of them is a run: its directory has what the README lists.
  const std::string listed = Passage("A run directory (", "is\nthere after every end");
  int named = 0;
  for (const std::string& name :
       All(listed, std::regex(R"(`([a-z.]+(\.(yaml|json|jsonl|svg|csv)|/))`)"))) {
    if (name == "hf/") continue;  // with save_hf
    EXPECT_TRUE(std::ifstream(kRoot + "/runs/readme/" + name).good()) << name;
    ++named;
  }
  EXPECT_GE(named, 14);
}

TEST(Readme, APromiseIsJudged) {
  const std::string step = "step     1/120 | loss 5.6810 | grad_norm 7.243 | lr 2.00e-04 | tok/s ";
  EXPECT_TRUE(Says(step + "9,000 | eta 3s", step + kCut));
  EXPECT_TRUE(
      Says("step     1/120 | loss 5.6900 | grad_norm 7.240 | lr 2.00e-04 | tok/s 1", step + kCut));
  EXPECT_FALSE(
      Says("step     1/120 | loss 5.2 | grad_norm 7.243 | lr 2.00e-04 | tok/s 1", step + kCut));
  EXPECT_FALSE(
      Says("step     2/120 | loss 5.6810 | grad_norm 7.243 | lr 2.00e-04 | tok/s 1", step + kCut));
  EXPECT_FALSE(Says("step     1/120 | loss 5.6810 | lr 2.00e-04 | tok/s 1", step + kCut));
  EXPECT_TRUE(Says("rank 0 |F0-|   4.0%", "rank 0 |F0-|   4.0%"));
  EXPECT_FALSE(Says("rank 0 |F0-|   4.1%", "rank 0 |F0-|   4.0%"));
}

TEST(Readme, NamesOnlyFoldersAndFilesThatExist) {
  int named = 0;
  for (const std::string& line : LinesOf(TextOf("README.md"))) {
    // The table of folders: "| `runtime/actor/` | …".
    if (!line.starts_with("| `") || line.find("/` |") == std::string::npos) continue;
    const std::string path = line.substr(3, line.find('`', 3) - 3);
    EXPECT_TRUE(std::ifstream(kRoot + "/" + path).good()) << path;
    ++named;
  }
  EXPECT_GE(named, 6);
}

TEST(Readme, NamesOnlyTestsThatThereAre) {
  const auto builds = testing::Shell("cat $(find " + kRoot + "/tests -name CMakeLists.txt)").output;
  const auto named = All(Passage("## What works", "## Measured"), std::regex("`(\\w+_test)`"));
  EXPECT_GT(named.size(), 30u);
  for (std::string name : named) {
    const size_t level = name.find("_LEVEL_test");
    const std::string call = level == std::string::npos
                                 ? R"(troupe_(system_)?test\()" + name
                                 : R"(troupe_test_at_cpu_levels\()" + name.substr(0, level);
    EXPECT_TRUE(std::regex_search(builds, std::regex(call + R"(\b)"))) << name;
  }
}

TEST(Readme, NamesEveryScheduleAndNoOther) {
  const auto listed =
      testing::Shell(TROUPE_BINARY_DIR "/bin/troupe schedule --list -o json 2>/dev/null");
  const auto json = nlohmann::json::parse(listed.output);
  std::set<std::string> known;
  for (const auto& schedule : json.at("schedules")) {
    known.insert(schedule.at("name").get<std::string>());
  }
  std::set<std::string> named;
  for (const std::string& name :
       All(Passage("The names are", "`auto`"), std::regex("`([a-z0-9-]+)`"))) {
    named.insert(name);
  }
  known.erase("auto");
  EXPECT_EQ(named, known);
}

TEST(Readme, ItsErrorIsWhatTheCommandSays) {
  const auto promised = All(TextOf("README.md"), std::regex("`(job.yaml:7:16: [^`]+)`"));
  ASSERT_EQ(promised.size(), 1u);
  const testing::TemporaryFolder folder;
  folder.Write("text.txt", std::string(1000, 'x'));
  folder.Write("job.yaml", R"(name: small
model: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, num_attention_heads: 2,
        num_key_value_heads: 2, vocab_size: 256}
data: {train: text.txt}
parallelism: {pp: 1}
batch: {micro_batch_size: 1, global_batch_size: 4, seq_len: 8}
train: {steps: 0}
)");
  const auto result = testing::Shell("cd " + folder.path() +
                                     " && " TROUPE_BINARY_DIR "/bin/troupe validate job.yaml 2>&1");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.output, HasSubstr(promised.front()));
}

}  // namespace
}  // namespace troupe
