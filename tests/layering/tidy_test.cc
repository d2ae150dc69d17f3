// The tree's own rules, read off the sources: who may include whom, how long lines and files may
// be, and words that say nothing. The include matrix below is the design's, as data.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace troupe {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = TROUPE_SOURCE_DIR;
const std::vector<std::string> kFolders = {"proto",  "runtime",     "kernels",
                                           "actors", "coordinator", "tests"};
constexpr size_t kColumnsMax = 100;
constexpr size_t kFileLinesMax = 400;
constexpr size_t kTestLinesMax = 800;
constexpr size_t kFunctionLinesMax = 60;

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
    {"runtime/collective",
     {"runtime/base", "runtime/memory", "runtime/transport", "runtime/actor"}},
    {"runtime/sim", {"runtime/actor", "runtime/base", "runtime/memory", "runtime/transport"}},
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

struct Function {
  size_t line = 0;       // where its declaration begins, from 1
  size_t num_lines = 0;  // of declaration and body
};

// Where a line's code ends: without a comment at its end and the spaces before it.
std::string CodeOf(const std::string& line) {
  std::string code = line.substr(0, line.find("//"));
  code.erase(code.find_last_not_of(' ') + 1);
  return code;
}

// The functions of a formatted source, at namespace scope, in classes and in classes of classes; a
// lambda or a class inside of a function counts with it. A declaration runs from the first line
// after the one before it to a line that opens a brace; the body ends where a brace closes in the
// declaration's column. What opens a brace and has no parentheses before it is a scope or data.
std::vector<Function> FunctionsOf(const std::vector<std::string>& lines) {
  static const std::regex kScope(
      R"(^ *(template <[^{]*> *)?(inline )?((namespace|struct|class|enum|union)\b|extern "C"))"
      R"(( alignas\(\w*\))?[^(]*$)");
  static const std::regex kBetween(R"(^ *(\}.*|(public|private|protected):)?$)");
  std::vector<Function> functions;
  std::string declaration;
  size_t first = 0;
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string code = CodeOf(lines[i]);
    if (declaration.empty()) {
      if (code.starts_with("#")) {
        while (i + 1 < lines.size() && lines[i].ends_with("\\")) ++i;
        continue;
      }
      if (std::regex_match(code, kBetween)) continue;
      first = i;
    }
    declaration += code;
    const bool opens = code.ends_with("{");
    if (!opens && !code.ends_with(";") && !code.ends_with("}")) continue;
    const bool scope = std::regex_match(declaration.substr(0, declaration.size() - 1), kScope);
    const bool function = declaration.find(')') != std::string::npos;
    declaration.clear();
    if (!opens || scope) continue;
    const std::string end = lines[first].substr(0, lines[first].find_first_not_of(' ')) + "}";
    while (i + 1 < lines.size() && !lines[i + 1].starts_with(end)) ++i;
    ++i;  // the closing brace
    if (function) functions.push_back({first + 1, i + 1 - first});
  }
  return functions;
}

TEST(TidyTest, FunctionsAreSeenInEveryScope) {
  const std::vector<std::string> lines = {
      "namespace troupe {",               // 1
      "#define MACRO(x) \\",              //
      "  if (x) {       \\",              //
      "  }",                              //
      "constexpr int kTable[] = {",       // 5
      "    1,",                           //
      "};",                               //
      "void Plain() {",                   // 8
      "  const auto lambda = [] {",       //
      "    return 1;",                    // 10
      "  };",                             //
      "}",                                //
      "class A : public B {",             //
      " public:",                         //
      "  A() = default;",                 // 15
      "  int one() const { return 1; }",  //
      "  // A comment.",                  //
      "  void Member(int a,",             // 18
      "              int b) override {",  //
      "    if (a) {",                     // 20
      "    }",                            //
      "  }",                              //
      "  struct Inner {",                 //
      "    template <typename T>",        // 24
      "    void Deep(T) {",               // 25
      "    }",                            //
      "  };",                             //
      "};",                               //
      "A::A(int a)",                      // 29
      "    : a_(a),",                     // 30
      "      b_{a} {  // why",            //
      "}",                                //
      "}  // namespace troupe",
  };
  std::vector<std::pair<size_t, size_t>> seen;
  for (const Function& f : FunctionsOf(lines)) seen.emplace_back(f.line, f.num_lines);
  const std::vector<std::pair<size_t, size_t>> expected = {{8, 5}, {18, 5}, {24, 3}, {29, 4}};
  EXPECT_EQ(seen, expected);
}

