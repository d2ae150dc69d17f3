// The tree's own rules, read off the sources: who may include whom, how long lines and files may
// be, and words that say nothing. The include matrix below is the design's, as data.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace troupe {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = TROUPE_SOURCE_DIR;
const std::vector<std::string> kFolders = {"proto",  "runtime",     "kernels",
                                           "actors", "coordinator", "tests"};
constexpr size_t kColumnsMax = 100;
constexpr size_t kFileLinesMax = 600;
constexpr size_t kTestLinesMax = 800;
constexpr size_t kFunctionLinesMax = 70;
// Still to be cut down; nothing joins this list.
const std::set<std::string> kLongFunctions = {"coordinator/cli/main.cc"};

// Folder -> what its files may include, longest folder first. Its own folder is always allowed.
const std::map<std::string, std::set<std::string>> kMayInclude = {
    {"proto", {}},
    {"runtime/base", {}},
    {"runtime/memory", {"runtime/base"}},
    {"runtime/trace", {"runtime/base"}},
    {"runtime/format", {"runtime/base"}},
    {"runtime/transport", {"runtime/base", "runtime/memory", "proto"}},
    {"runtime/actor",
     {"runtime/base", "runtime/memory", "runtime/transport", "runtime/trace", "proto"}},
    {"runtime/sim", {"runtime/base", "runtime/memory", "runtime/transport"}},
    {"kernels", {}},
    {"actors/schedule", {"runtime/base"}},
    {"actors/plan", {"runtime/base", "proto", "actors/schedule"}},
    {"actors/model", {"runtime", "kernels", "proto", "actors/plan"}},
    {"actors", {"runtime", "kernels", "proto", "actors/plan", "actors/schedule", "actors/model"}},
    {"coordinator", {"runtime", "proto", "actors/plan", "actors/schedule"}},
};

struct Source {
  std::string path{};  // from the root, with slashes
  std::vector<std::string> lines{};
};

const std::vector<Source>& Sources() {
  static const std::vector<Source> sources = [] {
    std::vector<Source> found;
    for (const auto& folder : kFolders) {
      for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
        const auto extension = entry.path().extension();
        if (extension != ".h" && extension != ".cc" && extension != ".cu") continue;
        Source source{fs::relative(entry.path(), kRoot).generic_string()};
        std::ifstream file(entry.path());
        for (std::string line; std::getline(file, line);) source.lines.push_back(line);
        found.push_back(std::move(source));
      }
    }
    return found;
  }();
  return sources;
}

bool IsIn(const std::string& path, const std::string& folder) {
  return path.starts_with(folder + "/");
}

std::string FolderOf(const std::string& path) {
  std::string best;
  for (const auto& [folder, allowed] : kMayInclude) {
    if (IsIn(path, folder) && folder.size() > best.size()) best = folder;
  }
  return best;
}

std::vector<std::string> IncludesOf(const Source& source) {
  static const std::regex kInclude(R"(^\s*#include \"([^\"]+)\")");
  std::vector<std::string> includes;
  for (const auto& line : source.lines) {
    std::smatch match;
    if (std::regex_search(line, match, kInclude)) includes.push_back(match[1]);
  }
  return includes;
}

TEST(LayeringTest, TheTreeIsRead) { EXPECT_GT(Sources().size(), 60u); }

TEST(LayeringTest, FoldersIncludeOnlyWhatTheyMayKnow) {
  for (const auto& source : Sources()) {
    const std::string folder = FolderOf(source.path);
    if (folder.empty()) continue;  // tests may include anything
    for (const auto& include : IncludesOf(source)) {
      const auto& allowed = kMayInclude.at(folder);
      const bool ok = FolderOf(include) == folder ||
                      std::ranges::any_of(allowed, [&](const auto& a) { return IsIn(include, a); });
      EXPECT_TRUE(ok) << source.path << " includes " << include << ", which " << folder
                      << " may not know";
    }
  }
}

TEST(LayeringTest, NoActorIncludesAnother) {
  for (const auto& source : Sources()) {
    if (!source.path.ends_with("_actor.h") && !source.path.ends_with("_actor.cc")) continue;
    const std::string own = source.path.substr(0, source.path.rfind('.')) + ".h";
    for (const auto& include : IncludesOf(source)) {
      EXPECT_TRUE(include == own || !include.ends_with("_actor.h"))
          << source.path << " includes " << include << ": actors meet in messages";
    }
  }
}

