// `troupe completion bash|zsh`: a script that completes verbs, flags and names, made of the command
// line's own description. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

namespace troupe {

enum class Shell : uint8_t { kBash, kZsh };

// What a verb takes beside flags, files and verbs of its own.
struct VerbWords {
  std::vector<std::string> words{};  // in place of a file
  std::vector<std::string> outputs = {"text", "json", "jsonl"};
};

// `words` by verb.
std::string CompletionScript(const CLI::App& app, Shell shell,
                             const std::map<std::string, VerbWords>& words);

}  // namespace troupe