TEST(TidyTest, FunctionsStayShort) {
  size_t functions = 0;
  for (const auto& source : Sources()) {
    if (IsIn(source.path, "tests")) continue;
    for (const Function& function : FunctionsOf(source.lines)) {
      ++functions;
      EXPECT_LE(function.num_lines, kFunctionLinesMax) << source.path << ":" << function.line;
    }
  }
  EXPECT_GT(functions, 1000u) << "the functions are not recognised";
}

// One name, one type: those of the product's namespaces, nested ones aside, which are always said
// with what they belong to.
TEST(TidyTest, NoTwoTypesShareAName) {
  static const std::regex kType(
      R"(^(class|struct|union|enum class|enum) (alignas\(\w*\) )?(\w+)( final)?( :.*)?( \{.*)?$)");
  std::map<std::string, std::string> places;
  for (const auto& source : Sources()) {
    if (IsIn(source.path, "tests")) continue;
    for (const auto& line : source.lines) {
      std::smatch match;
      const std::string code = CodeOf(line);
      if (!std::regex_match(code, match, kType)) continue;
      const auto [before, is_new] = places.emplace(match[3], source.path);
      EXPECT_TRUE(is_new) << match[3] << " is a type of " << before->second << " and of "
                          << source.path;
    }
  }
  EXPECT_GT(places.size(), 300u) << "the types are not recognised";
}

// A folder of many files says what they are together.
TEST(TidyTest, LargeFoldersHaveAReadme) {
  constexpr int kFilesMax = 16;
  std::map<fs::path, int> files;
  for (const auto& source : Sources()) ++files[fs::path(source.path).parent_path()];
  for (const auto& [folder, count] : files) {
    const bool told = fs::exists(kRoot / folder / "README.md") ||
                      fs::exists(kRoot / folder.parent_path() / "README.md");
    EXPECT_TRUE(told) << folder;
    const bool product = !IsIn(folder.generic_string() + "/", "tests");
    EXPECT_TRUE(!product || count <= kFilesMax || fs::exists(kRoot / folder / "README.md"))
        << folder << " has " << count << " files and no README.md";
  }
}

// Files that a folder's README names in backticks are there.
TEST(TidyTest, ReadmesNameFilesThatExist) {
  static const std::regex kFile(R"(`([a-z0-9_/]+\.(h|cc|proto)|[a-z0-9_/]+/)`)");
  int names = 0;
  for (const auto& folder : kFolders) {
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
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
  }
  EXPECT_GT(names, 60);
}

// What a command was asked to print goes through PrintData, which tells what was lost; what it says
// goes through Talk, which cannot fail.
TEST(TidyTest, TheCommandLinePrintsThroughOneDoor) {
  static const std::regex kOther(
      R"(fmt::print\b|std::(cout|cerr|clog)\b|\b(f?printf|fwrite|fputs|puts|putchar|perror)\()");
  for (const auto& source : Sources()) {
    if (!IsIn(source.path, "coordinator")) continue;
    for (size_t i = 0; i < source.lines.size(); ++i) {
      EXPECT_FALSE(std::regex_search(CodeOf(source.lines[i]), kOther))
          << source.path << ":" << i + 1 << ": " << source.lines[i];
    }
  }
}

// So the source is compiled as if the header stood alone (CMakeLists.txt).
TEST(LayeringTest, SourcesIncludeTheirOwnHeaderFirst) {
  std::set<std::string> paths;
  for (const auto& source : Sources()) paths.insert(source.path);
  for (const auto& source : Sources()) {
    if (!source.path.ends_with(".cc") || IsIn(source.path, "tests")) continue;
    const std::string own = source.path.substr(0, source.path.size() - 2) + "h";
    if (!paths.contains(own)) continue;
    const auto first = std::ranges::find_if(
        source.lines, [](const std::string& line) { return line.starts_with("#include"); });
    ASSERT_TRUE(first != source.lines.end()) << source.path;
    EXPECT_EQ(*first, "#include \"" + own + "\"") << source.path;
  }
}

