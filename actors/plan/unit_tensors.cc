#include "actors/plan/unit_tensors.h"

#include <algorithm>

namespace troupe {
namespace {

constexpr auto kMaster = TensorWidth::kMaster;
constexpr auto kWorkspace = TensorLife::kWorkspace;
constexpr auto kOfAllRanks = TensorRows::kContext;

LayerTensor Numbers(std::string_view name, TensorRows rows) {
  return {.name = name, .rows = rows, .width = TensorWidth::kInt32, .life = kWorkspace};
}

void AddOfBlocks(const LayerAttention& a, ContextMethod method, std::vector<LayerTensor>& tensors) {
  const int64_t q = a.num_heads * a.head_dim, kv = 2 * a.num_kv_heads * a.head_dim;
  if (method == ContextMethod::kRing) {
    tensors.push_back({.name = "kv_own", .columns = kv, .life = kWorkspace});
    for (const std::string_view name : {"dkv_own", "dkv_part"}) {
      tensors.push_back({.name = name, .columns = kv, .width = kMaster, .life = kWorkspace});
    }
  } else {
    tensors.push_back({.name = "kv_all", .rows = kOfAllRanks, .columns = kv, .life = kWorkspace});
    tensors.push_back({.name = "dkv_all",
                       .rows = kOfAllRanks,
                       .columns = kv,
                       .width = kMaster,
                       .life = kWorkspace});
  }
  tensors.push_back({.name = "attention_acc", .columns = q, .width = kMaster, .life = kWorkspace});
  for (const std::string_view name : {"attention_max", "attention_sum"}) {
    tensors.push_back({.name = name, .columns = a.num_heads, .width = kMaster, .life = kWorkspace});
  }
  tensors.push_back({.name = "block_positions",
                     .rows = TensorRows::kPosition,
                     .width = TensorWidth::kInt32,
                     .life = TensorLife::kConstant});
}

void AddOfUlysses(const LayerAttention& attention, const BatchArithmetic& batch,
                  std::vector<LayerTensor>& tensors) {
  const LayerAttention a = HeadsOfRank(attention, batch.context);
  const int64_t q = a.num_heads * a.head_dim;
  const int64_t all = q + 2 * a.num_kv_heads * a.head_dim;
  // The rank keeps its heads' instead.
  const auto qkv = std::ranges::find(tensors, "qkv", &LayerTensor::name);
  tensors.push_back({.name = "qkv_heads",
                     .rows = kOfAllRanks,
                     .columns = all,
                     .life = qkv->life,
                     .again = qkv->again});
  qkv->life = kWorkspace;
  qkv->again = Recompute::kNone;
  tensors.push_back(
      {.name = "exchanged", .columns = batch.context.num_ranks * all, .life = kWorkspace});
  tensors.push_back(
      {.name = "dqkv_heads", .rows = kOfAllRanks, .columns = all, .life = kWorkspace});
  for (const std::string_view name : {"out_heads", "dout_heads"}) {
    tensors.push_back({.name = name, .rows = kOfAllRanks, .columns = q, .life = kWorkspace});
  }
  if (batch.packs_documents) tensors.push_back(Numbers("all_document_starts", kOfAllRanks));
  if (batch.context.num_ranks > attention.num_kv_heads) {
    tensors.push_back({.name = "dqkv_sum",
                       .columns = (attention.num_heads + 2 * attention.num_kv_heads) * a.head_dim,
                       .width = kMaster,
                       .life = kWorkspace});
  }
}

void AddOfAttention(const LayerAttention& attention, const BatchArithmetic& batch,
                    std::vector<LayerTensor>& tensors) {
  const ContextParallel& context = batch.context;
  const bool whole = !context.shared() || context.method == ContextMethod::kUlysses;
  if (context.shared() && whole) AddOfUlysses(attention, batch, tensors);
  if (!whole) AddOfBlocks(attention, context.method, tensors);
  if (whole && !batch.packs_documents) return;
  for (const std::string_view name : {"first_key", "end_key"}) {
    tensors.push_back(Numbers(name, whole ? kOfAllRanks : TensorRows::kToken));
  }
}

}  // namespace

std::vector<LayerTensor> TensorsOf(const LayerSpec& unit, const BatchArithmetic& batch,
                                   Recompute recompute) {
  std::vector<LayerTensor> tensors = unit.tensors;
  if (!batch.packs_documents) {
    std::erase_if(tensors, [](const LayerTensor& t) { return t.name == kDocumentStartsTensor; });
  }
  if (unit.attention) AddOfAttention(*unit.attention, batch, tensors);
  for (LayerTensor& tensor : tensors) {
    const bool again = tensor.again != Recompute::kNone && tensor.again <= recompute;
    if (tensor.life == TensorLife::kStash && again) tensor.life = TensorLife::kHalf;
  }
  return tensors;
}

LayerAttention HeadsOfRank(const LayerAttention& attention, const ContextParallel& context) {
  if (context.method != ContextMethod::kUlysses) return attention;
  LayerAttention share = attention;
  share.num_heads = attention.num_heads / context.num_ranks;
  share.num_kv_heads = std::max<int64_t>(1, attention.num_kv_heads / context.num_ranks);
  return share;
}

int64_t TokensOfBlock(const BatchArithmetic& batch) {
  return batch.context.method == ContextMethod::kUlysses ? batch.seq_len : batch.local_seq_len();
}

}  // namespace troupe
