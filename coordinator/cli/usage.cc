#include "coordinator/cli/usage.h"

#include <fmt/format.h>

#include <algorithm>

#include "coordinator/job/yaml_walker.h"
#include "runtime/base/vector_isa.h"

namespace troupe {
namespace {

std::string Suggestion(const std::string& word, const std::vector<std::string>& known,
                       const std::string& otherwise) {
  const std::string nearest = Nearest(word, known);
  return nearest.empty() ? otherwise : fmt::format("did you mean {}?", nearest);
}

}  // namespace

std::string VersionLine() {
  return fmt::format("troupe {} ({})", TROUPE_VERSION, VectorIsaName(ThisVectorIsa()));
}

std::vector<std::string> WithoutHelpVerb(std::vector<std::string> words) {
  if (words.empty() || words[0] != "help") return words;
  words.erase(words.begin());
  words.resize(std::min<size_t>(words.size(), 1));
  words.emplace_back("--help");
  return words;
}

std::string UnknownVerb(const CLI::App& app, const std::string& word) {
  std::vector<std::string> verbs = {"help"};
  for (const CLI::App* verb : app.get_subcommands({})) verbs.push_back(verb->get_name());
  return fmt::format("troupe: there is no command {}: {}", Shown(word),
                     Suggestion(word, verbs, "troupe --help lists them"));
}

std::string UnknownWord(const CLI::App& app) {
  const std::vector<std::string> unknown = app.remaining(/*recurse=*/true);
  if (unknown.empty()) return "";
  const auto parsed = app.get_subcommands();
  const CLI::App& verb = parsed.empty() ? app : *parsed.front();
  const std::string command = parsed.empty() ? "troupe" : "troupe " + verb.get_name();
  const std::string word = unknown[0].substr(0, unknown[0].find('='));
  const std::string help = fmt::format("{} --help lists what it takes", command);
  if (!word.starts_with('-')) {
    return fmt::format("{} does not take {}: {}", command, Shown(word), help);
  }
  std::vector<std::string> flags;
  for (const CLI::Option* option : verb.get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  }
  return fmt::format("{} has no flag {}: {}", command, Shown(word), Suggestion(word, flags, help));
}

}  // namespace troupe
