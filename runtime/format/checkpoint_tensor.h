// A tensor of a checkpoint and its entry in manifest.json: dtype, shape, and in which files its
// elements lie. What one rank saved whole is one piece; of what several ranks share, each saved a
// run of elements, counted row by row. Pure.
//
// 1. The pieces of a tensor that was read are the tensor without gap or overlap, in order.
// 2. A file has at most one piece of a tensor, under the tensor's own name: the whole with its
//    shape, a run as a flat tensor.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/format/safetensors.h"

namespace troupe {

class JsonFields;

struct CheckpointPiece {
  std::string file;  // a safetensors file of the checkpoint's folder
  int64_t first_element = 0;
  int64_t num_elements = 0;
  std::optional<uint64_t> digest{};  // of the piece's bytes
  bool operator==(const CheckpointPiece&) const = default;
};

struct CheckpointTensor {
  TensorDtype dtype = TensorDtype::kF32;
  std::vector<int64_t> shape{};
  std::vector<CheckpointPiece> pieces{};
  bool operator==(const CheckpointTensor&) const = default;
};
using CheckpointTensors = std::map<std::string, CheckpointTensor>;  // by name

// Of one piece. The shape's elements fit 63 bits.
CheckpointTensor WholeTensor(std::string file, TensorDtype dtype, std::vector<int64_t> shape,
                             std::optional<uint64_t> digest = {});

// Of the shape; nothing where their bytes exceed 63 bits.
std::optional<int64_t> NumElements(const CheckpointTensor& tensor);
// The shape of a piece in its file.
std::vector<int64_t> ShapeOf(const CheckpointTensor& tensor, const CheckpointPiece& piece);

// How the pieces break the invariants, as the end of a sentence; empty where they do not.
std::string PiecesProblem(const CheckpointTensor& tensor);

// The manifest's object of tensors, as JSON. A tensor of one piece has its file and digest itself,
// as in earlier builds; any other has a list of pieces.
std::string TensorsText(const CheckpointTensors& tensors);
// The same read: the member `key`. Refuses, with one sentence, a file name that leaves the folder,
// and pieces that break the invariants. `path` is for the messages.
Result<CheckpointTensors> ReadTensors(const JsonFields& fields, std::string_view key,
                                      const std::string& path);

// ---- What all entries of a manifest share ----

inline constexpr std::string_view kDigestKey = "xxh3";
// 16 hexadecimal digits under kDigestKey; nothing where there is no such member.
Result<std::optional<uint64_t>> ReadDigest(const JsonFields& fields);
// The name of a file in the folder itself, so that a manifest cannot point outside.
bool IsTensorFileName(std::string_view name);

}  // namespace troupe
