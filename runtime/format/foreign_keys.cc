#include "runtime/format/foreign_keys.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "runtime/format/json_reader.h"

namespace troupe {
namespace {

using nlohmann::json;

// Keys of Llama's relatives that change what is computed, what it would take, and the number that
// leaves it off (beside null, false, 0 and nothing).
struct ForeignKey {
  std::string_view key;
  std::string_view needs;
  double off = 0;
};
constexpr std::string_view kExperts = "a mixture of experts";
constexpr std::string_view kWindow = "attention within a window";
constexpr std::string_view kBias = "layers with bias";
constexpr std::string_view kDropout = "dropout";
constexpr std::string_view kCaps = "capped logits";
constexpr std::string_view kScales = "scaled activations";
constexpr std::string_view kQkNorm = "norms of queries and keys";
constexpr std::string_view kLatent = "latent attention";
constexpr std::string_view kQuantized = "float32, bfloat16 or float16 weights (convert them)";
constexpr std::string_view kPartialRotary = "a rotary embedding of some channels only";
constexpr ForeignKey kForeignKeys[] = {
    {"sliding_window", kWindow},
    {"attention_chunk_size", kWindow},
    {"num_local_experts", kExperts},
    {"num_experts", kExperts},
    {"n_routed_experts", kExperts},
    {"n_shared_experts", kExperts},
    {"num_experts_per_tok", kExperts},
    {"moe_intermediate_size", kExperts},
    {"quantization_config", kQuantized},
    {"compression_config", kQuantized},
    {"partial_rotary_factor", kPartialRotary, 1},
    {"rotary_pct", kPartialRotary, 1},
    {"rope_local_base_freq", "a rotary base by layer"},
    {"rope_interleaved", "interleaved rotary pairs"},
    {"rope_interleave", "interleaved rotary pairs"},
    {"no_rope_layer_interval", "layers without a rotary embedding"},
    {"alibi", "ALiBi positions"},
    {"qk_norm", kQkNorm},
    {"use_qk_norm", kQkNorm},
    {"qk_layernorm", kQkNorm},
    {"attn_logit_softcapping", kCaps},
    {"final_logit_softcapping", kCaps},
    {"logits_soft_cap", kCaps},
    {"clip_qkv", "clipped queries, keys and values"},
    {"logits_scaling", kScales, 1},
    {"logit_scale", kScales, 1},
    {"residual_multiplier", kScales, 1},
    {"embedding_multiplier", kScales, 1},
    {"attention_multiplier", kScales},
    {"query_pre_attn_scalar", kScales},
    {"scale_emb", kScales, 1},
    {"scale_depth", kScales},
    {"q_lora_rank", kLatent},
    {"kv_lora_rank", kLatent},
    {"bias", kBias},
    {"use_bias", kBias},
    {"qkv_bias", kBias},
    {"use_qkv_bias", kBias},
    {"attention_out_bias", kBias},
    {"add_bias_linear", kBias},
    {"attention_dropout", kDropout},
    {"hidden_dropout", kDropout},
    {"resid_pdrop", kDropout},
    {"embd_pdrop", kDropout},
    {"attn_pdrop", kDropout},
    {"use_parallel_residual", "attention and feed-forward side by side"},
    {"parallel_attn", "attention and feed-forward side by side"},
    {"add_cross_attention", "cross attention"},
    {"cross_attention_layers", "cross attention"},
    {"num_nextn_predict_layers", "heads for tokens after the next"},
};

bool IsOff(const json& value, double off) {
  if (value.is_null() || (value.is_structured() && value.empty())) return true;
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value.get<double>() == 0 || value.get<double>() == off;
  return value.is_string() && value.get_ref<const std::string&>().empty();
}

bool AreAll(const json& list, const json& value) {
  return list.is_array() &&
         std::ranges::all_of(list, [&value](const json& one) { return one == value; });
}

}  // namespace

Status RefuseForeignKeys(const json& document, const std::string& path) {
  std::vector<std::string> found;
  const auto refuse = [&found](std::string_view key, const json& value, std::string_view needs) {
    constexpr int kDump = -1;
    const std::string text =
        value.is_structured() || value.is_string()
            ? Quoted(value.dump(kDump, ' ', false, json::error_handler_t::replace))
            : value.dump();
    found.push_back(fmt::format("{} = {} needs {}", key, text, needs));
  };
  for (const ForeignKey& foreign : kForeignKeys) {
    const auto value = document.find(foreign.key);
    if (value == document.end() || IsOff(*value, foreign.off)) continue;
    const auto windows = document.find("use_sliding_window");
    if (foreign.key == "sliding_window" && windows != document.end() && *windows == false) continue;
    refuse(foreign.key, *value, foreign.needs);
  }
  if (const auto rope = document.find("rope_parameters");
      rope != document.end() && rope->is_object() && rope->contains("partial_rotary_factor") &&
      !IsOff(rope->at("partial_rotary_factor"), 1)) {
    refuse("rope_parameters.partial_rotary_factor", rope->at("partial_rotary_factor"),
           kPartialRotary);
  }
  if (const auto layers = document.find("layer_types");
      layers != document.end() && !layers->is_null() && !AreAll(*layers, "full_attention")) {
    refuse("layer_types", *layers, "other layers than full attention");
  }
  if (const auto layers = document.find("no_rope_layers");
      layers != document.end() && !layers->is_null() && !AreAll(*layers, 1)) {
    refuse("no_rope_layers", *layers, "layers without a rotary embedding");
  }
  if (found.empty()) return {};
  return MakeError(ErrorCode::kInvalidSpec,
                   "{}: {}: not built; give the config.json of a model without {}", path,
                   fmt::join(found, ", "), found.size() == 1 ? "it" : "them");
}

}  // namespace troupe