// What a header takes from the standard library or fmt comes with its own includes or with those of
// the project's headers that it includes: the headers that compile by themselves have the
// precompiled one beside them and cannot tell.
const std::map<std::string, std::vector<std::string>> kNamesOf = {
    {"algorithm", {"std::clamp", "std::max", "std::min", "std::ranges::"}},
    {"array", {"std::array"}},
    {"charconv", {"std::from_chars", "std::to_chars"}},
    {"cmath", {"std::abs", "std::exp", "std::log", "std::pow", "std::sqrt"}},
    {"coroutine", {"std::coroutine_handle", "std::suspend_always", "std::suspend_never"}},
    {"cstdint",
     {"int8_t", "int16_t", "int32_t", "int64_t", "uint8_t", "uint16_t", "uint32_t", "uint64_t"}},
    {"deque", {"std::deque"}},
    {"filesystem", {"std::filesystem"}},
    {"fmt/format.h", {"fmt::"}},
    {"fstream", {"std::ifstream", "std::ofstream"}},
    {"functional", {"std::function", "std::hash"}},
    {"limits", {"std::numeric_limits"}},
    {"map", {"std::map"}},
    {"memory",
     {"std::make_shared", "std::make_unique", "std::shared_ptr", "std::unique_ptr",
      "std::weak_ptr"}},
    {"mutex", {"std::lock_guard", "std::mutex", "std::unique_lock"}},
    {"numeric", {"std::accumulate", "std::iota"}},
    {"optional", {"std::optional"}},
    {"set", {"std::set"}},
    {"span", {"std::span"}},
    {"string", {"std::string", "std::to_string"}},
    {"string_view", {"std::string_view"}},
    {"tuple", {"std::tuple"}},
    {"unordered_map", {"std::unordered_map"}},
    {"utility", {"std::exchange", "std::forward", "std::move", "std::pair", "std::swap"}},
    {"variant", {"std::variant", "std::visit"}},
    {"vector", {"std::vector"}},
};

bool IsWordCharacter(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

bool Names(const std::string& code, const std::string& name) {
  for (size_t at = code.find(name); at != std::string::npos; at = code.find(name, at + 1)) {
    const size_t end = at + name.size();
    const bool begins = at == 0 || !IsWordCharacter(code[at - 1]);
    if (begins && (name.ends_with(':') || end == code.size() || !IsWordCharacter(code[end]))) {
      return true;
    }
  }
  return false;
}

// Standard and fmt headers that come with `path`; `read` holds what was looked at.
void AddForeignIncludes(const std::string& path, std::set<std::string>* read,
                        std::set<std::string>* foreign) {
  static const std::regex kInclude("^#include [<\"]([^>\"]+)[>\"]");
  static const std::map<std::string, const Source*> by_path = [] {
    std::map<std::string, const Source*> sources;
    for (const Source& source : Sources()) sources.emplace(source.path, &source);
    return sources;
  }();
  if (!read->insert(path).second) return;
  const auto source = by_path.find(path);
  if (source == by_path.end()) return;
  for (const auto& line : source->second->lines) {
    std::smatch match;
    if (!line.starts_with("#include") || !std::regex_search(line, match, kInclude)) continue;
    foreign->insert(match[1]);
    AddForeignIncludes(match[1], read, foreign);
  }
}

TEST(TidyTest, HeadersIncludeWhatTheyTakeFromElsewhere) {
  for (const auto& source : Sources()) {
    if (!source.path.ends_with(".h") || IsIn(source.path, "tests")) continue;
    std::set<std::string> read, foreign;
    AddForeignIncludes(source.path, &read, &foreign);
    for (const auto& [header, names] : kNamesOf) {
      if (foreign.contains(header)) continue;
      for (const auto& line : source.lines) {
        const std::string code = CodeOf(line);
        for (const auto& name : names) {
          EXPECT_FALSE(Names(code, name))
              << source.path << " uses " << name << " without <" << header << ">";
        }
      }
    }
  }
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
