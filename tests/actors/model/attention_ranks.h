// A layer's attention alone, over the ranks of a context-parallel group: sequences are shared out
// by layout, the pieces run, and what they give is put together again.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "actors/model/sequence_attention.h"
#include "actors/plan/unit_tensors.h"
#include "runtime/base/random.h"
#include "tests/actors/model/context_world.h"
#include "tests/actors/model/dense_attention.h"

namespace troupe::testing {

struct AttentionCase {
  LayerAttention heads{};
  BatchArithmetic batch{};
  DType dtype = DType::kFloat32;
  std::vector<int32_t> document_starts{};  // (sequences · S), where the batch packs documents
  uint64_t seed = 1;

  DenseAttention Whole() const {
    return {.heads = heads,
            .num_sequences = batch.micro_batch_size,
            .seq_len = batch.seq_len,
            .document_starts = document_starts};
  }
  // Unit variance, as `dtype` has them.
  std::vector<double> Random(std::string_view name, int64_t count) const {
    std::vector<double> values(static_cast<size_t>(count));
    const uint64_t key = RandomKey(seed, name);
    for (size_t i = 0; i < values.size(); ++i) {
      const auto value = static_cast<float>(NormalAt(key, i));
      values[i] = dtype == DType::kBFloat16 ? static_cast<float>(bfloat16(value)) : value;
    }
    return values;
  }
};

inline std::string Describe(const AttentionCase& c) {
  const ContextParallel& context = c.batch.context;
  return fmt::format("{} {} x {}, {} x {} tokens, {} heads of {} keys' x {}, {}{}",
                     ContextMethodName(context.method), SequenceLayoutName(context.layout),
                     context.num_ranks, c.batch.micro_batch_size, c.batch.seq_len,
                     c.heads.num_heads, c.heads.num_kv_heads, c.heads.head_dim, DTypeName(c.dtype),
                     c.document_starts.empty() ? "" : ", documents");
}

// A matrix of its own, in any dtype.
class TestTensor {
 public:
  TestTensor(DType dtype, int64_t rows, int64_t columns)
      : bytes_(static_cast<size_t>(rows * columns * DTypeBytes(dtype))),
        view_(bytes_.data(), dtype, {rows, columns}) {}
  TensorView view() const { return view_; }
  double Get(int64_t row, int64_t column) const {
    const auto at = row * view_.row_elements() + column;
    if (view_.dtype() == DType::kBFloat16) return static_cast<float>(view_.as<bfloat16>()[at]);
    return view_.as<float>()[at];
  }
  void Set(int64_t row, int64_t column, double value) const {
    const auto at = row * view_.row_elements() + column;
    if (view_.dtype() == DType::kBFloat16) {
      view_.as<bfloat16>()[at] = bfloat16(static_cast<float>(value));
    } else {
      view_.as<float>()[at] = static_cast<float>(value);
    }
  }

 private:
  std::vector<std::byte> bytes_;
  TensorView view_;
};

// What one rank has for its attention.
class AttentionRank {
 public:
  AttentionRank(const AttentionCase& c, int index)
      : case_(c),
        shape_(ShapeFor(c)),
        table_(shape_.model),
        parameters_({}, table_, shape_.layout, ledger_),
        weights_({}, parameters_, ledger_),
        gradients_({}, ledger_),
        stash_layout_(StashLayoutOf(shape_)),
        work_layout_(WorkspaceLayoutOf(shape_, AttentionWorkspaceBytes(ShapeOf(c.heads, c.batch)))),
        stash_(ledger_, MemoryTag::kActivations, stash_layout_.num_bytes),
        work_(ledger_, MemoryTag::kWorkspace, work_layout_.action_bytes),
        shared_(ledger_, MemoryTag::kWorkspace, work_layout_.shared_bytes),
        positions_(PositionsOf(c.batch.context, index, c.batch.seq_len)),
        attention_(NewSequenceAttention({.spec = shape_.model.layer_kinds.front(),
                                         .config = shape_.model.config,
                                         .batch = shape_.batch,
                                         .stash = stash_layout_.units.front(),
                                         .workspace = work_layout_.units.front(),
                                         .constants = work_layout_.constants.front(),
                                         .dtype = c.dtype,
                                         .master = DType::kFloat32,
                                         .layer = 1,
                                         .weights = weights_,
                                         .gradients = gradients_})),
        tokens_(c.batch.tokens_per_microbatch()),
        columns_(c.Whole().columns()),
        qkv_(c.dtype, tokens_, columns_),
        out_(c.dtype, tokens_, c.Whole().q()),
        dout_(c.dtype, tokens_, c.Whole().q()),
        dqkv_(c.dtype, tokens_, columns_) {
    attention_->WriteConstants(shared_.data());
    Fill(qkv_, c.Random("qkv", c.Whole().tokens() * columns_));
    Fill(dout_, c.Random("dout", c.Whole().tokens() * c.Whole().q()));
    for (int64_t row = 0; row < tokens_ && !c.document_starts.empty(); ++row) {
      document_starts_.push_back(c.document_starts[static_cast<size_t>(GlobalRow(row))]);
    }
  }

  Task<Status> ForwardAndBackward(ContextPeers peers) {
    const Pass forward = PassOf(peers, KvPhase::kForward);
    const Pass backward = PassOf(peers, KvPhase::kBackward);
    CO_RETURN_IF_ERROR(
        co_await attention_->Forward(forward, KvPhase::kForward, qkv_.view(), out_.view()));
    co_return co_await attention_->Backward(
        backward,
        {.qkv = qkv_.view(), .out = out_.view(), .dout = dout_.view(), .dqkv = dqkv_.view()});
  }
  // Into the places of whole sequences.
  void Collect(DenseResult& whole) const {
    for (int64_t row = 0; row < tokens_; ++row) {
      const int64_t q = case_.Whole().q();
      for (int64_t c = 0; c < q; ++c) {
        whole.out[static_cast<size_t>(GlobalRow(row) * q + c)] = out_.Get(row, c);
      }
      for (int64_t c = 0; c < columns_; ++c) {
        whole.dqkv[static_cast<size_t>(GlobalRow(row) * columns_ + c)] = dqkv_.Get(row, c);
      }
    }
  }

