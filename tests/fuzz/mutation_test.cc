// The fuzzers' entry points without a fuzzer: good seeds, each cut off at every length, and many
// random mutations of them. Deterministic. A crash, a failed CHECK or a sanitizer's report fails.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "actors/messages.h"
#include "kernels/tensor_view.h"
#include "runtime/base/random.h"
#include "runtime/collective/group.h"
#include "runtime/collective/group_messages.h"
#include "runtime/format/checkpoint_manifest.h"
#include "runtime/format/hf_config.h"
#include "runtime/transport/ucx/ucx_frame.h"
#include "tests/fuzz/entry_points.h"
#include "tests/support/temporary_folder.h"

namespace troupe::testing {
namespace {

constexpr int kMutationsPerSeed = 20'000;

class Mutator {
 public:
  explicit Mutator(uint64_t key) : key_(key) {}

  std::string Mutate(const std::string& seed) {
    std::string bytes = seed;
    for (uint64_t n = 1 + Next(4); n > 0; --n) MutateOnce(bytes);
    return bytes;
  }

 private:
  uint64_t Next(uint64_t bound) {
    return static_cast<uint64_t>(UniformAt(key_, counter_++) * static_cast<double>(bound));
  }
  void MutateOnce(std::string& bytes) {
    static const std::vector<std::string> kTokens = {"{",
                                                     "}",
                                                     "[",
                                                     "]",
                                                     "\"",
                                                     ",",
                                                     ":",
                                                     "-",
                                                     "null",
                                                     "true",
                                                     "0",
                                                     "1e400",
                                                     "-1",
                                                     "9223372036854775807",
                                                     "18446744073709551615",
                                                     "\"a\":",
                                                     "\\u0000",
                                                     "\\ud800",
                                                     "\xff"};
    const size_t at = Next(bytes.size() + 1);
    switch (Next(6)) {
      case 0:
        if (at < bytes.size()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << Next(8)));
        break;
      case 1:
        if (at < bytes.size()) bytes[at] = static_cast<char>(Next(256));
        break;
      case 2:
        bytes.insert(at, kTokens[Next(kTokens.size())]);
        break;
      case 3:
        bytes.erase(at, 1 + Next(8));
        break;
      case 4: {
        const std::string piece = bytes.substr(at, 1 + Next(32));
        bytes.insert(Next(bytes.size() + 1), piece);
        break;
      }
      default:
        bytes.resize(at);
    }
  }

  uint64_t key_;
  uint64_t counter_ = 0;
};

using EntryPoint = std::function<void(std::span<const std::byte>)>;

void Feed(std::string_view name, const EntryPoint& entry, const std::vector<std::string>& seeds,
          int mutations_per_seed = kMutationsPerSeed) {
  for (size_t s = 0; s < seeds.size(); ++s) {
    for (size_t size = 0; size <= seeds[s].size(); ++size) {
      entry(BytesOf(std::string_view(seeds[s]).substr(0, size)));
    }
    Mutator mutator(RandomKey(s, name));
    for (int i = 0; i < mutations_per_seed; ++i) {
      // Of its own size, so that a sanitizer sees a read beyond the end.
      const std::string mutated = mutator.Mutate(seeds[s]);
      const std::vector<char> exact(mutated.begin(), mutated.end());
      entry(std::as_bytes(std::span(exact)));
    }
  }
}

std::string WithLength(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file.append(header).append(data_bytes, 'd');
}

TEST(MutationTest, Safetensors) {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"BF16","shape":[1,3],"data_offsets":[8,14]}} )";
  // The header alone too, behind a length that always fits: its JSON is reached every time.
  const EntryPoint framed = [](std::span<const std::byte> bytes) {
    const std::string file =
        WithLength(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), 14);
    FuzzSafetensors(BytesOf(file));
  };
  Feed("safetensors", FuzzSafetensors, {WithLength(header, 14), WithLength("{}", 0)});
  Feed("safetensors header", framed, {header});
}

TEST(MutationTest, HfConfig) {
  HfConfig config;
  config.hidden_size = 64;
  config.intermediate_size = 128;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.vocab_size = 256;
  ASSERT_TRUE(CompleteHfConfig(config, "model").ok());
  const std::string plain = HfConfigJson(config, "float32");
  config.rope_scaling = RopeScalingLlama3{};
  config.eos_token_id = {1, 2};
  Feed("hf_config", FuzzHfConfig, {plain, HfConfigJson(config, "bfloat16")});
}

