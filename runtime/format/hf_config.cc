#include "runtime/format/hf_config.h"

#include <cmath>
#include <utility>

#include "runtime/format/foreign_keys.h"
#include "runtime/format/json_reader.h"
#include "runtime/format/metrics_file.h"

namespace troupe {
namespace {

using nlohmann::json;

constexpr int64_t kConfigMaxBytes = int64_t{1} << 20;
constexpr int32_t kExtentMax = 1 << 24;  // of one tensor dimension
constexpr int32_t kLayersMax = 1 << 16;

// Where transformers 5 and 4 keep the rotary embedding: one nested object, or a base beside an
// optional scaling. Type "default" (or none) means no scaling.
Status ReadRope(const JsonFields& fields, const std::string& path, HfConfig* config) {
  RETURN_IF_ERROR(fields.Read("rope_theta", &config->rope_theta));
  for (const std::string_view key : {"rope_scaling", "rope_parameters"}) {
    const json* object = fields.Member(key);
    if (object == nullptr) continue;
    if (!object->is_object()) return fields.Wrong(key, "an object");
    const JsonFields rope(*object, fmt::format("{}: {}", path, key));
    RETURN_IF_ERROR(rope.Read("rope_theta", &config->rope_theta));
    std::string type = "default";
    RETURN_IF_ERROR(rope.Read("type", &type));
    RETURN_IF_ERROR(rope.Read("rope_type", &type));
    if (type == "default") continue;
    if (type != "llama3") {
      return MakeError(ErrorCode::kInvalidSpec,
                       "{}: {}.rope_type is {}; 'default' and 'llama3' are supported", path, key,
                       Quoted(type));
    }
    RopeScalingLlama3 scaling;
    RETURN_IF_ERROR(rope.Require("factor", &scaling.factor));
    RETURN_IF_ERROR(rope.Require("low_freq_factor", &scaling.low_freq_factor));
    RETURN_IF_ERROR(rope.Require("high_freq_factor", &scaling.high_freq_factor));
    RETURN_IF_ERROR(rope.Require("original_max_position_embeddings",
                                 &scaling.original_max_position_embeddings));
    config->rope_scaling = scaling;
  }
  return {};
}

Status ReadTokenId(const JsonFields& fields, std::string_view key, std::optional<int32_t>* out) {
  if (fields.Member(key) == nullptr) return {};
  int32_t id = 0;
  RETURN_IF_ERROR(fields.Read(key, &id));
  *out = id;
  return {};
}

// One id or a list of them.
Status ReadEndIds(const JsonFields& fields, std::vector<int32_t>* out) {
  const json* member = fields.Member("eos_token_id");
  if (member == nullptr) return {};
  const json list = member->is_array() ? *member : json::array({*member});
  for (const json& value : list) {
    const auto id = WholeNumber(value);
    if (!id || !std::in_range<int32_t>(*id)) {
      return fields.Wrong("eos_token_id", "a token id or a list of them");
    }
    out->push_back(static_cast<int32_t>(*id));
  }
  return {};
}

struct Bound {
  std::string_view key;
  int32_t value;
  int32_t max;
};

Status CheckSizes(const HfConfig& config, const std::string& place) {
  for (const Bound& bound :
       {Bound{"hidden_size", config.hidden_size, kExtentMax},
        Bound{"intermediate_size", config.intermediate_size, kExtentMax},
        Bound{"num_hidden_layers", config.num_hidden_layers, kLayersMax},
        Bound{"num_attention_heads", config.num_attention_heads, kExtentMax},
        Bound{"num_key_value_heads", config.num_key_value_heads, kExtentMax},
        Bound{"head_dim", config.head_dim, kExtentMax},
        Bound{"vocab_size", config.vocab_size, kExtentMax},
        Bound{"max_position_embeddings", config.max_position_embeddings, 1 << 30}}) {
    if (bound.value < 1 || bound.value > bound.max) {
      return MakeError(ErrorCode::kInvalidSpec, "{}: {} is {}; it must be from 1 to {}", place,
                       bound.key, bound.value, bound.max);
    }
  }
  return {};
}

Status CheckRope(const HfConfig& config, const std::string& place) {
  if (config.head_dim % 2 != 0) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "{}: head_dim is {}; the rotary embedding turns pairs, so it must be even",
                     place, config.head_dim);
  }
  if (!(config.rope_theta > 0) || !std::isfinite(config.rope_theta)) {
    return MakeError(ErrorCode::kInvalidSpec, "{}: rope_theta is {}; it must be positive", place,
                     config.rope_theta);
  }
  if (!config.rope_scaling) return {};
  const RopeScalingLlama3& scaling = *config.rope_scaling;
  if (!(scaling.factor >= 1) || !(scaling.low_freq_factor > 0) ||
      !(scaling.high_freq_factor > scaling.low_freq_factor) ||
      scaling.original_max_position_embeddings < 1) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "{}: the llama3 rope scaling needs factor >= 1, high_freq_factor > "
                     "low_freq_factor > 0 and original_max_position_embeddings >= 1",
                     place);
  }
  return {};
}

