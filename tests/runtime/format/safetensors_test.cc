#include "runtime/format/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <cstring>
#include <filesystem>
#include <map>

#include <nlohmann/json.hpp>

#include "tests/support/faulty_file_system.h"
#include "tests/support/memory_file.h"
#include "tests/support/temporary_folder.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using testing::FaultyFileSystem;
using ::testing::HasSubstr;
using testing::MemoryFile;
using testing::TemporaryFolder;

// A file with this header text and `data_bytes` zero bytes.
std::string FileOf(std::string_view header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file.append(header).append(data_bytes, '\0');
}

std::string ProblemOf(std::string_view header, size_t data_bytes) {
  const std::string file = FileOf(header, data_bytes);
  const auto parsed = ReadSafetensorsHeader(MemoryFile(BytesOf(file)), "/m.safetensors");
  return parsed.ok() ? "none" : parsed.error().message;
}

TEST(SafetensorsHeaderTest, ReadsWhatTheFormatAllows) {
  const std::string file = FileOf(
      R"({"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},"__metadata__":{"format":"pt"},)"
      R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
      R"("empty":{"dtype":"I64","shape":[0,5],"data_offsets":[4,4]}}   )",
      12 + 4);
  const auto header = ReadSafetensorsHeader(MemoryFile(BytesOf(file)), "/m.safetensors");
  ASSERT_TRUE(header.ok()) << header.error().message;
  ASSERT_EQ(header->tensors.size(), 3u);
  EXPECT_EQ(header->tensors[0].spec.name, "a");
  EXPECT_EQ(header->tensors[1].spec.name, "empty");
  EXPECT_EQ(header->tensors[2].spec.dtype, TensorDtype::kBf16);
  EXPECT_THAT(header->tensors[2].spec.shape, ElementsAre(2, 3));
  EXPECT_EQ(header->metadata.at("format"), "pt");
  EXPECT_EQ(header->data_begin, static_cast<int64_t>(file.size()) - 16);
  EXPECT_EQ(ProblemOf("{}", 0), "none");
}

struct Hostile {
  const char* header;
  size_t data_bytes;
  const char* problem;
};

TEST(SafetensorsHeaderTest, RefusesWhatIsNotWhole) {
  const Hostile cases[] = {
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7, "cut off"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 9, "1 bytes after the last"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, "a hole of 4 bytes"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
       R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
       6, "an overlap of 2 bytes"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "dtype and shape make 8"},
      {R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", 4, "dtype 'F33' is unknown"},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "no extent"},
      {R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, "no extent"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0,
       "more bytes than a file can"},
      {R"({"a":{"dtype":"F32","shape":[9223372036854775807],"data_offsets":[0,4]}})", 4,
       "more bytes than a file can"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "no range"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", 4, "no range"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,0]}})", 4,
       "no range"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "no pair"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 4, "is missing"},
      {R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}})", 4, "dtype is no string"},
      {R"({"a":7})", 4, "its entry is no object"},
      {R"({"a":{},"a":{}})", 0, "given twice"},
      {R"({"__metadata__":{"a":1}})", 0, "not a string"},
      {R"({"__metadata__":[]})", 0, "no object"},
      {R"([])", 0, "does not start with '{'"},
      {R"({"a":)", 0, "syntax error"},
      {R"({"a":{"dtype":"F32","shape":[[[[[1]]]]],"data_offsets":[0,4]}})", 4, "deeper"},
  };
  for (const Hostile& hostile : cases) {
    const std::string problem = ProblemOf(hostile.header, hostile.data_bytes);
    EXPECT_THAT(problem, HasSubstr(hostile.problem)) << hostile.header;
    EXPECT_THAT(problem, HasSubstr("/m.safetensors: "));
  }
}

TEST(SafetensorsHeaderTest, RefusesLengthsBeyondTheFile) {
  std::string file = FileOf("{}", 0);
  for (const uint64_t length : {uint64_t{3}, uint64_t{100'000'000}, uint64_t{100'000'001},
                                ~uint64_t{0}, ~uint64_t{0} - 7}) {
    std::memcpy(file.data(), &length, 8);
    const auto parsed = ReadSafetensorsHeader(MemoryFile(BytesOf(file)), "/m");
    ASSERT_FALSE(parsed.ok());
    EXPECT_EQ(parsed.error().code, ErrorCode::kCorrupt);
  }
  EXPECT_FALSE(ReadSafetensorsHeader(MemoryFile(BytesOf("1234567")), "/m").ok());
  EXPECT_FALSE(ReadSafetensorsHeader(MemoryFile({}), "/m").ok());
}

