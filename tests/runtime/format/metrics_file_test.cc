#include "runtime/format/metrics_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "tests/support/faulty_file_system.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using testing::TemporaryFolder;

std::string TextOf(const std::string& path) { return *SystemFiles().ReadFile(path, 1 << 20); }

TEST(JsonLineTest, KeepsOrderAndEveryBitOfADouble) {
  const double loss = std::nextafter(0.1, 1.0);
  const std::string text = JsonLine()
                               .Add("step", 3)
                               .Add("loss", loss)
                               .Add("name", "a\"\\\n\x01")
                               .Add("ok", true)
                               .AddJson("list", "[1,2]")
                               .Add("nan", std::nan(""))
                               .Text();
  EXPECT_EQ(text,
            "{\"step\":3,\"loss\":0.10000000000000002,\"name\":\"a\\\"\\\\\\n\\u0001\","
            "\"ok\":true,\"list\":[1,2],\"nan\":null}");
  EXPECT_EQ(nlohmann::json::parse(text)["loss"].get<double>(), loss);
  EXPECT_EQ(JsonLine().Text(), "{}");
}

TEST(JsonStringTest, ReplacesWhatIsNotUtf8) {
  EXPECT_EQ(JsonString("Grüße €😀"), "\"Grüße €😀\"");
  for (const char* bad :
       {"\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\xc3"}) {
    const std::string text = JsonString(std::string("a") + bad + "b");
    const auto parsed = nlohmann::json::parse(text, nullptr, false);
    ASSERT_TRUE(parsed.is_string()) << text;
    EXPECT_NE(parsed.get<std::string>().find("\xef\xbf\xbd"), std::string::npos);
  }
}

TEST(CutBackToStepTest, DropsLaterStepsAndTheTornLine) {
  const TemporaryFolder folder;
  const std::string path = folder.Write(
      "m.jsonl",
      "{\"step\":1}\n{\"event\":\"x\"}\n{\"step\":3,\"loss\":1.5}\n{\"step\":2}\n{\"ste");
  ASSERT_TRUE(CutBackToStep(SystemFiles(), path, 2).ok());
  EXPECT_EQ(TextOf(path), "{\"step\":1}\n{\"event\":\"x\"}\n{\"step\":2}\n");
  ASSERT_TRUE(CutBackToStep(SystemFiles(), path, 2).ok());
  ASSERT_TRUE(CutBackToStep(SystemFiles(), path, 0).ok());
  EXPECT_EQ(TextOf(path), "{\"event\":\"x\"}\n");
  EXPECT_TRUE(CutBackToStep(SystemFiles(), folder / "absent", 2).ok());
}

TEST(CutBackToStepTest, LosesNothingOnAFullDisk) {
  const TemporaryFolder folder;
  const std::string path = folder.Write("m.jsonl", "{\"step\":1}\n{\"step\":3}\n");
  testing::FaultyFileSystem files({.full_after_bytes = 4});
  EXPECT_EQ(CutBackToStep(files, path, 2).error().code, ErrorCode::kOutOfSpace);
  EXPECT_EQ(TextOf(path), "{\"step\":1}\n{\"step\":3}\n");
}

}  // namespace
}  // namespace troupe