TEST(MutationTest, JobFile) {
  const std::string block =
      "name: small\n"
      "model:\n  hidden_size: 16\n  intermediate_size: 32\n  num_hidden_layers: 4\n"
      "  num_attention_heads: 4\n  num_key_value_heads: 2\n  vocab_size: 256\n"
      "data: {train: text.txt, shuffle: true}\n"
      "parallelism: {pp: 2, schedule: 1f1b}\n"
      "batch: {micro_batch_size: 1, global_batch_size: 4, seq_len: 8}\n"
      "optimizer: {lr: 1.0e-3, betas: [0.9, 0.95]}\n"
      "train: {steps: 20, seed: 7}\n"
      "eval: {sample: {prompt: \"a \\\"b\\\" # c\", tokens: 3}}\n";
  Feed("job_file", FuzzJobFile, {block, "extends: /fuzz\n" + block}, /*mutations_per_seed=*/5000);
}

TEST(MutationTest, ScheduleCsv) {
  Feed("schedule_csv", FuzzScheduleCsv,
       {"0F0,0F1,(0F2;0B0)OVERLAP_F_B,0B1,0B2\r\n1F0,1I0,1F1,1W0/1of2,1W0/2of2,1B1,1F2,1B2\r\n",
        "0F0,0SEND_F0,0RECV_B0,0B0,0WAIT_SEND_F0,0REDUCE_GRAD,0WAIT_REDUCE_GRAD\n1UNSHARD,1RECV_F0,"
        "1F0,1I0,1SEND_B0,"
        "1W0\n",
        "0F0,3F1,3B1,0B0\n1F0,2F1,2B1,1B0\n", "0F0,,0BW0\n1F0,1B0,1W0\n"});
}

TEST(MutationTest, CostsFile) {
  Feed(
      "costs_file", FuzzCostsFile,
      {R"({"unit":"ms","step":3,"link_latency":0.5,"stages":[{"forward":1.5,"backward_input":1e-3,)"
       R"("backward_weight":2},{"forward":1,"backward":2}]})",
       "forward,backward_input,backward_weight\r\n1.5,1e-3,2\r\n1,1,1\r\n"});
}

TEST(MutationTest, TokenFile) {
  std::string narrow(1024, '\0');
  const int32_t header[] = {20240520, 1, 4};
  std::memcpy(narrow.data(), header, sizeof(header));
  std::string wide = narrow;
  const int32_t wide_header[] = {20240801, 7, 2};
  std::memcpy(wide.data(), wide_header, sizeof(wide_header));
  Feed("token_file", FuzzTokenFile, {narrow + "12345678", wide + "12345678"});
}

TEST(MutationTest, Manifest) {
  CheckpointManifest manifest{
      .step = 50,
      .next_sample = 1600,
      .seed = 7,
      .gradient_groups = 2,
      .job_json = "{}",
      .tensors = {{"a", WholeTensor("tensors.safetensors", TensorDtype::kF32, {8, 2})}},
      .optimizer_tensors = {
          {"a.exp_avg", WholeTensor("optim.safetensors", TensorDtype::kF32, {8, 2})}}};
  const std::string whole = ManifestJson(manifest);
  manifest.tensors["a"].pieces = {{.file = "1.safetensors", .num_elements = 9},
                                  {.file = "2.safetensors", .first_element = 9, .num_elements = 7}};
  Feed("manifest", FuzzManifest, {whole, ManifestJson(manifest)});
}

std::string BytesOfPlain(const auto& plain) {
  return {reinterpret_cast<const char*>(&plain), sizeof(plain)};
}

TEST(MutationTest, UcxFrame) {
  Envelope plain;
  ShortenHeader(&plain);
  const std::string short_message = BytesOfPlain(plain).substr(0, plain.header_bytes) + "payload";
  std::string with_bulk = BytesOfPlain(Envelope{.channel = 1, .num_bulk = 1});
  with_bulk.append("payload");
  const LinkFrame slots{.kind = LinkFrameKind::kSlots,
                        .generation = 1,
                        .num_slots = 2,
                        .slot_bytes = 100,
                        .stride_bytes = 4096,
                        .process_id = 7};
  Feed("ucx_frame", FuzzUcxFrame,
       {short_message, with_bulk, BytesOfPlain(slots),
        EncodeAddress({.rank = Rank(1), .worker = "worker"})});
}