TEST(TensorDtypeTest, NamesAreTheFormatsOwn) {
  for (const char* name : {"BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "I16", "U16", "F16", "BF16",
                           "I32", "U32", "F32", "F64", "I64", "U64"}) {
    const auto dtype = ParseTensorDtype(name);
    ASSERT_TRUE(dtype) << name;
    EXPECT_EQ(TensorDtypeName(*dtype), name);
  }
  EXPECT_EQ(TensorDtypeBytes(TensorDtype::kBf16), 2);
  EXPECT_EQ(TensorBytes({.name = "a", .dtype = TensorDtype::kF64, .shape = {3, 2}}), 48);
  EXPECT_EQ(TensorBytes({.name = "a", .dtype = TensorDtype::kF64, .shape = {}}), 8);
}

TEST(SafetensorsWriterTest, WritesTheBytesOfTheFormat) {
  const TemporaryFolder folder;
  const std::string path = folder / "m.safetensors";
  auto writer = *SafetensorsWriter::Create(
      SystemFiles(), path, {{.name = "w\"1", .dtype = TensorDtype::kU8, .shape = {3}}});
  ASSERT_TRUE(writer.Append(BytesOf("ab")).ok());
  ASSERT_TRUE(writer.Append(BytesOf("c")).ok());
  ASSERT_TRUE(writer.Finish().ok());
  std::string header =
      R"({"__metadata__":{"format":"pt"},"w\"1":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(*SystemFiles().ReadFile(path, 1 << 20), FileOf(header, 0) + "abc");
}

TEST(SafetensorsWriterTest, MissingBytesAreAnError) {
  const TemporaryFolder folder;
  auto writer =
      *SafetensorsWriter::Create(SystemFiles(), folder / "m", {{.name = "a", .shape = {2}}});
  ASSERT_TRUE(writer.Append(BytesOf("1234")).ok());
  EXPECT_THAT(writer.Finish().error().message, HasSubstr("4 bytes of tensors were never written"));
}

TEST(SafetensorsWriterTest, AFullDiskIsTold) {
  const TemporaryFolder folder;
  FaultyFileSystem files({.full_after_bytes = 100});
  auto writer = *SafetensorsWriter::Create(files, folder / "m", {{.name = "a", .shape = {64}}});
  const Status status = writer.Append(BytesOf(std::string(256, 'x')));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kOutOfSpace);
}

// Tensors of any shape over one file, or over several and an index, appended in pieces of any size.
RC_GTEST_PROP(SafetensorsFolderTest, ReadsBackWhatWasWritten, ()) {
  const auto extents = *rc::gen::container<std::vector<std::vector<int64_t>>>(
      rc::gen::container<std::vector<int64_t>>(rc::gen::inRange<int64_t>(0, 5)));
  const auto num_files = *rc::gen::inRange<size_t>(1, 4);
  const auto piece = *rc::gen::inRange<size_t>(1, 64);
  struct OneFile {
    std::vector<TensorSpec> specs{};
    std::string bytes{};
  };
  std::vector<OneFile> written(num_files);
  std::map<std::string, std::string> wanted;
  nlohmann::json index;
  index["weight_map"] = nlohmann::json::object();
  const auto file_name = [&](size_t file) {
    return num_files == 1 ? "model.safetensors" : fmt::format("model-{}.safetensors", file);
  };
  for (size_t i = 0; i < extents.size(); ++i) {
    TensorSpec spec{.name = fmt::format("t{}", i),
                    .dtype = static_cast<TensorDtype>(i % 15),
                    .shape = extents[i]};
    if (spec.shape.size() > 4) spec.shape.resize(4);
    std::string own(static_cast<size_t>(TensorBytes(spec)), '\0');
    for (size_t j = 0; j < own.size(); ++j) own[j] = static_cast<char>(i * 31 + j);
    wanted[spec.name] = own;
    index["weight_map"][spec.name] = file_name(i % num_files);
    written[i % num_files].bytes += own;
    written[i % num_files].specs.push_back(std::move(spec));
  }
  const TemporaryFolder folder;
  for (size_t file = 0; file < num_files; ++file) {
    const auto& [specs, bytes] = written[file];
    auto writer = *SafetensorsWriter::Create(SystemFiles(), folder / file_name(file), specs);
    for (size_t begin = 0; begin < bytes.size(); begin += piece) {
      RC_ASSERT(writer.Append(BytesOf(std::string_view(bytes).substr(begin, piece))).ok());
    }
    RC_ASSERT(writer.Finish().ok());
  }
  if (num_files > 1) folder.Write("model.safetensors.index.json", index.dump());
  const auto opened = SafetensorsFolder::Open(SystemFiles(), folder.path());
  RC_ASSERT(opened.ok());
  RC_ASSERT(opened->Names().size() == extents.size());
  for (const OneFile& file : written) {
    for (const TensorSpec& spec : file.specs) {
      const auto view = opened->Require(spec.name, spec.shape);
      RC_ASSERT(view.ok());
      RC_ASSERT(view->entry->spec.dtype == spec.dtype);
      std::string bytes(static_cast<size_t>(view->num_bytes()), '\0');
      RC_ASSERT(view->Read(0, std::as_writable_bytes(std::span(bytes))).ok());
      RC_ASSERT(bytes == wanted[spec.name]);
    }
  }
}

