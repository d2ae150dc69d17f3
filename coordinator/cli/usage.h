// What the command line says of itself, and of words that it does not know.
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

namespace troupe {

// "troupe 1.2.0 (AVX-512)": the version and the vector instructions of this CPU.
std::string VersionLine();

// `help VERB` is `VERB --help`, and `help` alone `--help`. `words` without the program's name.
std::vector<std::string> WithoutHelpVerb(std::vector<std::string> words);

// The words after the program's name; runs the verb that they begin with. 0, or the exit code of a
// command line that is refused, or answered by itself.
int Parse(CLI::App& app, std::vector<std::string> words);

// The sentence for a verb that `app`, the program or a verb with verbs of its own, does not have.
std::string UnknownVerb(const CLI::App& app, const std::string& word);

// The sentence for the first word that the parsed verb does not take; empty where all were taken.
std::string UnknownWord(const CLI::App& app);

// Refuses what is no finite number above 0, in one short sentence.
CLI::Validator AboveZero();

}  // namespace troupe
