#include "coordinator/cli/usage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/cli/completion.h"
#include "runtime/base/vector_isa.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::map<std::string, VerbWords> kWords = {
    {"plan", {.words = {"1f1b", "zb-h1", "zb-v"}, .outputs = {"text", "svg"}}}};

class UsageTest : public ::testing::Test {
 protected:
  UsageTest() {
    app_.name("troupe");
    app_.require_subcommand(1);
    app_.set_version_flag("--version", "1");
    auto* run = app_.add_subcommand("run", "run a job: it's all");
    run->add_option("--run-dir", text_);
    run->add_option("-o,--output", text_);
    app_.add_subcommand("plan", "show");
    auto* ckpt = app_.add_subcommand("ckpt", "look");
    ckpt->require_subcommand(1);
    ckpt->add_subcommand("list", "all")->add_option("path", text_)->required();
    auto* verify = ckpt->add_subcommand("verify", "bytes");
    verify->add_option("path", text_)->required();
    verify->add_option("-o,--output", text_);
  }
  std::string Unknown(std::vector<std::string> words) {
    std::ranges::reverse(words);
    try {
      app_.parse(std::move(words));
    } catch (const CLI::ParseError&) {
    }
    return UnknownWord(app_);
  }

  CLI::App app_{};
  std::string text_{};
};

TEST_F(UsageTest, AMisspeltFlagGetsASuggestion) {
  EXPECT_EQ(Unknown({"run", "--run-dri", "a"}),
            "troupe run has no flag --run-dri: did you mean --run-dir?");
  EXPECT_EQ(Unknown({"run", "--outptu=json"}),
            "troupe run has no flag --outptu: did you mean --output?");
  EXPECT_EQ(Unknown({"run", "--nothing-like-it"}),
            "troupe run has no flag --nothing-like-it: troupe run --help lists what it takes");
  EXPECT_EQ(Unknown({"plan", "more"}),
            "troupe plan does not take more: troupe plan --help lists what it takes");
}

TEST_F(UsageTest, AMisspeltVerbToo) {
  EXPECT_THAT(UnknownVerb(app_, "rnu"), EndsWith("did you mean run?"));
  EXPECT_THAT(UnknownVerb(app_, "hepl"), EndsWith("did you mean help?"));
  EXPECT_THAT(UnknownVerb(app_, "zzzzzz"), EndsWith("troupe --help lists them"));
  EXPECT_EQ(Unknown({"ckpt", "verfy", "t1"}),
            "troupe: there is no command ckpt verfy: did you mean verify?");
  EXPECT_EQ(Unknown({"ckpt", "frobnicate"}),
            "troupe: there is no command ckpt frobnicate: troupe ckpt --help lists them");
}

TEST_F(UsageTest, WhatIsMissingBesideAMisspeltWordIsNotToldInItsPlace) {
  EXPECT_EQ(Unknown({"--verson"}), "troupe has no flag --verson: did you mean --version?");
  EXPECT_EQ(Unknown({"ckpt", "verify", "--ouput"}),
            "troupe ckpt verify has no flag --ouput: did you mean --output?");
  EXPECT_EQ(Unknown({"ckpt", "list"}), "");
}

TEST_F(UsageTest, HelpIsAVerb) {
  EXPECT_THAT(WithoutHelpVerb({"help"}), ElementsAre("--help"));
  EXPECT_THAT(WithoutHelpVerb({"help", "run", "x"}), ElementsAre("run", "--help"));
  EXPECT_THAT(WithoutHelpVerb({"run", "help"}), ElementsAre("run", "help"));
  EXPECT_THAT(WithoutHelpVerb({}), IsEmpty());
}

TEST_F(UsageTest, TheVersionNamesTheCpusLevel) {
  EXPECT_THAT(VersionLine(), HasSubstr("(" + std::string(VectorIsaName(ThisVectorIsa())) + ")"));
}

TEST_F(UsageTest, CompletionKnowsVerbsAndTheirFlags) {
  const std::string bash = CompletionScript(app_, Shell::kBash, kWords);
  EXPECT_THAT(bash, HasSubstr("'run plan ckpt help --help --version'"));
  EXPECT_THAT(bash, HasSubstr("flags='--help --run-dir --output' ;;"));
  EXPECT_THAT(bash, HasSubstr("complete -o filenames -F _troupe troupe"));
  const std::string zsh = CompletionScript(app_, Shell::kZsh, kWords);
  EXPECT_THAT(zsh, HasSubstr("#compdef troupe"));
  EXPECT_THAT(zsh, HasSubstr("'run:run a job\\: it'\\''s all'"));
}

// As a shell asks it: words, and the number of the one under the cursor.
TEST_F(UsageTest, BashCompletes) {
  const std::string script = CompletionScript(app_, Shell::kBash, kWords);
  const auto completed = [&](const std::string& words, int at) {
    const std::string command = "bash -c '" + std::string("eval \"$1\"; COMP_WORDS=(") + words +
                                "); COMP_CWORD=" + std::to_string(at) +
                                "; _troupe; echo ${COMPREPLY[*]}' - \"$SCRIPT\"";
    ::setenv("SCRIPT", script.c_str(), 1);
    std::FILE* pipe = ::popen(command.c_str(), "r");
    std::string said;
    for (int c = 0; (c = std::fgetc(pipe)) != EOF;) said += static_cast<char>(c);
    ::pclose(pipe);
    return said;
  };
  EXPECT_EQ(completed("troupe pl", 1), "plan\n");
  EXPECT_EQ(completed("troupe run --ru", 2), "--run-dir\n");
  EXPECT_EQ(completed("troupe run -o js", 3), "json jsonl\n");
  EXPECT_EQ(completed("troupe ckpt \"\"", 2), "list verify\n");
  EXPECT_EQ(completed("troupe ckpt verify --o", 3), "--output\n");
  EXPECT_EQ(completed("troupe plan zb", 2), "zb-h1 zb-v\n");
  EXPECT_EQ(completed("troupe plan compare zb-v 1", 4), "1f1b\n");
  EXPECT_EQ(completed("troupe plan -o s", 3), "svg\n");
  EXPECT_EQ(completed("troupe plan /proc/self/fdinf", 2), "/proc/self/fdinfo\n");
}

}  // namespace
}  // namespace troupe
