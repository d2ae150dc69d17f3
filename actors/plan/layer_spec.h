// What a model is made of: units (the embedding, decoder layers, the head), each described once.
// Parameter table, memory model, kernels' memory, cost model, partition and the model's own
// allocations iterate over these lists; a new kind of layer is one function that returns a
// LayerSpec, and one piece of actors/model that computes it. Pure.
//
// Letters: T tokens of a microbatch on a rank, S sequence, h hidden, q query channels, k key (and
// value) channels, f intermediate, V vocabulary.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/plan/model_config.h"
#include "actors/plan/recompute.h"

namespace troupe {

// ---- parameters -----------------------------------------------------------------------------

enum class ParameterInit : uint8_t { kNormal, kOnes };

struct ParameterSpec {
  std::string name{};  // Hugging Face's; in a LayerSpec what follows "model.layers.3."
  int64_t rows = 0;
  int64_t columns = 0;  // 1 where one-dimensional
  int layer = -1;       // -1: embedding, final norm, head
  bool one_dimensional = false;
  bool decay = true;  // weight decay applies (not to one-dimensional ones)
  ParameterInit init = ParameterInit::kNormal;
  int shard_axis = 0;  // the dimension that tensor parallel cuts; -1: replicated

  int64_t num_elements() const { return rows * columns; }
  std::vector<int64_t> shape() const;
};

// ---- products -------------------------------------------------------------------------------

// How tensor parallel cuts a product: its result's columns, or its depth (then members add up).
// Follows from the axis that cuts its parameters.
enum class ProductCut : uint8_t { kNone, kColumn, kRow };

// y (rows, out) = x (rows, in) W^T, where W (out, in) is `num_parameters` neighbours of the unit's
// parameters as one matrix.
struct LayerProduct {
  std::string_view name{};
  int64_t in = 0;
  int64_t out = 0;
  int first_parameter = 0;
  int num_parameters = 1;
  // Runs in chunks of ChunkTokens(out, T) rows, each followed at once by both of its gradients: all
  // three in Forward.
  bool chunked = false;
};

// Rows of a chunk: a result of `out` float32 columns stays within 4 MiB; multiples of 16 rows.
int64_t ChunkTokens(int64_t out, int64_t num_tokens);
// Rows of the product on a microbatch: the tokens, or a chunk of them.
int64_t RowsOf(const LayerProduct& product, int64_t num_tokens);

// ---- tensors --------------------------------------------------------------------------------

enum class TensorRows : uint8_t {
  kOne,       // 1
  kToken,     // T
  kContext,   // T of every rank that shares the sequences: all of their tokens
  kPosition,  // S
  kChunk,     // ChunkTokens(columns, T)
};
enum class TensorWidth : uint8_t {
  kCompute,
  kMaster,
  kInt32,
  kNarrow,  // compute, and there only where that is narrower than master
};
enum class TensorLife : uint8_t {
  kStash,      // from a microbatch's Forward to the end of its backward
  kBatch,      // as kStash, but what the batch brings: one place a stage, by name (Microbatch)
  kHalf,       // from its BackwardInput to its BackwardWeight; within a whole Backward workspace
  kWorkspace,  // within one pass of a unit, or from one unit to the next of the same pass
  kConstant,   // written once, read by every pass
};

// What the batch says of each token (T), kInt32 and kBatch, in every unit that reads it.
inline constexpr std::string_view kTokensTensor = "tokens";
inline constexpr std::string_view kLabelsTensor = "labels";
inline constexpr std::string_view kPositionsTensor = "positions";
inline constexpr std::string_view kDocumentStartsTensor = "document_starts";  // of packed documents

// As the unit's own kind has them; unit_tensors.h says which there are in a job.
// Tensors of a workspace that have one name share one place, as large as the largest; so do
// constants.
struct LayerTensor {
  std::string_view name{};
  TensorRows rows = TensorRows::kToken;
  int64_t columns = 0;  // 0: one-dimensional, a number a row
  TensorWidth width = TensorWidth::kCompute;
  TensorLife life = TensorLife::kStash;
  // The least recomputation with which a backward computes it again (of kStash; it is then kept as
  // kHalf is); kNone: it is always kept.
  Recompute again = Recompute::kNone;
};

// ---- units ----------------------------------------------------------------------------------

// Floating-point operations a token; cost_model.h says what counts.
struct TokenFlops {
  double forward = 0;
  double backward_input = 0;
  double backward_weight = 0;
  double total() const { return forward + backward_input + backward_weight; }
  TokenFlops& operator+=(const TokenFlops& other);
};

// Causal grouped-query attention over the sequence.
struct LayerAttention {
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
};

inline constexpr std::string_view kDecoderKind = "llama";

// Every layer names dy (kHalf) and dx (kWorkspace), (T, h) both: the gradient of its output and, in
// a whole Backward, that of its input, which the stage hands from unit to unit.
struct LayerSpec {
  std::string_view kind{};                  // of a layer: which piece of actors/model computes it
  std::vector<ParameterSpec> parameters{};  // in table order
  std::vector<LayerProduct> products{};     // in Forward's order
  std::vector<LayerTensor> tensors{};
  std::optional<LayerAttention> attention{};
  TokenFlops other_flops{};  // beside products and attention, where they count

  // Tensors and products are known by name; a name that the unit does not have is a broken
  // invariant.
  const LayerTensor& Tensor(std::string_view name) const;
  const LayerProduct& Product(std::string_view name) const;
  ProductCut CutOf(const LayerProduct& product) const;
};

LayerSpec EmbeddingSpec(const ModelConfig& config);
// Llama's: RMSNorm, rotary grouped-query attention, RMSNorm, SwiGLU.
LayerSpec DecoderLayerSpec(const ModelConfig& config);
// Final norm, head and loss. A tied head's weight has the embedding's name.
LayerSpec HeadSpec(const ModelConfig& config);

// Units are numbered from first to last: 0 the embedding, 1 + i layer i, then the head.
struct ModelSpec {
  ModelSpec() = default;
  ModelSpec(const ModelConfig& config);  // NOLINT: a config means a Llama, each layer alike

  ModelConfig config{};
  LayerSpec embedding{};
  LayerSpec head{};
  std::vector<LayerSpec> layer_kinds{};  // those that differ
  std::vector<int> layers{};             // the kind of each layer, in layer_kinds

  int num_layers() const { return static_cast<int>(layers.size()); }
  int num_units() const { return num_layers() + 2; }
  int embedding_unit() const { return 0; }
  int layer_unit(int layer) const { return 1 + layer; }
  int head_unit() const { return 1 + num_layers(); }
  const LayerSpec& unit(int unit) const;
  // -1: the embedding, the head.
  int LayerOf(int unit) const;
};

}  // namespace troupe
