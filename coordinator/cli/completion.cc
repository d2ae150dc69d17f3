#include "coordinator/cli/completion.h"

#include <fmt/format.h>

#include <string_view>
#include <vector>

namespace troupe {
namespace {

struct Verb {
  std::string name{};
  std::string description{};
  std::string flags{};  // "--set --output …"
};

std::vector<Verb> VerbsOf(const CLI::App& app) {
  std::vector<Verb> verbs;
  for (const CLI::App* verb : app.get_subcommands({})) {
    Verb& described =
        verbs.emplace_back(Verb{.name = verb->get_name(), .description = verb->get_description()});
    for (const CLI::Option* option : verb->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        described.flags += fmt::format("{}--{}", described.flags.empty() ? "" : " ", name);
      }
    }
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
    cases += fmt::format("    {}) flags='{}' ;;\n", verb.name, verb.flags);
  }
  return fmt::format(R"(# source <(troupe completion bash)
_troupe() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} flags=
  if ((COMP_CWORD == 1)) || {{ ((COMP_CWORD == 2)) && [[ $before == help ]]; }}; then
    COMPREPLY=($(compgen -W '{}help --help --version' -- "$word"))
    return
  fi
  case ${{COMP_WORDS[1]}} in
{}  esac
  case $before in
    -o | --output) COMPREPLY=($(compgen -W 'text json jsonl' -- "$word")); return ;;
  esac
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
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
    cases += fmt::format("    {}) flags=({}) ;;\n", verb.name, verb.flags);
  }
  return fmt::format(R"(#compdef troupe
# source <(troupe completion zsh)
_troupe() {{
  local -a verbs flags
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
    -o | --output) compadd text json jsonl; return ;;
  esac
  if [[ $PREFIX == -* ]]; then
    compadd -- $flags
  else
    _files
  fi
}}
compdef _troupe troupe
)",
                     names, cases);
}

}  // namespace

std::string CompletionScript(const CLI::App& app, Shell shell) {
  const std::vector<Verb> verbs = VerbsOf(app);
  return shell == Shell::kBash ? BashScript(verbs) : ZshScript(verbs);
}

}  // namespace troupe
