// Damaged checkpoints: whatever byte changes is found, and named by file and tensor.
#include "runtime/format/checkpoint_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/base/digest.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::TemporaryFolder;

constexpr const char* kFile = "tensors.safetensors";

class CheckpointReaderTest : public ::testing::Test {
 protected:
  CheckpointReaderTest() {
    const std::vector<TensorSpec> specs = {{.name = "a", .shape = {4}},
                                           {.name = "b", .shape = {2}}};
    CHECK(SystemFiles().CreateDirectories(path_).ok());
    auto writer = *SafetensorsWriter::Create(SystemFiles(), JoinPath(path_, kFile), specs);
    for (const TensorSpec& spec : specs) {
      const std::string bytes(static_cast<size_t>(TensorBytes(spec)), spec.name[0]);
      CHECK(writer.Append(BytesOf(bytes)).ok());
      manifest_.tensors[spec.name] =
          WholeTensor(kFile, TensorDtype::kF32, spec.shape, DigestOf(BytesOf(bytes)));
    }
    CHECK(writer.Finish().ok());
    manifest_.files[kFile] = {writer.num_bytes(), writer.digest()};
    WriteManifest();
  }
  void WriteManifest() { folder_.Write("step-00000003/manifest.json", ManifestJson(manifest_)); }
  std::string Bytes() const { return *SystemFiles().ReadFile(JoinPath(path_, kFile), 1 << 20); }
  void Replace(const std::string& bytes) { folder_.Write(JoinPath("step-00000003", kFile), bytes); }
  std::vector<std::string> Damage() const {
    const auto report = CheckCheckpoint(SystemFiles(), path_);
    CHECK(report.ok(), "{}", report.error().message);
    return report->damage;
  }
  Status Read(const std::string& name) const {
    std::vector<std::byte> out(name == "a" ? 16 : 8);
    return CheckpointReader(SystemFiles(), path_)
        .Read(manifest_.tensors, name, manifest_.tensors.at(name).shape, 0, out);
  }

  const TemporaryFolder folder_{};
  const std::string path_ = folder_ / "step-00000003";
  CheckpointManifest manifest_{.step = 3};
};

TEST_F(CheckpointReaderTest, WhatWasWrittenIsWhole) {
  EXPECT_THAT(Damage(), IsEmpty());
  EXPECT_TRUE(Read("a").ok());
  EXPECT_TRUE(CheckCheckpoint(SystemFiles(), path_)->has_digests);
  EXPECT_EQ(manifest_.files[kFile].digest, DigestOf(BytesOf(Bytes())));
}

TEST_F(CheckpointReaderTest, EveryFlippedBitIsFound) {
  const std::string good = Bytes();
  for (size_t bit = 0; bit < 8 * good.size(); bit += 3) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    Replace(bad);
    EXPECT_THAT(Damage(), ::testing::Not(IsEmpty())) << "bit " << bit;
  }
  std::string bad = good;
  bad.back() ^= 4;
  Replace(bad);
  EXPECT_THAT(Damage(),
              ElementsAre(HasSubstr(JoinPath(path_, kFile) + ": tensor b is damaged: its bytes "
                                                             "have the digest ")));
  EXPECT_TRUE(Read("a").ok()) << "its own bytes are good";
  const Status read = Read("b");
  EXPECT_EQ(read.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(read.error().message, HasSubstr("tensor b is damaged"));
}

TEST_F(CheckpointReaderTest, AFileThatIsCutGoneOrAnothersIsNamed) {
  const std::string good = Bytes();
  Replace(good.substr(0, good.size() - 1));
  EXPECT_THAT(Damage(), ElementsAre(HasSubstr("the file is cut off")));
  Replace("");
  EXPECT_THAT(Damage(), ElementsAre(HasSubstr("shorter than 8 bytes")));
  ASSERT_TRUE(SystemFiles().RemoveAll(JoinPath(path_, kFile)).ok());
  EXPECT_THAT(Damage(), ElementsAre(HasSubstr(JoinPath(path_, kFile) + ": cannot open")));
  EXPECT_EQ(Read("a").error().code, ErrorCode::kNotFound);
  auto writer = *SafetensorsWriter::Create(SystemFiles(), JoinPath(path_, kFile),
                                           {{.name = "c", .shape = {1}}});
  ASSERT_TRUE(writer.Append(BytesOf("cccc")).ok());
  ASSERT_TRUE(writer.Finish().ok());
  EXPECT_THAT(Damage(), ElementsAre(HasSubstr("lacks tensor a"), HasSubstr("lacks tensor b")));
}

TEST_F(CheckpointReaderTest, AManifestWithoutDigestsIsReadUnverified) {
  manifest_.files.clear();
  for (auto& [name, tensor] : manifest_.tensors) tensor.pieces.front().digest.reset();
  WriteManifest();
  std::string bad = Bytes();
  bad.back() ^= 4;
  Replace(bad);
  const auto report = CheckCheckpoint(SystemFiles(), path_);
  ASSERT_TRUE(report.ok());
  EXPECT_FALSE(report->has_digests);
  EXPECT_THAT(report->damage, IsEmpty());
  EXPECT_TRUE(Read("b").ok());
}