Status CheckSupported(const HfConfig& config, const std::string& place) {
  if (config.hidden_act != "silu") {
    return MakeError(ErrorCode::kInvalidSpec, "{}: hidden_act is {}; 'silu' is supported", place,
                     Quoted(config.hidden_act));
  }
  if (config.attention_bias || config.mlp_bias) {
    return MakeError(ErrorCode::kInvalidSpec, "{}: {} is true; layers without bias are supported",
                     place, config.attention_bias ? "attention_bias" : "mlp_bias");
  }
  if (!(config.rms_norm_eps > 0) || !std::isfinite(config.rms_norm_eps)) {
    return MakeError(ErrorCode::kInvalidSpec, "{}: rms_norm_eps is {}; it must be positive", place,
                     config.rms_norm_eps);
  }
  return {};
}

// A JSON float even where it is whole: transformers warns about integers among rope factors.
std::string FloatText(double value) {
  std::string text = fmt::format("{}", value);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

// The rotary keys of transformers 5 (nested) or 4 (beside the base).
std::string RopeText(const HfConfig& config, bool with_theta) {
  JsonLine rope;
  rope.Add("rope_type", config.rope_scaling ? "llama3" : "default");
  if (with_theta) rope.AddJson("rope_theta", FloatText(config.rope_theta));
  if (config.rope_scaling) {
    rope.AddJson("factor", FloatText(config.rope_scaling->factor))
        .AddJson("low_freq_factor", FloatText(config.rope_scaling->low_freq_factor))
        .AddJson("high_freq_factor", FloatText(config.rope_scaling->high_freq_factor))
        .Add("original_max_position_embeddings",
             config.rope_scaling->original_max_position_embeddings);
  }
  return rope.Text();
}

void AddTokenIds(JsonLine& line, const HfConfig& config) {
  const auto add = [&](std::string_view key, const std::optional<int32_t>& id) {
    if (id) {
      line.Add(key, *id);
    } else {
      line.AddJson(key, "null");
    }
  };
  add("bos_token_id", config.bos_token_id);
  if (config.eos_token_id.size() > 1) {
    line.AddJson("eos_token_id", fmt::format("[{}]", fmt::join(config.eos_token_id, ",")));
  } else {
    add("eos_token_id",
        config.eos_token_id.empty() ? std::nullopt : std::optional(config.eos_token_id[0]));
  }
  add("pad_token_id", config.pad_token_id);
}

}  // namespace

Result<HfConfig> ParseHfConfigJson(std::string_view text, const std::string& path) {
  ASSIGN_OR_RETURN(const json document, ParseJson(text, path));
  if (!document.is_object()) return MakeError(ErrorCode::kCorrupt, "{}: not an object", path);
  const JsonFields fields(document, path);
  std::string model_type = "llama";
  RETURN_IF_ERROR(fields.Read("model_type", &model_type));
  if (model_type != "llama") {
    return MakeError(ErrorCode::kInvalidSpec, "{}: model_type is {}; 'llama' is supported", path,
                     Quoted(model_type));
  }
  RETURN_IF_ERROR(RefuseForeignKeys(document, path));
  HfConfig config;
  RETURN_IF_ERROR(fields.Read("hidden_size", &config.hidden_size));
  RETURN_IF_ERROR(fields.Read("intermediate_size", &config.intermediate_size));
  RETURN_IF_ERROR(fields.Read("num_hidden_layers", &config.num_hidden_layers));
  RETURN_IF_ERROR(fields.Read("num_attention_heads", &config.num_attention_heads));
  RETURN_IF_ERROR(fields.Read("num_key_value_heads", &config.num_key_value_heads));
  RETURN_IF_ERROR(fields.Read("head_dim", &config.head_dim));
  RETURN_IF_ERROR(fields.Read("vocab_size", &config.vocab_size));
  RETURN_IF_ERROR(fields.Read("max_position_embeddings", &config.max_position_embeddings));
  RETURN_IF_ERROR(fields.Read("rms_norm_eps", &config.rms_norm_eps));
  RETURN_IF_ERROR(ReadRope(fields, path, &config));
  RETURN_IF_ERROR(fields.Read("tie_word_embeddings", &config.tie_word_embeddings));
  RETURN_IF_ERROR(fields.Read("hidden_act", &config.hidden_act));
  RETURN_IF_ERROR(fields.Read("attention_bias", &config.attention_bias));
  RETURN_IF_ERROR(fields.Read("mlp_bias", &config.mlp_bias));
  RETURN_IF_ERROR(fields.Read("initializer_range", &config.initializer_range));
  RETURN_IF_ERROR(ReadTokenId(fields, "bos_token_id", &config.bos_token_id));
  RETURN_IF_ERROR(ReadEndIds(fields, &config.eos_token_id));
  RETURN_IF_ERROR(ReadTokenId(fields, "pad_token_id", &config.pad_token_id));
  return config;
}

