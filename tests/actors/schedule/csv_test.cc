#include "actors/schedule/csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "actors/schedule/generators.h"
#include "actors/schedule/validator.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

Schedule TwoByTwo() { return *Generate({.name = "1f1b", .num_ranks = 2, .num_microbatches = 2}); }

TEST(ScheduleCsv, WritesOneRowARank) {
  EXPECT_EQ(ToCsv(TwoByTwo()), "0F0,0F1,0B0,0B1\r\n1F0,1B0,1F1,1B1\r\n");
}

TEST(ScheduleCsv, ReadsBackWhatItWrites) {
  const Schedule written = *Generate({.name = "gpipe", .num_ranks = 3, .num_microbatches = 5});
  CsvNotes notes{.older_dialect = true, .with_communication = true};
  const auto read = ParseCsv(ToCsv(written), "mine", &notes);
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->name, "mine");
  EXPECT_EQ(read->num_stages, 3);
  EXPECT_EQ(read->num_microbatches, 5);
  EXPECT_EQ(read->placement, written.placement);
  EXPECT_EQ(read->ranks, written.ranks);
  EXPECT_FALSE(notes.older_dialect);
  EXPECT_FALSE(notes.with_communication);
}

TEST(ScheduleCsv, KeepsOverlappedPairs) {
  const std::string text = "0F0,(0F1;0B0)OVERLAP_F_B,0B1\r\n";
  const auto read = ParseCsv(text, "pairs");
  ASSERT_TRUE(read.ok()) << read.error().message;
  ASSERT_EQ(read->ranks[0].size(), 4U);
  EXPECT_EQ(read->ranks[0][0].pair, kNotPaired);
  EXPECT_EQ(read->ranks[0][1].pair, read->ranks[0][2].pair);
  EXPECT_NE(read->ranks[0][1].pair, kNotPaired);
  EXPECT_EQ(ToCsv(*read), text);
}

TEST(ScheduleCsv, SkipsBlankCellsAndBlankLastLine) {
  const auto read = ParseCsv("0F0, ,0B0\n,1F0,1B0\n\n", "blanks");
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->num_ranks, 2);
  EXPECT_EQ(ToCsv(*read), "0F0,0B0\r\n1F0,1B0\r\n");
}

TEST(ScheduleCsv, ABlankLineBetweenOthersIsARankWithoutActions) {
  for (const char* text : {"0F0,0B0\n\n1F0,1B0\n", "0F0,0B0\r\n \r\n1F0,1B0\r\n\r\n"}) {
    const auto read = ParseCsv(text, "idle");
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(read->num_ranks, 3);
    EXPECT_EQ(read->placement, (std::vector<PipelineRank>{PipelineRank(0), PipelineRank(2)}));
    EXPECT_TRUE(read->ranks[1].empty());
    EXPECT_TRUE(Validate(*read).ok());
    EXPECT_EQ(ParseCsv(ToCsv(*read), "again")->ranks, read->ranks);
  }
}

TEST(ScheduleCsv, ReadsWhatSpreadsheetsWrite) {
  const char* plain = "0F0,0F1,0B0,0B1\r\n1F0,1B0,1F1,1B1\r\n";
  for (const char* text : {
           "\xef\xbb\xbf"
           "0F0,0F1,0B0,0B1\r\n1F0,1B0,1F1,1B1\r\n",
           "\"0F0\",\"0F1\",\"0B0\",\"0B1\"\n\"1F0\", \"1B0\" ,1F1,1B1",
           "0F0,0F1,0B0,0B1,,\r\n1F0,1B0,1F1,1B1,,\r\n,,,,,\r\n\r\n,,\"\",,,\r\n",
           "0F0;0F1;0B0;0B1\r\n1F0;1B0;1F1;1B1\r\n;;;\r\n",
           "0F0\t0F1\t0B0\t0B1\n1F0\t1B0\t1F1\t1B1\n\t\t\t\n",
           "0F0,0F1,0B0,0B1\r1F0,1B0,1F1,1B1\r",
           "0F0,0F1,0B0,0B1\r\r\n1F0,1B0,1F1,1B1\r\r\n",
           "\n \r\n0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n",
           "sep=,\r\n0F0,0F1,0B0,0B1\r\n1F0,1B0,1F1,1B1\r\n",
           "\xef\xbb\xbf\"sep=;\"\n\n0F0;0F1;0B0;0B1\n1F0;1B0;1F1;1B1\n",
           "sep=\t\n0F0\t0F1\t0B0\t0B1\n1F0\t1B0\t1F1\t1B1\n",
       }) {
    const auto read = ParseCsv(text, "sheet");
    ASSERT_TRUE(read.ok()) << text << read.error().message;
    EXPECT_EQ(ToCsv(*read), plain) << text;
  }
  for (const char* pair : {"0F0;(0F1;0B0)OVERLAP_F_B;0B1\n", "0F0,\"(0F1;0B0)OVERLAP_F_B\",0B1\n",
                           "0F0;\"(0F1;0B0)OVERLAP_F_B\";0B1\n"}) {
    const auto read = ParseCsv(pair, "pair");
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(ToCsv(*read), "0F0,(0F1;0B0)OVERLAP_F_B,0B1\r\n");
  }
  // Cells after the last action are no bubbles among sends and receives.
  EXPECT_TRUE(ParseCsv("0F0,0SEND_F0,0RECV_B0,0B0,,\n1RECV_F0,1F0,1B0,1SEND_B0,\n,,\n", "c").ok());
}

