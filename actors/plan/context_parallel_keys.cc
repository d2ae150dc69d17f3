#include "actors/plan/context_parallel_keys.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace troupe {
namespace {

constexpr size_t kShownBytes = 60;
constexpr std::array kMethods = {ContextMethod::kRing, ContextMethod::kAllGather,
                                 ContextMethod::kUlysses};
constexpr std::array kLayouts = {SequenceLayout::kZigzag, SequenceLayout::kStriped,
                                 SequenceLayout::kContiguous};

template <typename... Args>
Error Refuse(fmt::format_string<Args...> format, Args&&... args) {
  return MakeError(ErrorCode::kInvalidSpec, format, std::forward<Args>(args)...);
}

std::string WithUnderscores(std::string word) {
  std::ranges::replace(word, '-', '_');
  return word;
}

// "1, 2 or 4"
std::string OneOf(const std::vector<int64_t>& values) {
  std::string text;
  for (size_t i = 0; i < values.size(); ++i) {
    text += i == 0 ? "" : i + 1 == values.size() ? " or " : ", ";
    text += fmt::format("{}", values[i]);
  }
  return text;
}

// Into how many equal runs the layout cuts a sequence.
int64_t RunsOf(SequenceLayout layout, int64_t num_ranks) {
  return layout == SequenceLayout::kZigzag && num_ranks > 1 ? 2 * num_ranks : num_ranks;
}

bool Divides(SequenceLayout layout, int64_t num_ranks, int64_t seq_len) {
  return seq_len % RunsOf(layout, num_ranks) == 0;
}

bool SuitsHeads(int64_t num_ranks, const ModelConfig& config) {
  const int64_t keys = config.num_key_value_heads;
  return config.num_attention_heads % num_ranks == 0 &&
         (keys % num_ranks == 0 || num_ranks % keys == 0);
}

// A job's sizes; what is not known is 0, and suits.
struct Sizes {
  const ModelConfig& config;
  int64_t seq_len = 0;

  bool heads_known() const {
    return config.num_attention_heads > 0 && config.num_key_value_heads > 0;
  }
};

bool HeadsSuit(ContextMethod method, int64_t num_ranks, const Sizes& sizes) {
  return method != ContextMethod::kUlysses || !sizes.heads_known() ||
         SuitsHeads(num_ranks, sizes.config);
}

// The one word on whether so many ranks can share the job's sequences.
bool Suits(const ContextParallel& context, int64_t num_ranks, const Sizes& sizes) {
  return (sizes.seq_len <= 0 || Divides(context.layout, num_ranks, sizes.seq_len)) &&
         HeadsSuit(context.method, num_ranks, sizes);
}

// "1 or 4": numbers of ranks that suit, the nearest ones below and above those of `context`.
std::string NearestRanks(const ContextParallel& context, const Sizes& sizes) {
  const int64_t ranks = context.num_ranks;
  const bool of_heads = context.method == ContextMethod::kUlysses && sizes.heads_known();
  int64_t most = sizes.seq_len > 0 ? sizes.seq_len : sizes.config.num_attention_heads;
  if (of_heads) most = std::min(most, sizes.config.num_attention_heads);
  std::vector<int64_t> nearest;
  int64_t below = std::min(ranks - 1, most);
  while (below > 1 && !Suits(context, below, sizes)) --below;
  nearest.push_back(std::max<int64_t>(below, 1));  // one rank has whatever there is
  int64_t above = ranks + 1;
  while (above <= most && !Suits(context, above, sizes)) ++above;
  if (above <= most) nearest.push_back(above);
  return OneOf(nearest);
}

void CheckLength(const ContextParallel& context, const Sizes& sizes, std::vector<Error>& errors) {
  const int64_t ranks = context.num_ranks;
  const int64_t seq_len = sizes.seq_len;
  if (Divides(context.layout, ranks, seq_len)) return;
  const int64_t runs = RunsOf(context.layout, ranks);
  std::string remedies;
  if (HeadsSuit(context.method, ranks, sizes)) {  // else no length would do
    const int64_t below = seq_len / runs * runs;
    std::vector<int64_t> lengths;
    if (below > 0) lengths.push_back(below);
    lengths.push_back(below + runs);
    remedies = fmt::format("batch.seq_len = {}, or ", OneOf(lengths));
  }
  remedies += fmt::format("parallelism.cp = {}", NearestRanks(context, sizes));
  if (context.method != ContextMethod::kUlysses) {
    std::string layouts;
    for (const SequenceLayout layout : kLayouts) {
      if (!Divides(layout, ranks, seq_len)) continue;
      layouts +=
          fmt::format("{}{}", layouts.empty() ? ", or parallelism.cp_load_balance = " : " or ",
                      SequenceLayoutName(layout));
    }
    remedies += layouts;
  }
  errors.push_back(Refuse(
      "batch.seq_len = {} is not a multiple of {}{}: the ranks of parallelism.cp = {} have {} of "
      "a sequence each ({}); use {}",
      seq_len, runs == ranks ? "" : "2 x ", ranks, ranks,
      runs == ranks ? fmt::format("one of {} equal parts", runs)
                    : fmt::format("two of {} equal parts", runs),
      SequenceLayoutName(context.layout), remedies));
}

// ", or cp_method: ring" with the layout that as many ranks can have; empty where there is none.
std::string RingInstead(int64_t num_ranks, int64_t seq_len) {
  if (seq_len <= 0 || Divides(SequenceLayout::kZigzag, num_ranks, seq_len)) {
    return ", or cp_method: ring";
  }
  return Divides(SequenceLayout::kStriped, num_ranks, seq_len)
             ? ", or cp_method: ring with cp_load_balance: striped"
             : "";
}

void CheckHeads(const ContextParallel& context, const Sizes& sizes, std::vector<Error>& errors) {
  const int64_t ranks = context.num_ranks;
  if (HeadsSuit(context.method, ranks, sizes)) return;
  const ModelConfig& config = sizes.config;
  const std::string remedy = fmt::format("use parallelism.cp = {}{}", NearestRanks(context, sizes),
                                         RingInstead(ranks, sizes.seq_len));
  if (config.num_attention_heads % ranks != 0) {
    errors.push_back(
        Refuse("parallelism.cp = {} does not divide model.num_attention_heads = {}: with "
               "parallelism.cp_method = ulysses each rank has whole heads; {}",
               ranks, config.num_attention_heads, remedy));
    return;
  }
  errors.push_back(
      Refuse("parallelism.cp = {} neither divides model.num_key_value_heads = {} nor is a multiple "
             "of it: with parallelism.cp_method = ulysses ranks have as many heads of keys and "
             "values, or as many ranks have the same one; {}",
             ranks, config.num_key_value_heads, remedy));
}

}  // namespace

