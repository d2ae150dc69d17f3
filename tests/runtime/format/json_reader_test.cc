#include "runtime/format/json_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace troupe {
namespace {

using ::testing::HasSubstr;

std::string ProblemOf(std::string_view text, const JsonBounds& bounds = {}) {
  const auto parsed = ParseJson(text, "/x.json", bounds);
  return parsed.ok() ? "none" : parsed.error().message;
}

TEST(ParseJsonTest, BuildsTheDocument) {
  const std::string text = R"({"a":[1,-2,3.5,"x",null,true,{"b":{}}],"c":[[],[0]]})";
  const auto parsed = ParseJson(text, "/x.json");
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(*parsed, nlohmann::json::parse(text));
  EXPECT_EQ(*ParseJson("7", ""), 7);
}

TEST(ParseJsonTest, RefusesWhatIsNotJson) {
  for (const char* text :
       {"", "{", "[1,]", "{\"a\":1}x", "{\"a\" 1}", "\"\xff\"", "nul", "1e999"}) {
    EXPECT_THAT(ProblemOf(text), HasSubstr("/x.json: not the JSON expected here")) << text;
  }
}

TEST(ParseJsonTest, KeepsItsBounds) {
  EXPECT_THAT(ProblemOf("[[[0]]]", {.max_depth = 2}), HasSubstr("deeper than 2"));
  EXPECT_EQ(ProblemOf("[[0]]", {.max_depth = 2}), "none");
  EXPECT_THAT(ProblemOf("[0,0,0]", {.max_values = 3}), HasSubstr("more than 3 values"));
  EXPECT_EQ(ProblemOf("[0,0]", {.max_values = 3}), "none");
  EXPECT_THAT(ProblemOf(std::string(10'000'000, '[')), HasSubstr("deeper than 32"));
  EXPECT_THAT(ProblemOf(R"({"a":1,"b":{"a":2},"a":3})"), HasSubstr("key 'a' given twice"));
}

TEST(JsonFieldsTest, ReadsAndNamesWhatIsWrong) {
  const auto document = *ParseJson(
      R"({"i":7,"big":3000000000,"huge":18446744073709551615,"d":1.5,"s":"x","b":true,"n":null,
          "o":{}})",
      "/x.json");
  const JsonFields fields(document, "/x.json");
  int32_t i = 0;
  int64_t big = 0;
  double d = 0;
  std::string s;
  bool b = false;
  EXPECT_TRUE(fields.Require("i", &i).ok() && fields.Require("big", &big).ok());
  EXPECT_TRUE(fields.Read("d", &d).ok() && fields.Read("s", &s).ok() && fields.Read("b", &b).ok());
  EXPECT_EQ(i, 7);
  EXPECT_EQ(big, 3'000'000'000);
  EXPECT_EQ(d, 1.5);
  EXPECT_EQ(s, "x");
  EXPECT_TRUE(b);
  EXPECT_TRUE(fields.Read("n", &i).ok() && fields.Read("absent", &i).ok());
  EXPECT_EQ(i, 7);
  EXPECT_THAT(fields.Require("absent", &i).error().message,
              HasSubstr("/x.json: the key absent is missing"));
  EXPECT_THAT(fields.Require("n", &i).error().message, HasSubstr("the key n is missing"));
  EXPECT_THAT(fields.Read("big", &i).error().message, HasSubstr("big must be a whole number"));
  EXPECT_FALSE(fields.Read("huge", &big).ok());
  EXPECT_FALSE(fields.Read("d", &big).ok());
  EXPECT_FALSE(fields.Read("s", &d).ok());
  EXPECT_FALSE(fields.Read("i", &s).ok());
  EXPECT_FALSE(fields.Read("i", &b).ok());
  EXPECT_TRUE(fields.RequireObject("o").ok());
  EXPECT_FALSE(fields.RequireObject("i").ok());
}

TEST(QuotedTest, IsShortAndPrintable) {
  EXPECT_EQ(Quoted("a\nb\xff"), "'a?b?'");
  EXPECT_LT(Quoted(std::string(1 << 20, 'x')).size(), 100u);
}

}  // namespace
}  // namespace troupe