 private:
  static StageShape ShapeFor(const AttentionCase& c) {
    ModelConfig config{.hidden_size = 1,
                       .intermediate_size = 1,
                       .num_hidden_layers = 3,
                       .num_attention_heads = c.heads.num_heads,
                       .num_key_value_heads = c.heads.num_kv_heads,
                       .head_dim = c.heads.head_dim,
                       .vocab_size = 1};
    return {.model = config,
            .layout = {.stage = 1, .num_stages = 3, .first_layer = 1, .num_layers = 1},
            .batch = c.batch,
            .widths = {.compute_bytes = DTypeBytes(c.dtype)}};
  }
  int64_t GlobalRow(int64_t row) const {
    const auto count = std::ssize(positions_);
    return row / count * case_.batch.seq_len + positions_[static_cast<size_t>(row % count)];
  }
  void Fill(const TestTensor& tensor, const std::vector<double>& whole) const {
    const int64_t columns = tensor.view().row_elements();
    for (int64_t row = 0; row < tokens_; ++row) {
      for (int64_t c = 0; c < columns; ++c) {
        tensor.Set(row, c, whole[static_cast<size_t>(GlobalRow(row) * columns + c)]);
      }
    }
  }
  Pass PassOf(const ContextPeers& peers, KvPhase phase) {
    Pass pass{.exec = {},
              .microbatch = 0,
              .step = 1,
              .ring = peers.ring,
              .work = peers.work,
              .stash = stash_.data(),
              .workspace = work_.data(),
              .shared = shared_.data()};
    pass.exec.workspace = shared_.bytes().subspan(static_cast<size_t>(work_layout_.kernels));
    pass.groups.Set(Axis::kCp, peers.groups[static_cast<size_t>(LaneOf(phase))]);
    if (!document_starts_.empty()) {
      pass.document_starts =
          ConstTensorView(document_starts_.data(), DType::kInt32, {std::ssize(document_starts_)});
    }
    return pass;
  }

  const AttentionCase case_;
  MemoryLedger ledger_{};
  const StageShape shape_;
  const ParameterTable table_;
  StageParameters parameters_;
  UnitWeights weights_;
  GradientSum gradients_;
  const StashLayout stash_layout_;
  const WorkspaceLayout work_layout_;
  Buffer stash_, work_, shared_;
  const std::vector<int32_t> positions_;
  std::unique_ptr<SequenceAttention> attention_;
  const int64_t tokens_, columns_;
  TestTensor qkv_, out_, dout_, dqkv_;
  std::vector<int32_t> document_starts_{};
};

class AttentionRanks {
 public:
  explicit AttentionRanks(const AttentionCase& c) : case_(c), world_(c.batch.context.num_ranks) {
    for (int index = 0; index < world_.size(); ++index) {
      ranks_.push_back(std::make_unique<AttentionRank>(c, index));
    }
  }
  DenseResult Run() {
    world_.Run([this](int rank) {
      return ranks_[static_cast<size_t>(rank)]->ForwardAndBackward(world_.PeersOf(rank));
    });
    const DenseAttention whole = case_.Whole();
    DenseResult result{
        .out = std::vector<double>(static_cast<size_t>(whole.tokens() * whole.q())),
        .dqkv = std::vector<double>(static_cast<size_t>(whole.tokens() * whole.columns()))};
    for (const auto& rank : ranks_) rank->Collect(result);
    return result;
  }
  ContextWorld& world() { return world_; }

 private:
  const AttentionCase case_;
  ContextWorld world_;
  std::vector<std::unique_ptr<AttentionRank>> ranks_{};
};

// Largest differences: of out absolute; of dq, dk and dv over the largest element of each.
struct AttentionError {
  double out = 0, dq = 0, dk = 0, dv = 0;
};
inline AttentionError ErrorOf(const AttentionCase& c, const DenseResult& got,
                              const DenseResult& expected) {
  AttentionError error;
  for (size_t i = 0; i < got.out.size(); ++i) {
    error.out = std::max(error.out, std::abs(got.out[i] - expected.out[i]));
  }
  const DenseAttention whole = c.Whole();
  const int64_t k = c.heads.num_kv_heads * c.heads.head_dim;
  const auto of_columns = [&](int64_t first, int64_t count) {
    double difference = 0, largest = 0;
    for (int64_t row = 0; row < whole.tokens(); ++row) {
      for (int64_t column = first; column < first + count; ++column) {
        const auto at = static_cast<size_t>(row * whole.columns() + column);
        difference = std::max(difference, std::abs(got.dqkv[at] - expected.dqkv[at]));
        largest = std::max(largest, std::abs(expected.dqkv[at]));
      }
    }
    return difference / std::max(largest, 0.1);  // of queries that see one key it is zero
  };
  error.dq = of_columns(0, whole.q());
  error.dk = of_columns(whole.q(), k);
  error.dv = of_columns(whole.q() + k, k);
  return error;
}

inline DenseResult DenseOf(const AttentionCase& c) {
  return Dense(c.Whole(), c.Random("qkv", c.Whole().tokens() * c.Whole().columns()),
               c.Random("dout", c.Whole().tokens() * c.Whole().q()));
}

}  // namespace troupe::testing
