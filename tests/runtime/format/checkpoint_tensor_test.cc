#include "runtime/format/checkpoint_tensor.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <limits>

#include "runtime/format/json_reader.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

Result<CheckpointTensors> Read(const std::string& text) {
  const auto document = nlohmann::json::parse(R"({"tensors":)" + text + "}");
  return ReadTensors(JsonFields(document, "/m"), "tensors", "/m");
}

// What a reader says of one tensor of 12 elements with these pieces, or "read".
std::string Said(const std::string& pieces) {
  const auto read = Read(R"({"t":{"dtype":"F32","shape":[4,3],"pieces":)" + pieces + "}}");
  return read.ok() ? "read" : read.error().message;
}

TEST(CheckpointTensorTest, ReadsBackWhatWasWritten) {
  const CheckpointTensors tensors = {
      {"pieces",
       {.shape = {4, 3}, .pieces = {{"a.safetensors", 0, 5, 0x12}, {"b.safetensors", 5, 7}}}},
      {"whole", WholeTensor("a.safetensors", TensorDtype::kBf16, {4, 3}, 0x34)},
      {"scalar", WholeTensor("a.safetensors", TensorDtype::kF64, {})},
      {"empty", WholeTensor("a.safetensors", TensorDtype::kF32, {3, 0})}};
  const auto again = Read(TensorsText(tensors));
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(*again, tensors);
}

TEST(CheckpointTensorTest, AWholeTensorIsWrittenAsByEarlierBuilds) {
  EXPECT_EQ(
      TensorsText({{"t", WholeTensor("a.safetensors", TensorDtype::kBf16, {4, 3}, 0x12)}}),
      R"({"t":{"file":"a.safetensors","dtype":"BF16","shape":[4,3],"xxh3":"0000000000000012"}})");
  EXPECT_EQ(TensorsText({{"t", WholeTensor("a.safetensors", TensorDtype::kF32, {2})}}),
            R"({"t":{"file":"a.safetensors","dtype":"F32","shape":[2]}})");
  const CheckpointTensor halves = {
      .shape = {2}, .pieces = {{"a.safetensors", 0, 1, 0x12}, {"b.safetensors", 1, 1}}};
  EXPECT_EQ(TensorsText({{"t", halves}}),
            R"({"t":{"dtype":"F32","shape":[2],"pieces":[)"
            R"({"file":"a.safetensors","first_element":0,"num_elements":1,)"
            R"("xxh3":"0000000000000012"},)"
            R"({"file":"b.safetensors","first_element":1,"num_elements":1}]}})");
}

TEST(CheckpointTensorTest, RefusesPiecesThatAreNotTheTensor) {
  const auto piece = [](const std::string& file, int64_t first, int64_t count) {
    return fmt::format(R"({{"file":"{}.safetensors","first_element":{},"num_elements":{}}})", file,
                       first, count);
  };
  const auto said = [&](const std::vector<std::string>& pieces) {
    return Said(fmt::format("[{}]", fmt::join(pieces, ",")));
  };
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(said({piece("a", 0, 5), piece("b", 5, 7)}), "read");
  EXPECT_EQ(said({piece("a", 0, 5), piece("b", 6, 6)}),
            "/m: tensors 't': there is a gap before the piece in 'b.safetensors': it begins at "
            "element 6, not 5");
  EXPECT_THAT(said({piece("a", 0, 5), piece("b", 4, 8)}), HasSubstr("an overlap before the piece"));
  EXPECT_THAT(said({piece("a", 5, 7), piece("b", 0, 5)}), HasSubstr("a gap")) << "not in order";
  EXPECT_THAT(said({piece("a", -1, 13)}), HasSubstr("an overlap"));
  EXPECT_THAT(said({piece("a", 0, 5)}),
              HasSubstr("there is a gap at its end: its pieces have 5 of 12 elements"));
  EXPECT_THAT(said({piece("a", 0, 5), piece("b", 5, 8)}),
              HasSubstr("has 8 elements from element 5 on, the tensor has 12"));
  EXPECT_THAT(said({piece("a", 0, kMost)}), HasSubstr("the tensor has 12"));
  EXPECT_THAT(said({piece("a", 0, 5), piece("b", 5, kMost)}), HasSubstr("the tensor has 12"));
  EXPECT_THAT(said({piece("a", 0, 12), piece("b", 12, 0)}), HasSubstr("has 0 elements"));
  EXPECT_THAT(said({piece("a", 0, -5)}), HasSubstr("has -5 elements"));
  EXPECT_THAT(said({piece("a", 0, 5), piece("a", 5, 7)}),
              HasSubstr("two of its pieces are in 'a.safetensors'"));
  EXPECT_THAT(said({piece("../a", 0, 12)}), HasSubstr("piece 1: file must be the name"));
  EXPECT_THAT(said({}), HasSubstr("it has no pieces"));
  EXPECT_THAT(said({"7"}), HasSubstr("piece 1: not an object"));
  EXPECT_THAT(Said("7"), HasSubstr("pieces must be a list"));
  EXPECT_THAT(said({R"({"file":"a.safetensors","num_elements":12})"}),
              HasSubstr("piece 1: the key first_element is missing"));
}

TEST(CheckpointTensorTest, AnyCuttingIsWholeAndNoneWithoutOneOfItsPieces) {
  EXPECT_TRUE(rc::check("pieces are the tensor, or the problem is said", [] {
    const auto counts = *rc::gen::nonEmpty(
        rc::gen::container<std::vector<int64_t>>(rc::gen::inRange<int64_t>(1, 5000)));
    CheckpointTensor tensor{.shape = {0}};
    for (const int64_t count : counts) {
      tensor.pieces.push_back({.file = fmt::format("{}.safetensors", tensor.pieces.size()),
                               .first_element = tensor.shape[0],
                               .num_elements = count});
      tensor.shape[0] += count;
    }
    RC_ASSERT(PiecesProblem(tensor) == "");
    const auto again = Read(TensorsText({{"t", tensor}}));
    RC_ASSERT(again.ok() && again->at("t") == tensor);
    const auto at = *rc::gen::inRange<size_t>(0, counts.size());
    CheckpointTensor lacking = tensor;
    lacking.pieces.erase(lacking.pieces.begin() + static_cast<int64_t>(at));
    RC_ASSERT(PiecesProblem(lacking) != "");
    CheckpointTensor moved = tensor;
    moved.pieces[at].first_element += *rc::gen::element<int64_t>(-1, 1);
    RC_ASSERT(PiecesProblem(moved) != "");
    CheckpointTensor longer = tensor;
    longer.pieces[at].num_elements += *rc::gen::element<int64_t>(-1, 1);
    RC_ASSERT(PiecesProblem(longer) != "");
  }));
}

}  // namespace
}  // namespace troupe
