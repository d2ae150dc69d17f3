#include "coordinator/job/init_weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <optional>
#include <span>
#include <string_view>

#include "coordinator/job/yaml_walker.h"
#include "runtime/format/extra_tensors.h"
#include "runtime/format/safetensors.h"
#include "runtime/format/widen.h"

namespace troupe {
namespace {

constexpr size_t kNamesMax = 6;  // in one sentence

// What wrappers leave in names, between dots.
constexpr std::string_view kWrappers[] = {
    "_orig_mod",  "module",         "_fsdp_wrapped_module", "_checkpoint_wrapped_module",
    "base_model", "_forward_module"};

// "a, b, c and 4 more"
std::string Listed(std::span<const std::string> names) {
  std::string list;
  for (size_t i = 0; i < std::min(names.size(), kNamesMax); ++i) {
    list += (i == 0 ? "" : ", ") + Shown(names[i], 120);
  }
  if (names.size() > kNamesMax) list += fmt::format(" and {} more", names.size() - kNamesMax);
  return list;
}

std::string Unwrapped(std::string_view name) {
  std::string plain;
  while (!name.empty()) {
    const size_t end = std::min(name.find('.'), name.size());
    const std::string_view part = name.substr(0, end);
    name.remove_prefix(std::min(end + 1, name.size()));
    if (std::ranges::find(kWrappers, part) != std::end(kWrappers)) continue;
    plain += (plain.empty() ? "" : ".") + std::string(part);
  }
  return plain;
}

// The layer of "model.layers.3.…"; -1 for others.
int LayerOf(std::string_view name) {
  constexpr std::string_view kLayers = "model.layers.";
  int layer = -1;
  if (name.starts_with(kLayers)) {
    (void)std::from_chars(name.data() + kLayers.size(), name.data() + name.size(), layer);
  }
  return layer;
}

class WeightsCheck {
 public:
  WeightsCheck(const SafetensorsFolder& folder, const ParameterTable& table)
      : folder_(folder), table_(table), names_(folder.Names()) {}

  InitWeightsFindings Run(bool ignore_extra) {
    Parameters();
    const std::vector<std::string> extra = Extra();
    // Under other names all tensors would be extra ones too.
    if (!extra.empty() && (missing_.empty() || !renamed_)) {
      const std::string sentence =
          fmt::format("model.init_from = {}: the model has no place for {} of its tensors: {}",
                      folder_.path(), extra.size(), Listed(extra));
      if (ignore_extra) {
        findings_.warnings.push_back(
            fmt::format("{}: {} left out", sentence, extra.size() == 1 ? "it is" : "they are"));
      } else {
        Refuse("{}{}", sentence.substr(sentence.find(": ") + 2), RemedyFor(extra));
      }
    }
    return std::move(findings_);
  }

 private:
  template <typename... Args>
  void Refuse(fmt::format_string<Args...> format, Args&&... args) {
    findings_.errors.push_back(MakeError(ErrorCode::kInvalidSpec, "model.init_from = {}: {}",
                                         folder_.path(),
                                         fmt::format(format, std::forward<Args>(args)...)));
  }

  void Parameters() {
    std::vector<Error> wrong;
    for (const ParameterSpec& parameter : table_.parameters()) {
      const std::vector<int64_t> shape = parameter.shape();
      if (!folder_.Find(parameter.name)) {
        missing_.push_back(parameter.name);
        continue;
      }
      const auto stored = folder_.Require(parameter.name, shape);
      if (!stored.ok()) {
        wrong.push_back(stored.error());
      } else if (Status widens = CheckWidens(stored->entry->spec, folder_.path()); !widens.ok()) {
        wrong.push_back(std::move(widens).error());
      }
    }
    if (!missing_.empty()) Missing();
    if (wrong.empty()) return;
    std::string sentence = wrong.front().message;
    if (wrong.size() > 1) {
      sentence += fmt::format("; {} more tensor{} not fit either", wrong.size() - 1,
                              wrong.size() == 2 ? " does" : "s do");
    }
    findings_.errors.push_back({wrong.front().code, "model.init_from = " + sentence});
  }

