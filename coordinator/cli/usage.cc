#include "coordinator/cli/usage.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <utility>

#include "coordinator/cli/answer.h"
#include "coordinator/job/yaml_walker.h"
#include "runtime/base/talk.h"
#include "runtime/base/vector_isa.h"

namespace troupe {
namespace {

constexpr int kUsage = 2;

std::string Suggestion(const std::string& word, const std::vector<std::string>& known,
                       const std::string& otherwise) {
  const std::string nearest = Nearest(word, known);
  return nearest.empty() ? otherwise : fmt::format("did you mean {}?", nearest);
}

// "troupe ckpt list"
std::string CommandOf(const CLI::App& app) {
  return (app.get_parent() == nullptr ? "" : CommandOf(*app.get_parent()) + " ") + app.get_name();
}

// Help and version are data, what is wrong is talk: of several things, a word that nobody knows.
int AnswerParse(const CLI::App& app, const CLI::ParseError& error) {
  std::ostringstream data;
  std::ostringstream talk;
  if (app.exit(error, data, talk) == 0) return PrintAnswer(data.str());
  const std::string unknown = UnknownWord(app);
  Talk("{}", unknown.empty() ? talk.str() : unknown + "\n");
  return kUsage;
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
  std::vector<std::string> verbs;
  const bool top = app.get_parent() == nullptr;
  if (top) verbs.emplace_back("help");
  for (const CLI::App* verb : app.get_subcommands({})) verbs.push_back(verb->get_name());
  const std::string shown = top ? Shown(word) : app.get_name() + " " + Shown(word);
  return fmt::format("troupe: there is no command {}: {}", shown,
                     Suggestion(word, verbs, CommandOf(app) + " --help lists them"));
}

std::string UnknownWord(const CLI::App& app) {
  const std::vector<std::string> unknown = app.remaining(/*recurse=*/true);
  if (unknown.empty()) return "";
  const CLI::App* verb = &app;
  while (!verb->get_subcommands().empty()) verb = verb->get_subcommands().front();
  const std::string command = CommandOf(*verb);
  const std::string word = unknown[0].substr(0, unknown[0].find('='));
  const std::string help = fmt::format("{} --help lists what it takes", command);
  if (!word.starts_with('-')) {
    if (!verb->get_subcommands({}).empty()) return UnknownVerb(*verb, word);
    return fmt::format("{} does not take {}: {}", command, Shown(word), help);
  }
  std::vector<std::string> flags;
  for (const CLI::Option* option : verb->get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  }
  return fmt::format("{} has no flag {}: {}", command, Shown(word), Suggestion(word, flags, help));
}

int Parse(CLI::App& app, std::vector<std::string> words) {
  const auto is_verb = [&](const CLI::App* v) { return v->get_name() == words[0]; };
  if (!words.empty() && !words[0].starts_with('-') &&
      std::ranges::none_of(app.get_subcommands({}), is_verb)) {
    Talk("{}\n", UnknownVerb(app, words[0]));
    return kUsage;
  }
  std::ranges::reverse(words);  // as CLI11 takes them
  try {
    app.parse(std::move(words));
  } catch (const CLI::ParseError& error) {
    return AnswerParse(app, error);
  }
  return 0;
}

CLI::Validator AboveZero() {
  return {[](const std::string& given) {
            double number = 0;
            const bool read = CLI::detail::lexical_cast(given, number);
            return read && number > 0 && std::isfinite(number)
                       ? ""
                       : fmt::format("{}: use a number above 0, as 6e14", given);
          },
          ""};
}

}  // namespace troupe
