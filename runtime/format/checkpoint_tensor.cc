#include "runtime/format/checkpoint_tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/digest.h"
#include "runtime/format/json_reader.h"
#include "runtime/format/metrics_file.h"

namespace troupe {
namespace {

using nlohmann::json;

bool IsWhole(const CheckpointTensor& tensor, const CheckpointPiece& piece) {
  return piece.first_element == 0 && piece.num_elements == NumElements(tensor);
}

void AddDigest(const CheckpointPiece& piece, JsonLine& line) {
  if (piece.digest) line.Add(kDigestKey, DigestText(*piece.digest));
}

std::string PiecesText(const CheckpointTensor& tensor) {
  std::vector<std::string> pieces;
  for (const CheckpointPiece& piece : tensor.pieces) {
    JsonLine one;
    one.Add("file", piece.file)
        .Add("first_element", piece.first_element)
        .Add("num_elements", piece.num_elements);
    AddDigest(piece, one);
    pieces.push_back(one.Text());
  }
  return fmt::format("[{}]", fmt::join(pieces, ","));
}

std::string TensorText(const CheckpointTensor& tensor) {
  const bool whole = tensor.pieces.size() == 1 && IsWhole(tensor, tensor.pieces.front());
  JsonLine line;
  if (whole) line.Add("file", tensor.pieces.front().file);
  line.Add("dtype", TensorDtypeName(tensor.dtype))
      .AddJson("shape", fmt::format("[{}]", fmt::join(tensor.shape, ",")));
  if (whole) {
    AddDigest(tensor.pieces.front(), line);
  } else {
    line.AddJson("pieces", PiecesText(tensor));
  }
  return line.Text();
}

Status ReadFileName(const JsonFields& fields, std::string* file) {
  RETURN_IF_ERROR(fields.Require("file", file));
  if (IsTensorFileName(*file)) return {};
  return fields.Wrong("file", "the name of a .safetensors file beside the manifest");
}

Result<CheckpointPiece> ReadPiece(const json& value, const std::string& place) {
  if (!value.is_object()) return MakeError(ErrorCode::kCorrupt, "{}: not an object", place);
  const JsonFields fields(value, place);
  CheckpointPiece piece;
  RETURN_IF_ERROR(ReadFileName(fields, &piece.file));
  RETURN_IF_ERROR(fields.Require("first_element", &piece.first_element));
  RETURN_IF_ERROR(fields.Require("num_elements", &piece.num_elements));
  ASSIGN_OR_RETURN(piece.digest, ReadDigest(fields));
  return piece;
}

Status ReadPieces(const JsonFields& fields, const json& list, const std::string& place,
                  CheckpointTensor* tensor) {
  if (!list.is_array()) return fields.Wrong("pieces", "a list");
  for (const json& value : list) {
    const size_t number = tensor->pieces.size() + 1;
    ASSIGN_OR_RETURN(tensor->pieces.emplace_back(),
                     ReadPiece(value, fmt::format("{}: piece {}", place, number)));
  }
  const std::string problem = PiecesProblem(*tensor);
  if (problem.empty()) return {};
  return MakeError(ErrorCode::kCorrupt, "{}: {}", place, problem);
}

Status ReadShape(const JsonFields& fields, CheckpointTensor* tensor) {
  const json* shape = fields.Member("shape");
  if (shape == nullptr) return fields.Missing("shape");
  if (!shape->is_array()) return fields.Wrong("shape", "a list");
  for (const json& extent : *shape) {
    const auto number = WholeNumber(extent);
    if (!number || *number < 0) return fields.Wrong("shape", "a list of extents");
    tensor->shape.push_back(*number);
  }
  if (!NumElements(*tensor)) return fields.Wrong("shape", "of a tensor whose bytes fit 63 bits");
  return {};
}

Result<CheckpointTensor> ReadTensor(const json& value, const std::string& place) {
  if (!value.is_object()) return MakeError(ErrorCode::kCorrupt, "{}: not an object", place);
  const JsonFields fields(value, place);
  CheckpointTensor tensor;
  std::string dtype;
  RETURN_IF_ERROR(fields.Require("dtype", &dtype));
  const auto known = ParseTensorDtype(dtype);
  if (!known) return fields.Wrong("dtype", "a safetensors dtype");
  tensor.dtype = *known;
  RETURN_IF_ERROR(ReadShape(fields, &tensor));
  if (const json* pieces = fields.Member("pieces"); pieces != nullptr) {
    RETURN_IF_ERROR(ReadPieces(fields, *pieces, place, &tensor));
    return tensor;
  }
  CheckpointPiece& whole = tensor.pieces.emplace_back();
  RETURN_IF_ERROR(ReadFileName(fields, &whole.file));
  whole.num_elements = *NumElements(tensor);
  ASSIGN_OR_RETURN(whole.digest, ReadDigest(fields));
  return tensor;
}

}  // namespace

CheckpointTensor WholeTensor(std::string file, TensorDtype dtype, std::vector<int64_t> shape,
                             std::optional<uint64_t> digest) {
  CheckpointTensor tensor{.dtype = dtype, .shape = std::move(shape)};
  const auto num_elements = NumElements(tensor);
  CHECK(num_elements, "a tensor beyond 63 bits");
  tensor.pieces = {{.file = std::move(file), .num_elements = *num_elements, .digest = digest}};
  return tensor;
}

std::optional<int64_t> NumElements(const CheckpointTensor& tensor) {
  int64_t num_bytes = TensorDtypeBytes(tensor.dtype);
  for (const int64_t extent : tensor.shape) {
    if (__builtin_mul_overflow(num_bytes, extent, &num_bytes)) return std::nullopt;
  }
  return num_bytes / TensorDtypeBytes(tensor.dtype);
}

std::vector<int64_t> ShapeOf(const CheckpointTensor& tensor, const CheckpointPiece& piece) {
  if (IsWhole(tensor, piece)) return tensor.shape;
  return {piece.num_elements};
}

std::string PiecesProblem(const CheckpointTensor& tensor) {
  const auto num_elements = NumElements(tensor);
  if (!num_elements) return "its bytes exceed 63 bits";
  if (tensor.pieces.empty()) return "it has no pieces";
  std::set<std::string_view> files;
  int64_t end = 0;
  for (const CheckpointPiece& piece : tensor.pieces) {
    if (piece.first_element != end) {
      return fmt::format("there is {} before the piece in {}: it begins at element {}, not {}",
                         piece.first_element > end ? "a gap" : "an overlap", Quoted(piece.file),
                         piece.first_element, end);
    }
    // Only a tensor without elements has a piece without any.
    const int64_t fewest = std::min<int64_t>(*num_elements, 1);
    if (piece.num_elements < fewest || piece.num_elements > *num_elements - end) {
      return fmt::format("the piece in {} has {} elements from element {} on, the tensor has {}",
                         Quoted(piece.file), piece.num_elements, end, *num_elements);
    }
    if (!files.insert(piece.file).second) {
      return fmt::format("two of its pieces are in {}", Quoted(piece.file));
    }
    end += piece.num_elements;
  }
  if (end == *num_elements) return "";
  return fmt::format("there is a gap at its end: its pieces have {} of {} elements", end,
                     *num_elements);
}

std::string TensorsText(const CheckpointTensors& tensors) {
  JsonLine all;
  for (const auto& [name, tensor] : tensors) all.AddJson(name, TensorText(tensor));
  return all.Text();
}

Result<CheckpointTensors> ReadTensors(const JsonFields& fields, std::string_view key,
                                      const std::string& path) {
  ASSIGN_OR_RETURN(const json* object, fields.RequireObject(key));
  CheckpointTensors tensors;
  for (const auto& [name, value] : object->items()) {
    ASSIGN_OR_RETURN(tensors[name],
                     ReadTensor(value, fmt::format("{}: {} {}", path, key, Quoted(name))));
  }
  return tensors;
}

Result<std::optional<uint64_t>> ReadDigest(const JsonFields& fields) {
  if (fields.Member(kDigestKey) == nullptr) return std::optional<uint64_t>();
  std::string text;
  RETURN_IF_ERROR(fields.Read(kDigestKey, &text));
  const auto digest = ParseDigest(text);
  if (!digest) return fields.Wrong(kDigestKey, "16 hexadecimal digits");
  return digest;
}

bool IsTensorFileName(std::string_view name) {
  return name.ends_with(".safetensors") && !name.starts_with('.') &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

}  // namespace troupe