// Elements 0 to 9 of a tensor of 2 x 5, in three files.
class PiecesTest : public ::testing::Test {
 protected:
  PiecesTest() {
    CheckpointTensor& tensor = manifest_.tensors["t"];
    tensor.shape = {2, 5};
    for (const auto& [first, count] : {std::pair(0, 3), {3, 1}, {4, 6}}) {
      std::vector<float> values;
      for (int i = 0; i < count; ++i) values.push_back(static_cast<float>(first + i));
      const auto bytes = std::as_bytes(std::span(values));
      const std::string file = fmt::format("{}.safetensors", first);
      tensor.pieces.push_back({file, first, count, DigestOf(bytes)});
      Write(file, {{.name = "t", .shape = {count}}}, bytes);
    }
  }
  void Write(const std::string& file, const std::vector<TensorSpec>& specs,
             std::span<const std::byte> bytes) {
    CHECK(SystemFiles().CreateDirectories(path_).ok());
    auto writer = *SafetensorsWriter::Create(SystemFiles(), JoinPath(path_, file), specs);
    CHECK(writer.Append(bytes).ok() && writer.Finish().ok());
    manifest_.files[file] = {writer.num_bytes(), writer.digest()};
  }
  // The last byte of a file.
  void Flip(const std::string& file) const {
    std::string bytes = *SystemFiles().ReadFile(JoinPath(path_, file), 1 << 20);
    bytes.back() ^= 1;
    folder_.Write(JoinPath("step-00000003", file), bytes);
  }
  std::vector<std::string> Damage() const {
    folder_.Write("step-00000003/manifest.json", ManifestJson(manifest_));
    const auto report = CheckCheckpoint(SystemFiles(), path_);
    CHECK(report.ok(), "{}", report.error().message);
    return report->damage;
  }
  Result<std::vector<float>> Read(int64_t first, int64_t count) const {
    std::vector<float> out(static_cast<size_t>(count));
    RETURN_IF_ERROR(
        CheckpointReader(SystemFiles(), path_)
            .Read(manifest_.tensors, "t", {2, 5}, first, std::as_writable_bytes(std::span(out))));
    return out;
  }

  const TemporaryFolder folder_{};
  const std::string path_ = folder_ / "step-00000003";
  CheckpointManifest manifest_{.step = 3};
};

TEST_F(PiecesTest, AnyRunIsReadFromWhicheverPiecesItLiesIn) {
  for (const bool digests : {true, false}) {
    for (auto& piece : manifest_.tensors["t"].pieces) {
      if (!digests) piece.digest.reset();
    }
    for (int64_t first = 0; first <= 10; ++first) {
      for (int64_t count = 0; first + count <= 10; ++count) {
        const auto run = Read(first, count);
        ASSERT_TRUE(run.ok()) << run.error().message;
        for (int64_t i = 0; i < count; ++i) {
          ASSERT_EQ((*run)[static_cast<size_t>(i)], static_cast<float>(first + i));
        }
      }
    }
  }
  EXPECT_THAT(Damage(), IsEmpty());
}

TEST_F(PiecesTest, APieceIsComparedWholeEvenWhereAPartOfItIsRead) {
  Flip("4.safetensors");
  EXPECT_THAT(Damage(), ElementsAre(HasSubstr("4.safetensors: tensor t is damaged")));
  EXPECT_TRUE(Read(0, 4).ok()) << "its own pieces are good";
  const auto read = Read(3, 2);
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(read.error().message, HasSubstr("4.safetensors: tensor t is damaged"));
  manifest_.tensors["t"].pieces[2].digest.reset();
  EXPECT_EQ((*Read(3, 2))[1], 4) << "without a digest only the part is read";
}

TEST_F(PiecesTest, AFileThatHoldsAnotherPieceIsNamed) {
  const std::vector<std::byte> bytes(24);
  for (const TensorSpec& other :
       {TensorSpec{.name = "t", .shape = {2, 3}}, TensorSpec{.name = "u", .shape = {6}},
        TensorSpec{.name = "t", .dtype = TensorDtype::kI32, .shape = {6}}}) {
    Write("4.safetensors", {other}, bytes);
    EXPECT_THAT(Read(4, 6).error().message,
                HasSubstr("4.safetensors: lacks tensor t of this shape and dtype"));
    EXPECT_THAT(Damage(), ElementsAre(HasSubstr("4.safetensors: ")));
  }
}

// A rank that has no element of anything writes files all the same.
TEST_F(PiecesTest, AFileWithoutAnyPieceIsCheckedToo) {
  Write("none.safetensors", {}, {});
  EXPECT_THAT(Damage(), IsEmpty());
  ASSERT_TRUE(SystemFiles().RemoveAll(JoinPath(path_, "none.safetensors")).ok());
  EXPECT_THAT(Damage(), ElementsAre(HasSubstr("none.safetensors: cannot open")));
}

}  // namespace
}  // namespace troupe