Status CompleteHfConfig(HfConfig& config, const std::string& place) {
  if (config.num_key_value_heads == 0) config.num_key_value_heads = config.num_attention_heads;
  if (config.head_dim == 0 && config.num_attention_heads > 0) {
    if (config.hidden_size % config.num_attention_heads != 0) {
      return MakeError(ErrorCode::kInvalidSpec,
                       "{}: hidden_size {} does not divide by num_attention_heads {}; change one "
                       "or give head_dim",
                       place, config.hidden_size, config.num_attention_heads);
    }
    config.head_dim = config.hidden_size / config.num_attention_heads;
  }
  RETURN_IF_ERROR(CheckSizes(config, place));
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "{}: num_attention_heads {} does not divide by num_key_value_heads {}", place,
                     config.num_attention_heads, config.num_key_value_heads);
  }
  if (int64_t{config.num_attention_heads} * config.head_dim > kExtentMax) {
    return MakeError(ErrorCode::kInvalidSpec,
                     "{}: num_attention_heads {} times head_dim {} exceeds {}", place,
                     config.num_attention_heads, config.head_dim, kExtentMax);
  }
  RETURN_IF_ERROR(CheckRope(config, place));
  return CheckSupported(config, place);
}

Result<HfConfig> ReadHfConfig(FileSystem& files, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, files.ReadFile(path, kConfigMaxBytes));
  ASSIGN_OR_RETURN(HfConfig config, ParseHfConfigJson(text, path));
  RETURN_IF_ERROR(CompleteHfConfig(config, path));
  return config;
}

std::string HfConfigJson(const HfConfig& config, std::string_view dtype) {
  JsonLine line;
  line.AddJson("architectures", R"(["LlamaForCausalLM"])")
      .Add("model_type", "llama")
      .Add("vocab_size", config.vocab_size)
      .Add("hidden_size", config.hidden_size)
      .Add("intermediate_size", config.intermediate_size)
      .Add("num_hidden_layers", config.num_hidden_layers)
      .Add("num_attention_heads", config.num_attention_heads)
      .Add("num_key_value_heads", config.num_key_value_heads)
      .Add("head_dim", config.head_dim)
      .Add("hidden_act", config.hidden_act)
      .Add("max_position_embeddings", config.max_position_embeddings)
      .AddJson("initializer_range", FloatText(config.initializer_range))
      .AddJson("rms_norm_eps", FloatText(config.rms_norm_eps))
      .AddJson("rope_theta", FloatText(config.rope_theta))
      .AddJson("rope_scaling", config.rope_scaling ? RopeText(config, false) : "null")
      .AddJson("rope_parameters", RopeText(config, true))
      .Add("tie_word_embeddings", config.tie_word_embeddings)
      .Add("attention_bias", config.attention_bias)
      .Add("attention_dropout", 0.0)
      .Add("mlp_bias", config.mlp_bias)
      .Add("use_cache", true);
  AddTokenIds(line, config);
  line.Add("dtype", dtype).Add("torch_dtype", dtype);
  return json::parse(line.Text(), nullptr, false).dump(2) + "\n";
}

std::string HfGenerationConfigJson(const HfConfig& config) {
  JsonLine line;
  line.Add("_from_model_config", true);
  AddTokenIds(line, config);
  return json::parse(line.Text(), nullptr, false).dump(2) + "\n";
}

Status WriteHfConfig(FileSystem& files, const std::string& folder, const HfConfig& config,
                     std::string_view dtype) {
  RETURN_IF_ERROR(files.CreateDirectories(folder));
  RETURN_IF_ERROR(
      WriteFileAtomically(files, JoinPath(folder, "config.json"), HfConfigJson(config, dtype)));
  return WriteFileAtomically(files, JoinPath(folder, "generation_config.json"),
                             HfGenerationConfigJson(config));
}

}  // namespace troupe