TEST(ScheduleCsv, KeepsCollectivesInTheirPlace) {
  const std::string text =
      "0UNSHARD,0F0,0RESHARD,0F1,0B0,0REDUCE_GRAD0,0B1,0REDUCE_GRAD1,0WAIT_REDUCE_GRAD\r\n";
  const auto read = ParseCsv(text, "collectives");
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->num_microbatches, 2);
  EXPECT_EQ(ToCsv(*read), text);
  CsvNotes notes;
  const auto sent = ParseCsv(
      "0UNSHARD,0F0,0SEND_F0,0RECV_B0,0B0,0WAIT_SEND_F0,0REDUCE_GRAD,0WAIT_REDUCE_GRAD,0RESHARD\n"
      "1RECV_F0,1F0,1B0,1SEND_B0,1WAIT_SEND_B0\n",
      "sent", &notes);
  ASSERT_TRUE(sent.ok()) << sent.error().message;
  EXPECT_TRUE(notes.with_communication);
  EXPECT_EQ(ToCsv(*sent),
            "0UNSHARD,0F0,0B0,0REDUCE_GRAD,0WAIT_REDUCE_GRAD,0RESHARD\r\n1F0,1B0\r\n");
}

void ExpectRefused(const std::string& text, const std::string& reason) {
  const auto read = ParseCsv(text, "bad");
  ASSERT_FALSE(read.ok()) << text.substr(0, 100);
  EXPECT_EQ(read.error().code, ErrorCode::kInvalidSpec);
  EXPECT_THAT(read.error().message, HasSubstr(reason));
}

TEST(ScheduleCsv, RefusesWithRowAndCell) {
  const std::pair<std::string, const char*> cases[] = {
      {"0F0,0B0\n1F0,,1Z0\n", "row 2, cell 3: action '1Z0'"},
      {"0F0junk,0B0\n", "row 1, cell 1: action '0F0junk': 'junk' follows the action"},
      {"0F0,0B0\n0F1,0B1\n", "row 2, cell 1 (0F1): row 1 runs stage 0 too"},
      {"0F0,0B0\n2F0,2B0\n", "row 2, cell 1 (2F0): no row runs stage 1"},
      {"0F0,0B1000000\n",
       "row 1, cell 2 (0B1000000): 1 stages and microbatches 0 to 1000000 are more than 2 compute "
       "actions can serve"},
      {"0UNSHARD\n", "row 1, cell 1: the schedule has no compute action"},
      {"", "row 1, cell 1: the schedule has no compute action"},
      {"0F0,\"0B0\n", "row 1, cell 2: a quote without its other half"},
      {"\"0F0\"x,0B0\n", "row 1, cell 1: text follows the cell's quote"},
  };
  for (const auto& [text, reason] : cases) ExpectRefused(text, reason);
}

TEST(ScheduleCsv, RefusesTornPairs) {
  for (const char* pair : {"()", "(;)", "(0F0)", "(0F0;)", "(;0B0)", "(0F0;0B0;)", "(0F1;0I0;0W0)",
                           "(0F1;0UNSHARD)"}) {
    const std::string cell = std::string(pair) + "OVERLAP_F_B";
    ExpectRefused("0F0\n1F0," + cell + "\n",
                  "row 2, cell 2: pair '" + cell +
                      "' is not one Forward and one backward; write it as (0F2;0B1)OVERLAP_F_B");
  }
  ExpectRefused("(0F0;0B0,0B1\n", "row 1, cell 1: pair '(0F0;0B0' does not end in )OVERLAP_F_B");
  ExpectRefused("(0F0;0B0)OVERLAP\n", "does not end in )OVERLAP_F_B; write it as (0F2;0B1)OVERLAP");
}