  void Missing() {
    const std::string& first = missing_.front();
    const auto say = [&](std::string_view why) {
      if (missing_.size() == 1) return Refuse("tensor {} is missing: {}", first, why);
      Refuse("{} tensors are missing, {} first: {}", missing_.size(), first, why);
    };
    if (names_.empty()) return say("the file has none");
    if (first == kHeadName && !table_.tied()) {
      return say("where the embedding is the head too, set model.tie_word_embeddings: true");
    }
    const auto wrapped = std::ranges::find(names_, first, Unwrapped);
    if (wrapped != names_.end()) {
      renamed_ = true;
      return say(
          fmt::format("the file calls it {}, as a wrapper around the model does "
                      "(torch.compile, DistributedDataParallel, …): save the model inside",
                      Shown(*wrapped, 120)));
    }
    for (const std::string& name : names_) {
      const bool bare = "model." + name == first;
      if (!bare && !name.ends_with("." + first)) continue;
      renamed_ = true;
      return say(fmt::format("the file calls it {}: rename its tensors{}", Shown(name, 120),
                             bare ? ", or save the model with its head" : ""));
    }
    // Of those that are no other parameter's.
    std::vector<std::string> free;
    std::ranges::copy_if(names_, std::back_inserter(free),
                         [this](const std::string& name) { return table_.Find(name) < 0; });
    const std::string nearest = Nearest(first, free);
    say(nearest.empty() ? fmt::format("the file has {}", Listed(free.empty() ? names_ : free))
                        : fmt::format("the nearest that the file has is {}", Shown(nearest, 120)));
  }

  std::vector<std::string> Extra() {
    ExtraTensors extra = FindExtraTensors(
        folder_, [this](std::string_view name) { return table_.Find(name) >= 0; },
        table_.tied() ? std::string_view(table_[table_.embedding_index()].name)
                      : std::string_view());
    if (!extra.frequencies.empty()) {
      findings_.warnings.push_back(fmt::format(
          "model.init_from = {}: {} {} from model.rope_theta: {} left out", folder_.path(),
          Listed(extra.frequencies), extra.frequencies.size() == 1 ? "follows" : "follow",
          extra.frequencies.size() == 1 ? "it is" : "they are"));
    }
    return std::move(extra.names);
  }

  std::string RemedyFor(const std::vector<std::string>& extra) const {
    constexpr std::string_view kIgnore = "model.ignore_extra_tensors: true leaves them out";
    int layers = 0;  // of the model
    for (const ParameterSpec& p : table_.parameters()) layers = std::max(layers, p.layer + 1);
    int deepest = -1;
    for (const std::string& name : extra) deepest = std::max(deepest, LayerOf(name));
    if (deepest >= layers) {
      return fmt::format(": model.num_hidden_layers = {}, and the file has {}; {}", layers,
                         deepest + 1, kIgnore);
    }
    if (std::ranges::any_of(extra, [](const auto& name) { return name.ends_with(".bias"); })) {
      return fmt::format(": no bias is computed; {}", kIgnore);
    }
    if (std::ranges::find(extra, kHeadName) != extra.end()) {
      return fmt::format(
          ": it differs from the embedding, and model.tie_word_embeddings = true makes that the "
          "head: set false, or {}",
          kIgnore);
    }
    return fmt::format(": {}", kIgnore);
  }

  const SafetensorsFolder& folder_;
  const ParameterTable& table_;
  const std::vector<std::string> names_;
  std::vector<std::string> missing_{};
  bool renamed_ = false;  // the tensors are there under other names
  InitWeightsFindings findings_{};
};

}  // namespace

InitWeightsFindings CheckInitWeights(FileSystem& files, const std::string& folder,
                                     const ParameterTable* table, bool ignore_extra) {
  const auto opened = SafetensorsFolder::Open(files, folder);
  if (!opened.ok()) {
    return {.errors = {Context("model.init_from", opened.error())}};
  }
  if (table == nullptr) return {};
  return WeightsCheck(*opened, *table).Run(ignore_extra);
}

}  // namespace troupe
