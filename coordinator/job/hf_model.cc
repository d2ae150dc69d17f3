#include "coordinator/job/hf_model.h"

#include "runtime/format/hf_config.h"

namespace troupe {

Status MergeHfConfig(FileSystem& files, proto::JobSpec& spec, Provenance& provenance) {
  proto::Model* model = spec.mutable_model();
  std::string path = model->config();
  if (path.empty() && !model->init_from().empty()) {
    path = JoinPath(model->init_from(), "config.json");
  }
  if (path.empty()) return {};
  auto read = ReadHfConfig(files, path);
  if (!read.ok()) {
    return Context(model->config().empty() ? "model.init_from" : "model.config",
                   std::move(read).error());
  }
  const HfConfig& config = *read;
#define TROUPE_MERGE(field)                      \
  do {                                           \
    if (!model->has_##field()) {                 \
      model->set_##field(config.field);          \
      provenance.emplace("model." #field, path); \
    }                                            \
  } while (false)
  TROUPE_MERGE(hidden_size);
  TROUPE_MERGE(intermediate_size);
  TROUPE_MERGE(num_hidden_layers);
  TROUPE_MERGE(num_attention_heads);
  TROUPE_MERGE(num_key_value_heads);
  TROUPE_MERGE(head_dim);
  TROUPE_MERGE(vocab_size);
  TROUPE_MERGE(max_position_embeddings);
  TROUPE_MERGE(rms_norm_eps);
  TROUPE_MERGE(rope_theta);
  TROUPE_MERGE(tie_word_embeddings);
  TROUPE_MERGE(initializer_range);
  TROUPE_MERGE(hidden_act);
  TROUPE_MERGE(attention_bias);
  TROUPE_MERGE(mlp_bias);
#undef TROUPE_MERGE
  if (config.rope_scaling && !model->has_rope_scaling()) {
    proto::RopeScaling* scaling = model->mutable_rope_scaling();
    scaling->set_rope_type("llama3");
    scaling->set_factor(config.rope_scaling->factor);
    scaling->set_low_freq_factor(config.rope_scaling->low_freq_factor);
    scaling->set_high_freq_factor(config.rope_scaling->high_freq_factor);
    scaling->set_original_max_position_embeddings(
        config.rope_scaling->original_max_position_embeddings);
    provenance.emplace("model.rope_scaling", path);
  }
  return {};
}

}  // namespace troupe
