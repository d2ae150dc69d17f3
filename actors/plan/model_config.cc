#include "actors/plan/model_config.h"

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace troupe {
namespace {

constexpr int64_t kSizeMax = int64_t{1} << 24;
// Bounds the table of parameters and the search for the partition.
constexpr int64_t kLayersMax = 2048;

class FieldReader {
 public:
  explicit FieldReader(std::vector<Error>& errors) : errors_(errors) {}

  int64_t Positive(std::string_view field, bool given, int64_t value, int64_t otherwise,
                   int64_t most = kSizeMax) {
    if (!given) {
      if (otherwise <= 0) Refuse("model.{} is missing: give it, or model.config with it", field);
      return otherwise;
    }
    if (value < 1 || value > most) {
      Refuse("model.{} = {}: use 1 to {}", field, value, most);
      return 0;
    }
    return value;
  }
  double PositiveReal(std::string_view field, bool given, double value, double otherwise) {
    if (!given) return otherwise;
    if (!(value > 0) || value > 1e30) Refuse("model.{} = {}: use a positive number", field, value);
    return value;
  }
  template <typename... Args>
  void Refuse(fmt::format_string<Args...> format, Args&&... args) {
    errors_.push_back(MakeError(ErrorCode::kInvalidSpec, format, std::forward<Args>(args)...));
  }

 private:
  std::vector<Error>& errors_;
};

// "1, 2, 4, 8": what divides `value`, at most eight of them.
std::string Divisors(int64_t value) {
  std::string list;
  int found = 0;
  for (int64_t d = 1; d <= value && found < 8; ++d) {
    if (value % d != 0) continue;
    if (found++ > 0) list += ", ";
    list += fmt::format("{}", d);
  }
  return list;
}

void ReadHeads(const proto::Model& model, ModelConfig& config, FieldReader& reader) {
  const int64_t heads = config.num_attention_heads;
  const int64_t kv_heads = config.num_key_value_heads;
  if (heads < 1) return;
  if (kv_heads > 0 && heads % kv_heads != 0) {
    reader.Refuse(
        "model.num_key_value_heads = {} does not divide model.num_attention_heads = {}: every key "
        "head serves as many query heads; use one of {}",
        kv_heads, heads, Divisors(heads));
  }
  if (!model.has_head_dim() && config.hidden_size > 0 && config.hidden_size % heads != 0) {
    reader.Refuse(
        "model.num_attention_heads = {} does not divide model.hidden_size = {}: use {} heads, or "
        "give model.head_dim",
        heads, config.hidden_size, Divisors(config.hidden_size));
    return;
  }
  const bool derived = config.head_dim == config.hidden_size / heads;
  if (config.head_dim > 0 && config.head_dim % 2 != 0 && config.hidden_size > 0) {
    reader.Refuse(
        "model.head_dim = {} is odd{}: the rotary embedding turns pairs of channels; use an "
        "even one",
        config.head_dim,
        derived ? fmt::format(" (model.hidden_size = {} / model.num_attention_heads = {})",
                              config.hidden_size, heads)
                : "");
  }
}

void ReadRope(const proto::Model& model, ModelConfig& config, FieldReader& reader) {
  const proto::RopeScaling& scaling = model.rope_scaling();
  config.rope_theta = reader.PositiveReal("rope_theta", model.has_rope_theta(), model.rope_theta(),
                                          scaling.has_rope_theta() ? scaling.rope_theta() : 10000);
  if (!model.has_rope_scaling()) return;
  const std::string& type = scaling.rope_type();
  if (type.empty() || type == "default") return;
  if (type != "llama3") {
    reader.Refuse("model.rope_scaling.rope_type = {}: use default or llama3", type);
    return;
  }
  RopeScaling llama3;
  if (scaling.has_factor()) llama3.factor = scaling.factor();
  if (scaling.has_low_freq_factor()) llama3.low_freq_factor = scaling.low_freq_factor();
  if (scaling.has_high_freq_factor()) llama3.high_freq_factor = scaling.high_freq_factor();
  if (scaling.has_original_max_position_embeddings()) {
    llama3.original_max_position_embeddings = scaling.original_max_position_embeddings();
  }
  const std::string_view scale = "model.rope_scaling";
  if (!(llama3.factor >= 1)) reader.Refuse("{}.factor = {}: use 1 or more", scale, llama3.factor);
  if (!(llama3.low_freq_factor > 0)) {
    reader.Refuse("{}.low_freq_factor = {}: use more than 0", scale, llama3.low_freq_factor);
  } else if (!(llama3.high_freq_factor > llama3.low_freq_factor)) {
    reader.Refuse("{0}.high_freq_factor = {1}: use more than {0}.low_freq_factor = {2}", scale,
                  llama3.high_freq_factor, llama3.low_freq_factor);
  }
  if (llama3.original_max_position_embeddings < 1) {
    reader.Refuse("{}.original_max_position_embeddings = {}: use 1 or more", scale,
                  llama3.original_max_position_embeddings);
  }
  config.rope_scaling = llama3;
}

void ReadTokenIds(const proto::Model& model, ModelConfig& config, FieldReader& reader) {
  const auto check = [&](std::string_view field, int32_t id) {
    if (id >= 0 && (id < config.vocab_size || config.vocab_size == 0)) return;
    if (config.vocab_size == 0) return reader.Refuse("model.{} = {}: use 0 or more", field, id);
    reader.Refuse("model.{} = {}: use a token of the vocabulary, 0 to model.vocab_size - 1 = {}",
                  field, id, config.vocab_size - 1);
  };
  if (model.has_bos_token_id()) {
    check("bos_token_id", model.bos_token_id());
    config.bos_token_id = model.bos_token_id();
  }
  for (const int32_t id : model.eos_token_id()) {
    check("eos_token_id", id);
    config.eos_token_id.push_back(id);
  }
  if (model.has_pad_token_id()) {
    check("pad_token_id", model.pad_token_id());
    config.pad_token_id = model.pad_token_id();
  }
}

}  // namespace

ModelConfigReading ReadModelConfig(const proto::Model& model) {
  ModelConfigReading reading;
  ModelConfig& config = reading.config;
  FieldReader reader(reading.errors);
  config.hidden_size =
      reader.Positive("hidden_size", model.has_hidden_size(), model.hidden_size(), 0);
  config.intermediate_size = reader.Positive("intermediate_size", model.has_intermediate_size(),
                                             model.intermediate_size(), 0);
  config.num_hidden_layers = reader.Positive("num_hidden_layers", model.has_num_hidden_layers(),
                                             model.num_hidden_layers(), 0, kLayersMax);
  config.num_attention_heads = reader.Positive(
      "num_attention_heads", model.has_num_attention_heads(), model.num_attention_heads(), 0);
  config.vocab_size = reader.Positive("vocab_size", model.has_vocab_size(), model.vocab_size(), 0);
  const int64_t heads = config.num_attention_heads;
  if (heads > 0) {
    config.num_key_value_heads = reader.Positive(
        "num_key_value_heads", model.has_num_key_value_heads(), model.num_key_value_heads(), heads);
    const int64_t share = config.hidden_size / heads;
    config.head_dim =
        reader.Positive("head_dim", model.has_head_dim(), model.head_dim(), share > 0 ? share : 1);
  }
  ReadHeads(model, config, reader);
  reading.shapes_agree = reading.errors.empty();
  config.max_position_embeddings =
      reader.Positive("max_position_embeddings", model.has_max_position_embeddings(),
                      model.max_position_embeddings(), 2048);
  config.rms_norm_eps =
      reader.PositiveReal("rms_norm_eps", model.has_rms_norm_eps(), model.rms_norm_eps(), 1e-6);
  config.initializer_range = reader.PositiveReal("initializer_range", model.has_initializer_range(),
                                                 model.initializer_range(), 0.02);
  ReadRope(model, config, reader);
  ReadTokenIds(model, config, reader);
  config.tie_word_embeddings = model.tie_word_embeddings();
  if (model.has_hidden_act() && model.hidden_act() != "silu") {
    reader.Refuse("model.hidden_act = {}: use silu (SwiGLU)", model.hidden_act());
  }
  if (model.attention_bias()) reader.Refuse("model.attention_bias = true: use false");
  if (model.mlp_bias()) reader.Refuse("model.mlp_bias = true: use false");
  return reading;
}

Result<ModelConfig> ModelConfigOf(const proto::Model& model) {
  ModelConfigReading reading = ReadModelConfig(model);
  if (!reading.errors.empty()) return std::move(reading.errors.front());
  return reading.config;
}

}  // namespace troupe