ContextParallel ReadContext(const proto::JobSpec& spec, int num_ranks, std::vector<Error>& errors) {
  const proto::Parallelism& p = spec.parallelism();
  ContextParallel context{.num_ranks = std::max(1, num_ranks)};
  const auto method =
      std::ranges::find(kMethods, WithUnderscores(p.cp_method()), ContextMethodName);
  if (method != kMethods.end()) {
    context.method = *method;
  } else if (p.has_cp_method()) {
    errors.push_back(Refuse(
        "parallelism.cp_method = {}: use ring (blocks of keys and values go from rank to "
        "rank), all_gather (each rank has them all at once) or ulysses (ranks exchange heads "
        "for positions)",
        p.cp_method().substr(0, kShownBytes)));
  }
  const bool whole_sequences = context.method == ContextMethod::kUlysses;
  if (whole_sequences) context.layout = SequenceLayout::kContiguous;
  if (!p.has_cp_load_balance()) return context;
  const auto layout = std::ranges::find(kLayouts, p.cp_load_balance(), SequenceLayoutName);
  if (layout == kLayouts.end()) {
    errors.push_back(
        Refuse("parallelism.cp_load_balance = {}: use zigzag (an early run of positions and a late "
               "one), striped (every so-many-th position) or contiguous",
               p.cp_load_balance().substr(0, kShownBytes)));
  } else if (whole_sequences && *layout != SequenceLayout::kContiguous) {
    errors.push_back(
        Refuse("parallelism.cp_load_balance = {}: with parallelism.cp_method = ulysses each rank "
               "attends to whole sequences, so all have the same work; use contiguous, or leave it "
               "out",
               p.cp_load_balance()));
  } else {
    context.layout = *layout;
  }
  return context;
}

void CheckContext(const ContextParallel& context, const ModelConfig& config, int64_t seq_len,
                  std::vector<Error>& errors) {
  if (!context.shared()) return;
  const Sizes sizes{config, seq_len};
  if (seq_len > 0) CheckLength(context, sizes, errors);
  CheckHeads(context, sizes, errors);
}

bool ShareSequencesAlike(const proto::JobSpec& one, const proto::JobSpec& other) {
  std::vector<Error> told;  // by whoever read the jobs
  const auto context_of = [&told](const proto::JobSpec& spec) {
    const ContextParallel context = ReadContext(spec, spec.parallelism().cp(), told);
    return context.shared() ? context : ContextParallel{};
  };
  return context_of(one) == context_of(other);
}

}  // namespace troupe