TEST(LayeringTest, IncludesAreRootedAndExist) {
  for (const auto& source : Sources()) {
    for (const auto& include : IncludesOf(source)) {
      const bool generated = include.ends_with(".pb.h");
      EXPECT_TRUE(generated || fs::exists(kRoot / include)) << source.path << ": " << include;
    }
  }
}

TEST(TidyTest, LinesAndFilesStayShort) {
  for (const auto& source : Sources()) {
    const size_t lines_max = IsIn(source.path, "tests") ? kTestLinesMax : kFileLinesMax;
    EXPECT_LE(source.lines.size(), lines_max) << source.path;
    for (size_t i = 0; i < source.lines.size(); ++i) {
      // Columns, not bytes: continuation bytes of UTF-8 do not count.
      const auto columns = std::ranges::count_if(
          source.lines[i], [](unsigned char c) { return (c & 0xc0) != 0x80; });
      EXPECT_LE(static_cast<size_t>(columns), kColumnsMax) << source.path << ":" << i + 1;
    }
  }
}

// A function at namespace scope runs from a line that opens a brace to the next "}" in column 0.
TEST(TidyTest, FunctionsStayShort) {
  const std::regex no_function(R"(^(namespace|struct|class|enum|union|extern|template|#|//|\}))");
  int functions = 0;
  for (const auto& source : Sources()) {
    if (IsIn(source.path, "tests") || kLongFunctions.contains(source.path)) continue;
    size_t start = 0;  // line of the signature's last part, 0: outside
    for (size_t i = 0; i < source.lines.size(); ++i) {
      const std::string& line = source.lines[i];
      if (start == 0) {
        const bool indented = line.starts_with("  ") && !line.starts_with("    ");
        const bool opens = !indented && (line.ends_with(") {") || line.ends_with(") const {") ||
                                         line.ends_with(") noexcept {"));
        if (opens && !std::regex_search(line, no_function)) start = i + 1;
      } else if (line == "}") {
        ++functions;
        EXPECT_LE(i + 1 - start, kFunctionLinesMax) << source.path << ":" << start;
        start = 0;
      } else if (line.starts_with("};") || line.starts_with("}  //")) {
        start = 0;  // it was a member
      }
    }
  }
  EXPECT_GT(functions, 100) << "the functions are not recognised";
}

// Files that a folder's README names in backticks are there.
TEST(TidyTest, ReadmesNameFilesThatExist) {
  static const std::regex kFile(R"(`([a-z0-9_/]+\.(h|cc)|[a-z0-9_/]+/)`)");
  int names = 0;
  for (const auto& entry : fs::recursive_directory_iterator(kRoot / "runtime")) {
    if (entry.path().filename() != "README.md") continue;
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      for (std::sregex_iterator it(line.begin(), line.end(), kFile), end; it != end; ++it) {
        ++names;
        EXPECT_TRUE(fs::exists(entry.path().parent_path() / (*it)[1].str()) ||
                    fs::exists(kRoot / (*it)[1].str()))
            << entry.path() << " names " << (*it)[1];
      }
    }
  }
  EXPECT_GT(names, 20);
}

TEST(TidyTest, HeadersOpenWithWhatTheyAreAndGuardThemselves) {
  for (const auto& source : Sources()) {
    if (!source.path.ends_with(".h")) continue;
    ASSERT_FALSE(source.lines.empty()) << source.path;
    EXPECT_TRUE(source.lines[0].starts_with("// ")) << source.path << " says not what it is";
    EXPECT_TRUE(std::ranges::find(source.lines, "#pragma once") != source.lines.end())
        << source.path;
  }
}

TEST(TidyTest, NoWordThatSaysNothing) {
  const std::regex banned(
      R"(\b(class|struct) \w*(Manager|Helper|Util|Utils|Misc|Impl|Processor)\b|T)"
      R"(ODO|FIX)"
      R"(ME)");
  for (const auto& source : Sources()) {
    for (size_t i = 0; i < source.lines.size(); ++i) {
      EXPECT_FALSE(std::regex_search(source.lines[i], banned))
          << source.path << ":" << i + 1 << ": " << source.lines[i];
    }
  }
}

}  // namespace
}  // namespace troupe
