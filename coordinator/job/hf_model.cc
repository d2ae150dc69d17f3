#include "coordinator/job/hf_model.h"

#include "runtime/format/file_kind.h"
#include "runtime/format/hf_config.h"

namespace troupe {
namespace {

constexpr int64_t kConfigBytesMax = int64_t{1} << 20;

void FillRopeScaling(const HfConfig& config, const Origin& origin, proto::Model& model,
                     Provenance& provenance) {
  if (model.has_rope_scaling() || !config.rope_scaling) return;
  proto::RopeScaling* scaling = model.mutable_rope_scaling();
  scaling->set_rope_type("llama3");
  scaling->set_factor(config.rope_scaling->factor);
  scaling->set_low_freq_factor(config.rope_scaling->low_freq_factor);
  scaling->set_high_freq_factor(config.rope_scaling->high_freq_factor);
  scaling->set_original_max_position_embeddings(
      config.rope_scaling->original_max_position_embeddings);
  for (const char* key : {"rope_type", "factor", "low_freq_factor", "high_freq_factor",
                          "original_max_position_embeddings"}) {
    provenance.emplace(std::string("model.rope_scaling.") + key, origin);
  }
}

// After the vocabulary's size. An id outside of it stays out: some files say -1 for none, and a job
// may make the vocabulary smaller.
void FillTokenIds(const HfConfig& config, const Origin& origin, proto::Model& model,
                  Provenance& provenance) {
  const auto is_token = [&model](int32_t id) { return id >= 0 && id < model.vocab_size(); };
  if (!model.has_bos_token_id() && config.bos_token_id && is_token(*config.bos_token_id)) {
    model.set_bos_token_id(*config.bos_token_id);
    provenance.emplace("model.bos_token_id", origin);
  }
  if (!model.has_pad_token_id() && config.pad_token_id && is_token(*config.pad_token_id)) {
    model.set_pad_token_id(*config.pad_token_id);
    provenance.emplace("model.pad_token_id", origin);
  }
  if (model.eos_token_id_size() > 0) return;
  for (const int32_t id : config.eos_token_id) {
    if (is_token(id)) model.add_eos_token_id(id);
  }
  if (model.eos_token_id_size() > 0) provenance.emplace("model.eos_token_id", origin);
}

void Fill(const HfConfig& config, const Origin& origin, proto::Model& model,
          Provenance& provenance) {
// Sets `field` where the user did not and the file did.
#define TROUPE_FILL(field, given)                  \
  do {                                             \
    if (!model.has_##field() && (given)) {         \
      model.set_##field(config.field);             \
      provenance.emplace("model." #field, origin); \
    }                                              \
  } while (false)
  TROUPE_FILL(hidden_size, config.hidden_size != 0);
  TROUPE_FILL(intermediate_size, config.intermediate_size != 0);
  TROUPE_FILL(num_hidden_layers, config.num_hidden_layers != 0);
  TROUPE_FILL(num_attention_heads, config.num_attention_heads != 0);
  TROUPE_FILL(num_key_value_heads, config.num_key_value_heads != 0);
  TROUPE_FILL(head_dim, config.head_dim != 0);
  TROUPE_FILL(vocab_size, config.vocab_size != 0);
  TROUPE_FILL(max_position_embeddings, true);
  TROUPE_FILL(rms_norm_eps, true);
  TROUPE_FILL(rope_theta, !model.rope_scaling().has_rope_theta());
  TROUPE_FILL(tie_word_embeddings, true);
  TROUPE_FILL(initializer_range, true);
  TROUPE_FILL(hidden_act, true);
  TROUPE_FILL(attention_bias, true);
  TROUPE_FILL(mlp_bias, true);
#undef TROUPE_FILL
}

}  // namespace

Status MergeHfConfig(FileSystem& files, proto::Model& model, Provenance& provenance) {
  const bool own_file = model.has_config();
  if (own_file ? model.config().empty() : !model.has_init_from()) return {};
  const std::string path = own_file ? model.config() : JoinPath(model.init_from(), "config.json");
  const Origin origin{.source = own_file ? "model.config" : "model.init_from",
                      .place = {.where = path}};
  model.set_config("");
  provenance["model.config"].source = path;
  if (!own_file && model.init_from().ends_with(".safetensors")) {
    return MakeError(ErrorCode::kInvalidSpec, "model.init_from = {}: give the folder that holds it",
                     model.init_from());
  }
  auto text = files.ReadFile(path, kConfigBytesMax);
  if (!text.ok()) return Context(origin.source, std::move(text).error());
  auto config = ParseHfConfigJson(*text, path);
  if (!config.ok()) {
    return Context(origin.source, NamedAsWhatItIs(path, BytesOf(*text), "a config.json",
                                                  std::move(config).error()));
  }
  Fill(*config, origin, model, provenance);
  FillTokenIds(*config, origin, model, provenance);
  FillRopeScaling(*config, origin, model, provenance);
  return {};
}

}  // namespace troupe