// Of a rank that runs the same operation on int32 as the member that is fed.
std::string GroupBlockFrom(int rank, uint16_t bulk_bytes, GroupBlock block) {
  block.sequence = 1;
  block.group = 5;
  block.dtype = static_cast<uint8_t>(DType::kInt32);
  return std::string(1, static_cast<char>(rank)) + BytesOfPlain(bulk_bytes) + BytesOfPlain(block);
}

TEST(MutationTest, GroupMessages) {
  const auto first_byte = [](GroupOperationKind kind) {
    return std::string(1, static_cast<char>(kind));
  };
  // Each ends its operation well.
  std::string all_reduce = first_byte(GroupOperationKind::kAllReduce);
  std::string all_to_all = first_byte(GroupOperationKind::kAllToAll);
  for (const int rank : {1, 2}) {
    GroupBlock sum{.part = BlockPart::kSum, .total = 300, .count = 300, .expects = 300};
    all_reduce += GroupBlockFrom(rank, 1000, sum);
    sum.first = 250;
    all_reduce += GroupBlockFrom(rank, 200, sum);
    all_to_all += GroupBlockFrom(rank, 400,
                                 {.kind = static_cast<uint8_t>(GroupOperationKind::kAllToAll),
                                  .part = BlockPart::kCopy,
                                  .count = 100,
                                  .expects = 100});
  }
  // The second algorithm, a ring: two parts come of rank 2, which expects nothing, none of rank 1.
  constexpr auto kScatter = GroupOperationKind::kReduceScatter;
  std::string ring(1, static_cast<char>(kNumGroupOperationKinds + 1 + static_cast<int>(kScatter)));
  GroupBlock part{.kind = static_cast<uint8_t>(kScatter), .total = 300, .expects = 200};
  ring += GroupBlockFrom(1, 0, part);
  part.part = BlockPart::kSum;
  part.count = 200;
  part.expects = 0;
  ring += GroupBlockFrom(2, 400, part);
  part.first = 100;
  ring += GroupBlockFrom(2, 400, part);
  GroupFault fault{
      .group = 5, .code = static_cast<uint8_t>(ErrorCode::kDeadlineExceeded), .text_bytes = 23};
  std::memcpy(fault.text, "nothing came of rank 2.", 23);
  const std::string barrier = first_byte(GroupOperationKind::kBarrier) + "\5" + BytesOfPlain(fault);
  Feed("group_messages", FuzzGroupMessages, {all_reduce, all_to_all, ring, barrier});
}

TEST(MutationTest, KvMessages) {
  // Ends both passes well: of rank 2, the one before rank 0.
  const TensorDescriptor tensor{.dtype = static_cast<uint8_t>(DType::kFloat32),
                                .rank = 2,
                                .shape = {4, 4, 0, 0},
                                .num_bytes = 64};
  std::string both;
  for (int hop = 1; hop <= 3; ++hop) {
    const auto origin = static_cast<int16_t>((3 - hop) % 3);
    KvBlock block{.hop = static_cast<int16_t>(hop), .origin = origin, .tensor = tensor};
    if (hop < 3) both += std::string("\x02\x40") + BytesOfPlain(block);
    block.phase = static_cast<uint32_t>(KvPhase::kBackward);
    if (hop < 3) both += std::string("\x0a\x40") + BytesOfPlain(block);
    both += std::string("\x16\x40") + BytesOfPlain(block);
  }
  Feed("kv_messages", FuzzKvMessages, {both});
}

TEST(MutationTest, ShardMessages) {
  const auto block = [](char what, uint16_t bulk_bytes, const ShardBlock& message) {
    return std::string(1, what) + BytesOfPlain(bulk_bytes) + BytesOfPlain(message);
  };
  // Ends both gathers well, and answers.
  const ShardWanted wanted{.version = 1, .training = 1};
  std::string both = block(1, 100, {.version = 1, .run_bytes = 200});
  both += block(5, 60, {.version = 1, .row = 1, .run_bytes = 60});
  both += std::string(1, 9) + BytesOfPlain(wanted);
  both += block(1, 100, {.version = 1, .run_bytes = 200, .first_byte = 100});
  both += block(6, 40, {.version = 1, .row = 1, .run_bytes = 40});
  both += std::string(1, 10) + BytesOfPlain(wanted);
  Feed("shard_messages", FuzzShardMessages, {both});
}

}  // namespace
}  // namespace troupe::testing