TEST(ScheduleCsv, RefusesBytesThatAreNoText) {
  const std::pair<std::string, const char*> cases[] = {
      {"0F0," + std::string(101, '0') + "\n", "row 1, cell 2: 101 bytes are no action; put commas"},
      {"0F0,0B0\xc3\n", "row 1, cell 2: byte 0xc3 is part of no action; save the file as plain"},
      {std::string("0F0\n1F0,1B\0", 11), "row 2, cell 2: byte 0x00 is part of no action"},
      {"\xff\xfe0F0,0B0\n", "row 1, cell 1: byte 0xff is part of no action"},
  };
  for (const auto& [text, reason] : cases) ExpectRefused(text, reason);
}

TEST(ScheduleCsv, RefusesWhatIsTooLarge) {
  const std::pair<std::string, const char*> cases[] = {
      {"0F0\n32768F0\n",
       "row 2, cell 1: action '32768F0': its stage number is too large; use 0 to 32767"},
      {"0F0,0B99999999999\n",
       "row 1, cell 2: action '0B99999999999': its microbatch number is too large; use 0 to "
       "1048575"},
      {"0F0,0I0,0W0/1of256\n",
       "row 1, cell 3: action '0W0/1of256': its part number is too large; "
       "use 1 to 255"},
      {"0F0,0BW1048576\n",
       "row 1, cell 2: 0BW1048576, its BW read as B: action '0B1048576': its "
       "microbatch number is too large"},
  };
  for (const auto& [text, reason] : cases) ExpectRefused(text, reason);
  std::string rows;
  for (int rank = 1; rank < kRanksMax; ++rank) rows += ",\n";
  EXPECT_EQ(ParseCsv(rows + "0F0,0B0\n", "most")->num_ranks, kRanksMax);
  ExpectRefused(rows + ",\n0F0,0B0\n",
                "row 16385, cell 1: a schedule has at most 16384 ranks; give one row");
  ExpectRefused(std::string(kCsvBytesMax + 1, ','),
                "row 1, cell 1: the file has 67108865 bytes, more than 67108864; take fewer");
}

TEST(ScheduleCsv, TakesAsManyStagesOfOneRankAsThereMayBe) {
  std::string row;
  for (int stage = 0; stage < kStagesMax; ++stage) row += fmt::format("{}F0,", stage);
  for (int stage = kStagesMax; stage-- > 0;) row += fmt::format("{0}I0,{0}W0,", stage);
  const auto read = ParseCsv(row, "deep");
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->num_stages, kStagesMax);
  const auto report = Validate(*read);
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_NEAR(report->peak_activations[0], 1, 1e-6);
}

TEST(ScheduleCsv, TranslatesTheOlderDialect) {
  const std::pair<const char*, const char*> cases[] = {
      {"0F0,0BW0\n1F0,1B0,1W0\n", "0F0,0B0\r\n1F0,1I0,1W0\r\n"},
      {"0F0,0B0,0W0\n", "0F0,0I0,0W0\r\n"},  // W without I: no BW is needed to see it
  };
  for (const auto& [older, today] : cases) {
    CsvNotes notes;
    const auto read = ParseCsv(older, "older", &notes);
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_TRUE(notes.older_dialect);
    EXPECT_EQ(ToCsv(*read), today);
    EXPECT_TRUE(Validate(*read).ok());
  }
  const auto mixed = ParseCsv("0F0,0BW0,0F1,0I1,0W1\n", "mixed");
  ASSERT_FALSE(mixed.ok());
  EXPECT_THAT(mixed.error().message, HasSubstr("row 1, cell 4: action '0I1': a file with BW"));
  EXPECT_THAT(ParseCsv("0F0,0BW0junk\n", "junk").error().message, HasSubstr("'junk' follows"));
}

TEST(ScheduleCsv, TakesTheTwoDirectionsFromTheMicrobatches) {
  const Schedule written = *Generate({.name = "dualpipe", .num_ranks = 4, .num_microbatches = 8});
  const auto read = ParseCsv(ToCsv(written), "dualpipe");
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->num_directions, 2);
  EXPECT_EQ(read->num_microbatches, 8);
  EXPECT_EQ(read->placement, written.placement);
  EXPECT_EQ(read->ranks, written.ranks);
  EXPECT_TRUE(Validate(*read).ok());
  // Forward only is half as many actions.
  const auto forwards = ParseCsv("0F0,2F1\n1F0,3F1\n", "forwards");
  ASSERT_TRUE(forwards.ok()) << forwards.error().message;
  EXPECT_EQ(forwards->num_directions, 2);
  EXPECT_TRUE(forwards->forward_only);
}

