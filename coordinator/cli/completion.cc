#include "coordinator/cli/completion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>
#include <vector>

namespace troupe {
namespace {

struct Verb {
  std::string name{};
  std::string description{};
  std::string verbs{};    // of its own: "verify list show"
  std::string words{};    // "bash zsh"
  std::string outputs{};  // "text json jsonl"
  std::string flags{};    // "--set --output …"
};

// Names of `verb` and of its own verbs, each once.
std::string FlagsOf(const CLI::App& verb) {
  std::vector<std::string> flags;
  std::vector<const CLI::App*> all = {&verb};
  for (const CLI::App* own : verb.get_subcommands({})) all.push_back(own);
  for (const CLI::App* one : all) {
    for (const CLI::Option* option : one->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        if (std::ranges::find(flags, "--" + name) == flags.end()) flags.push_back("--" + name);
      }
    }
  }
  return fmt::format("{}", fmt::join(flags, " "));
}

std::vector<Verb> VerbsOf(const CLI::App& app, const std::map<std::string, VerbWords>& words) {
  std::vector<Verb> verbs;
  for (const CLI::App* verb : app.get_subcommands({})) {
    const auto given = words.find(verb->get_name());
    const VerbWords of_verb = given == words.end() ? VerbWords{} : given->second;
    std::vector<std::string> own;
    for (const CLI::App* one : verb->get_subcommands({})) own.push_back(one->get_name());
    verbs.push_back({.name = verb->get_name(),
                     .description = verb->get_description(),
                     .verbs = fmt::format("{}", fmt::join(own, " ")),
                     .words = fmt::format("{}", fmt::join(of_verb.words, " ")),
                     .outputs = fmt::format("{}", fmt::join(of_verb.outputs, " ")),
                     .flags = FlagsOf(*verb)});
  }
  return verbs;
}

// Within single quotes; zsh takes what follows a colon for the description.
std::string Quotable(std::string_view text) {
  std::string quotable;
  for (const char c : text) {
    if (c == '\'') {
      quotable += "'\\''";
    } else if (c == ':') {
      quotable += "\\:";
    } else {
      quotable += c;
    }
  }
  return quotable;
}

std::string BashScript(const std::vector<Verb>& verbs) {
  std::string names;
  std::string cases;
  for (const Verb& verb : verbs) {
    names += verb.name + " ";
    cases += fmt::format("    {}) verbs='{}' names='{}' outputs='{}'\n      flags='{}' ;;\n",
                         verb.name, verb.verbs, verb.words, verb.outputs, verb.flags);
  }
  return fmt::format(R"(# source <(troupe completion bash)
_troupe() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
  local verbs= names= outputs= flags=
  if ((COMP_CWORD == 1)) || {{ ((COMP_CWORD == 2)) && [[ $before == help ]]; }}; then
    COMPREPLY=($(compgen -W '{}help --help --version' -- "$word"))
    return
  fi
  case ${{COMP_WORDS[1]}} in
{}  esac
  case $before in
    -o | --output) COMPREPLY=($(compgen -W "$outputs" -- "$word")); return ;;
  esac
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
  elif ((COMP_CWORD == 2)) && [[ -n $verbs ]]; then
    COMPREPLY=($(compgen -W "$verbs" -- "$word"))
  else
    COMPREPLY=($(compgen -W "$names" -- "$word"))
    ((${{#COMPREPLY[@]}} > 0)) || COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _troupe troupe
)",
                     names, cases);
}

std::string ZshScript(const std::vector<Verb>& verbs) {
  std::string names;
  std::string cases;
  for (const Verb& verb : verbs) {
    names += fmt::format("    '{}:{}'\n", verb.name, Quotable(verb.description));
    cases += fmt::format("    {}) own=({}) names=({}) outputs=({})\n      flags=({}) ;;\n",
                         verb.name, verb.verbs, verb.words, verb.outputs, verb.flags);
  }
  return fmt::format(R"(#compdef troupe
# source <(troupe completion zsh)
_troupe() {{
  local -a verbs own names outputs flags
  verbs=(
{}    'help:show what a command takes'
  )
  if ((CURRENT == 2)) || [[ CURRENT -eq 3 && $words[2] == help ]]; then
    _describe command verbs
    return
  fi
  case $words[2] in
{}  esac
  case $words[CURRENT-1] in
    -o | --output) compadd -- $outputs; return ;;
  esac
  if [[ $PREFIX == -* ]]; then
    compadd -- $flags
  elif ((CURRENT == 3 && $#own)); then
    compadd -- $own
  else
    compadd -- $names
    _files
  fi
}}
compdef _troupe troupe
)",
                     names, cases);
}

}  // namespace

std::string CompletionScript(const CLI::App& app, Shell shell,
                             const std::map<std::string, VerbWords>& words) {
  const std::vector<Verb> verbs = VerbsOf(app, words);
  return shell == Shell::kBash ? BashScript(verbs) : ZshScript(verbs);
}

}  // namespace troupe
