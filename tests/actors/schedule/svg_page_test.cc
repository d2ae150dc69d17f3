#include "actors/schedule/svg_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe {
namespace {

using ::testing::HasSubstr;

TEST(SvgPage, EscapesWhatTextMayNotHold) {
  EXPECT_EQ(SvgEscaped("a<b> & \"c\""), "a&lt;b&gt; &amp; \"c\"");
}

TEST(SvgPage, StepsAreRoundNumbers) {
  EXPECT_DOUBLE_EQ(NiceStep(25.5, 10), 5);
  EXPECT_DOUBLE_EQ(NiceStep(0.012, 10), 0.002);
  EXPECT_DOUBLE_EQ(NiceStep(9000, 10), 1000);
}

TEST(SvgPage, ColumnsAreAsWideAsTheirLongestCell) {
  const SvgPage::Rows rows = {{"name", "±"}, {"longer name", "1.25 ± 0.01"}};
  EXPECT_DOUBLE_EQ(SvgPage::TableWidth(rows), 11 * 7.6 + 11 * 7.6 + 20);
  EXPECT_EQ(SvgPage::TableWidth({}), 0);
  SvgPage page;
  EXPECT_EQ(page.Table({}, 10, 100), 100);
  EXPECT_EQ(page.Table(rows, 10, 100), 150);
  const std::string svg = page.Finished(400, 200, ".k{fill:red}");
  EXPECT_THAT(svg, HasSubstr("<text class=\"s\" x=\"10.0\" y=\"120.0\">name</text>"));
  EXPECT_THAT(svg, HasSubstr("<text class=\"d r\" x=\"197.2\" y=\"140.0\">1.25 ± 0.01</text>"));
  EXPECT_THAT(svg, HasSubstr("viewBox=\"0 0 400 200\""));
  EXPECT_THAT(svg, HasSubstr(".k{fill:red}</style>"));
}

}  // namespace
}  // namespace troupe