TEST(ScheduleCsv, TakesIncompleteFilesForOneDirection) {
  const char* one_direction[] = {"0F0,0B0\n1F1,1B1\n",         // every rank runs one half only
                                 "0F0,0B0,1F0,1B0\n",          // no second half
                                 "0F0,0F1,0B0,0B1,1F1,1B1\n",  // stage 0 runs both
                                 "0F0,0B0,1F1,1B1,2F2,2B2\n",  // three stages
                                 "0F0,0B0,1F1,1B1,0F2,0B2,1F2,1B2\n"};  // three microbatches
  for (const char* text : one_direction) {
    const auto read = ParseCsv(text, "one");
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(read->num_directions, 1) << text;
  }
  EXPECT_EQ(ParseCsv("0F0,0B0,1F1,1B1\n", "two")->num_directions, 2);
}

TEST(ScheduleCsv, DropsCommunicationThatMatches) {
  CsvNotes notes;
  const auto read = ParseCsv("0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n", "c", &notes);
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_TRUE(notes.with_communication);
  EXPECT_EQ(ToCsv(*read), "0F0,0B0\r\n1F0,1B0\r\n");
}

TEST(ScheduleCsv, RefusesCommunicationThatDoesNotMatch) {
  const std::pair<const char*, const char*> cases[] = {
      {"0F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n",
       "row 1, cell 1 (0F0): its output goes to rank 1, but 0SEND_F0 does not stand after it"},
      {"0SEND_F0,0F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n",
       "row 1, cell 2 (0F0): its output goes to rank 1, but 0SEND_F0 does not stand after it"},
      {"0F0,0SEND_F0,0B0,0RECV_B0\n1RECV_F0,1F0,1B0,1SEND_B0\n",
       "row 1, cell 3 (0B0): its input comes from rank 1, but 0RECV_B0 does not stand before it"},
      {"0F0,0SEND_F0,0RECV_B0,0B0,0SEND_F0\n1RECV_F0,1F0,1B0,1SEND_B0\n",
       "row 1, cell 5 (0SEND_F0): it stands here a second time"},
      {"0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1SEND_F0,1B0,1SEND_B0\n",
       "row 2, cell 3 (1SEND_F0): no compute action of this row needs it"},
      {"0F0,0SEND_F0,0RECV_B0,0B0\n,1RECV_F0,1F0,1B0,1SEND_B0\n",
       "row 2, cell 1: an empty cell, but the file has sends and receives"},
      {"0F0,0SEND_F0,1RECV_F0,1F0,1B0,0B0\n", "row 1, cell 2 (0SEND_F0): no compute action"},
      {"0F0,0WAIT_SEND_F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n",
       "row 1, cell 2 (0WAIT_SEND_F0): no SEND_F of its stage and microbatch stands before it"},
  };
  for (const auto& [text, reason] : cases) {
    const auto read = ParseCsv(text, "bad");
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_THAT(read.error().message, HasSubstr(reason));
  }
}

TEST(ScheduleCsv, PyTorchsDialectRefusesWhatItLacks) {
  EXPECT_EQ(*ToCsv(TwoByTwo(), Dialect::kPyTorch), ToCsv(TwoByTwo()));
  const std::pair<Schedule, const char*> cases[] = {
      {*Generate({.name = "dualpipe", .num_ranks = 2, .num_microbatches = 4}),
       "schedule dualpipe: PyTorch's files have no two directions"},
      {*ParseCsv("0F0,0I0,0W0/1of2,0W0/2of2\n", "parts"),
       "row 1, cell 3 (0W0/1of2): PyTorch's files have no parts of a weight gradient"},
      {*ParseCsv("0F0,0B0,0REDUCE_GRAD\n", "reduce"),
       "row 1, cell 3 (0REDUCE_GRAD): PyTorch's files have no collectives without sends"},
      {*ParseCsv("0F0,0B0,0REDUCE_GRAD0\n", "one"),
       "row 1, cell 3 (0REDUCE_GRAD0): PyTorch's files have no reductions of one microbatch's"},
      {GenerateForwardOnly(2, 2, 2), "PyTorch's files have no schedules without backward"},
  };
  for (const auto& [schedule, reason] : cases) {
    const auto text = ToCsv(schedule, Dialect::kPyTorch);
    ASSERT_FALSE(text.ok());
    EXPECT_THAT(text.error().message, HasSubstr(reason));
    EXPECT_TRUE(ToCsv(schedule, Dialect::kTroupe).ok());
  }
  EXPECT_FALSE(ToCsvWithCommunication(cases[0].first, Dialect::kPyTorch).ok());
  EXPECT_TRUE(ToCsvWithCommunication(cases[2].first, Dialect::kPyTorch).ok());
}

}  // namespace
}  // namespace troupe
