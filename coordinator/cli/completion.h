// `troupe completion bash|zsh`: a script that completes verbs and flags, made of the command line's
// own description. Pure.
#pragma once

#include <string>

#include <CLI/CLI.hpp>

namespace troupe {

enum class Shell : uint8_t { kBash, kZsh };

std::string CompletionScript(const CLI::App& app, Shell shell);

}  // namespace troupe