// A download that is started anew over the file, a disk that loses its end.
TEST(SafetensorsFileTest, AFileCutAfterItWasOpenedIsASentence) {
  const TemporaryFolder folder;
  const std::string path =
      folder.Write("m.safetensors",
                   FileOf(R"({"a":{"dtype":"U8","shape":[9000],"data_offsets":[0,9000]}})", 9000));
  const auto file = SafetensorsFile::Open(SystemFiles(), path);
  ASSERT_TRUE(file.ok()) << file.error().message;
  std::filesystem::resize_file(path, 5000);
  std::vector<std::byte> bytes(9000);
  const Status read = file->Read(*file->Find("a"), 0, bytes);
  ASSERT_FALSE(read.ok());
  EXPECT_THAT(read.error().message, HasSubstr(path));
}

TEST(SafetensorsFolderTest, NamesMissingAndMisshapenTensors) {
  const TemporaryFolder folder;
  folder.Write("model.safetensors",
               FileOf(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8));
  const auto opened = SafetensorsFolder::Open(SystemFiles(), folder.path());
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  const int64_t shape[] = {2, 1};
  EXPECT_THAT(opened->Require("a", shape).error().message,
              HasSubstr("tensor a has shape [2], the model wants [2, 1]"));
  EXPECT_THAT(opened->Require("b", shape).error().message, HasSubstr("tensor b is missing"));
  EXPECT_FALSE(opened->Find("b"));
}

TEST(SafetensorsFolderTest, DistrustsTheIndex) {
  const Hostile cases[] = {
      {R"({"weight_map":{"a":"../m.safetensors"}})", 0, "not the name of one in this folder"},
      {R"({"weight_map":{"a":"/etc/passwd"}})", 0, "not the name of one in this folder"},
      {R"({"weight_map":{"a":".."}})", 0, "not the name of one in this folder"},
      {R"({"weight_map":{"a":7}})", 0, "not the name of one in this folder"},
      {R"({"weight_map":{"b":"m.safetensors"}})", 0, "tensor 'b' is not in 'm.safetensors'"},
      {R"({"weight_map":{"a":"absent"}})", 0, "No such file"},
      {R"({"weight_map":[]})", 0, "weight_map is missing"},
      {R"([])", 0, "weight_map is missing"},
      {R"({)", 0, "syntax error"},
  };
  for (const Hostile& hostile : cases) {
    const TemporaryFolder folder;
    folder.Write("m.safetensors",
                 FileOf(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8));
    folder.Write("model.safetensors.index.json", hostile.header);
    const auto opened = SafetensorsFolder::Open(SystemFiles(), folder.path());
    ASSERT_FALSE(opened.ok()) << hostile.header;
    EXPECT_THAT(opened.error().message, HasSubstr(hostile.problem));
  }
  const TemporaryFolder empty;
  EXPECT_EQ(SafetensorsFolder::Open(SystemFiles(), empty.path()).error().code,
            ErrorCode::kNotFound);
}

}  // namespace
}  // namespace troupe
