#include "coordinator/report/memory_fit.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "actors/plan/job_shape.h"
#include "actors/plan/recompute.h"
#include "runtime/base/bytes_in_words.h"

namespace troupe {
namespace {

std::string Words(int64_t num_bytes) { return BytesInWords(static_cast<double>(num_bytes)); }

std::vector<int64_t> RankBytes(const JobPlan& plan, VectorIsa isa) {
  std::vector<int64_t> ranks;
  for (int32_t rank = 0; rank < plan.mesh.num_ranks(); ++rank) {
    const MemoryPrediction bytes = plan.MemoryOf(Rank(rank), isa);
    ranks.push_back(std::accumulate(bytes.begin(), bytes.end(), kRankProcessBytes));
  }
  return ranks;
}

int64_t Sum(const std::vector<int64_t>& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
}

MemoryFit Weigh(const proto::JobSpec& spec, const JobPlan& plan, VectorIsa isa,
                const HostMemory& memory) {
  const std::vector<int64_t> ranks = RankBytes(plan, isa);
  MemoryFit fit{.memory = memory,
                .ranks_bytes = Sum(ranks),
                .largest_bytes = *std::ranges::max_element(ranks)};
  const bool compares = Trains(spec) && spec.eval().has_check_against();
  if (!compares || plan.mesh.num_ranks() == 1) return fit;
  const auto single = MakeJobPlan(SingleWorkerSpec(spec));
  if (!single.ok()) return fit;  // told when its time comes
  fit.reference_bytes = Sum(RankBytes(*single, isa));
  fit.largest_bytes = std::max(fit.largest_bytes, fit.reference_bytes);
  return fit;
}

// Hosts of `most` bytes that hold the ranks, in order.
int HostsFor(const std::vector<int64_t>& ranks, int64_t most) {
  int hosts = 1;
  int64_t used = 0;
  for (const int64_t bytes : ranks) {
    if (used + bytes > most) {
      ++hosts;
      used = 0;
    }
    used += bytes;
  }
  return hosts;
}

class Remedies {
 public:
  Remedies(const proto::JobSpec& spec, VectorIsa isa, const HostMemory& memory)
      : spec_(spec), isa_(isa), memory_(memory) {}

  std::vector<std::string> Find() {
    FirstThatFits("batch.micro_batch_size", Halves(spec_.batch().micro_batch_size()),
                  SetMicroBatch);
    FirstThatFits("batch.seq_len", UsefulLengths(), SetLength);
    FirstThatFits("train.recompute", MoreRecomputation(), SetRecompute);
    FirstThatFits("parallelism.zero_stage", HigherZeroStages(), SetZeroStage);
    FirstThatFits("parallelism.pp", Halves(spec_.parallelism().pp()), SetDepth);
    FirstThatFits("parallelism.cp", MoreContextRanks(), SetContextRanks);
    OnMoreHosts();
    if (!found_.empty()) return found_;
    // No one key is enough: both that shrink the activations.
    const auto shrink = [](proto::JobSpec& s, int length) {
      SetMicroBatch(s, 1);
      SetLength(s, length);
    };
    FirstThatFits("batch.micro_batch_size=1 batch.seq_len", UsefulLengths(), shrink);
    if (!found_.empty()) return found_;
    proto::JobSpec least = spec_;
    const std::vector<int> lengths = UsefulLengths();
    const int shortest = lengths.empty() ? least.batch().seq_len() : lengths.back();
    shrink(least, shortest);
    const auto fit = Try(least);
    found_.push_back(fmt::format(
        "a smaller model, or hosts with more memory{}",
        fit ? fmt::format(": with batch.micro_batch_size=1 batch.seq_len={} it is still "
                          "{}",
                          shortest, Words(fit->needed_bytes()))
            : ""));
    return found_;
  }

 private:
  static std::vector<int> Halves(int value) {
    std::vector<int> halves;
    while ((value /= 2) >= 1) halves.push_back(value);
    return halves;
  }
  // A context much shorter than what was asked for is another model.
  std::vector<int> UsefulLengths() const {
    constexpr int kLeastShare = 8;
    std::vector<int> lengths = Halves(spec_.batch().seq_len());
    std::erase_if(lengths, [this](int v) { return v * kLeastShare < spec_.batch().seq_len(); });
    return lengths;
  }
  std::vector<int> HigherZeroStages() const {
    std::vector<int> stages;
    if (WeightReplicasOf(spec_.parallelism()) <= 1) return stages;
    for (int stage = spec_.parallelism().zero_stage() + 1; stage <= 3; ++stage) {
      stages.push_back(stage);
    }
    return stages;
  }
  std::vector<std::string_view> MoreRecomputation() const {
    std::vector<std::string_view> more;
    const auto now = RecomputeOf(spec_.train());
    if (!now.ok() || !Trains(spec_)) return more;
    for (const Recompute recompute : {Recompute::kAttention, Recompute::kFull}) {
      if (recompute > *now) more.push_back(RecomputeName(recompute));
    }
    return more;
  }
  std::vector<int> MoreContextRanks() const {
    constexpr int kContextRanksMax = 64;
    std::vector<int> more;
    for (int ranks = 2 * spec_.parallelism().cp(); ranks <= kContextRanksMax; ranks *= 2) {
      if (ranks > 0) more.push_back(ranks);
    }
    return more;
  }
  // What follows from other keys follows them, as it does where a user sets these.
  static void SetMicroBatch(proto::JobSpec& spec, int sequences) {
    if (ReducesEachMicrobatch(spec.parallelism())) spec.mutable_batch()->clear_gradient_groups();
    spec.mutable_batch()->set_micro_batch_size(sequences);
  }
  static void SetZeroStage(proto::JobSpec& spec, int stage) {
    proto::Parallelism& p = *spec.mutable_parallelism();
    proto::Parallelism of_stage;
    of_stage.set_zero_stage(p.zero_stage());
    if (GradReduceName(*GradReduceOf(of_stage)) == p.grad_reduce()) {
      p.clear_grad_reduce();
      spec.mutable_batch()->clear_gradient_groups();
    }
    p.set_zero_stage(stage);
  }
  static void SetLength(proto::JobSpec& spec, int seq_len) {
    spec.mutable_batch()->set_seq_len(seq_len);
  }
  static void SetRecompute(proto::JobSpec& spec, std::string_view recompute) {
    spec.mutable_train()->set_recompute(std::string(recompute));
  }
  static void SetContextRanks(proto::JobSpec& spec, int cp) {
    proto::Parallelism& p = *spec.mutable_parallelism();
    if (p.zero_group() == p.dp() * p.cp()) p.clear_zero_group();
    p.set_cp(cp);
    spec.mutable_resources()->set_workers(p.dp() * cp * p.tp() * p.pp());
  }
  static void SetDepth(proto::JobSpec& spec, int pp) {
    proto::Parallelism& p = *spec.mutable_parallelism();
    p.set_pp(pp);
    spec.mutable_resources()->set_workers(p.dp() * p.cp() * p.tp() * pp);
    p.clear_stage_layers();
  }

  std::optional<MemoryFit> Try(const proto::JobSpec& spec) const {
    const auto plan = MakeJobPlan(spec);
    if (!plan.ok()) return std::nullopt;
    return Weigh(spec, *plan, isa_, memory_);
  }
  template <typename Value, typename Set>
  void FirstThatFits(std::string_view key, const std::vector<Value>& values, const Set& set) {
    for (const Value& value : values) {
      proto::JobSpec other = spec_;
      set(other, value);
      const auto fit = Try(other);
      if (!fit || !fit->fits()) continue;
      found_.push_back(fmt::format("{}={} ({})", key, value, Words(fit->needed_bytes())));
      return;
    }
  }
  // The ranks of the plan, of a deeper pipeline, or with less of each sequence, spread over hosts
  // like this one.
  void OnMoreHosts() {
    const int layers = spec_.model().num_hidden_layers();
    if (SpreadsOverHosts(spec_, "")) return;
    for (int pp = 2 * spec_.parallelism().pp(); pp > 1 && pp <= layers; pp *= 2) {
      proto::JobSpec deeper = spec_;
      SetDepth(deeper, pp);
      if (SpreadsOverHosts(deeper, fmt::format(" with parallelism.pp={}", pp))) return;
    }
    for (const int cp : MoreContextRanks()) {
      proto::JobSpec wider = spec_;
      SetContextRanks(wider, cp);
      if (SpreadsOverHosts(wider, fmt::format(" with parallelism.cp={}", cp))) return;
    }
  }
  // Whether they do on several.
  bool SpreadsOverHosts(const proto::JobSpec& spec, const std::string& changed) {
    const int64_t most = std::min(memory_.total_bytes, memory_.process_bytes);
    const auto plan = MakeJobPlan(spec);
    if (!plan.ok()) return false;
    const MemoryFit fit = Weigh(spec, *plan, isa_, memory_);
    if (fit.largest_bytes > most) return false;
    const int hosts = HostsFor(RankBytes(*plan, isa_), memory_.total_bytes);
    if (hosts < 2) return false;
    found_.push_back(fmt::format("{} hosts like this{} (each rank at most {})", hosts, changed,
                                 Words(fit.largest_bytes)));
    return true;
  }

  const proto::JobSpec& spec_;
  const VectorIsa isa_;
  const HostMemory& memory_;
  std::vector<std::string> found_{};
};

}  // namespace

bool MemoryFit::fits() const {
  return needed_bytes() <= memory.total_bytes && largest_bytes <= memory.process_bytes;
}

bool MemoryFit::fits_now() const { return fits() && needed_bytes() <= memory.available_bytes; }

MemoryFit FitOnHost(const proto::JobSpec& spec, const JobPlan& plan, VectorIsa isa,
                    const HostMemory& memory) {
  MemoryFit fit = Weigh(spec, plan, isa, memory);
  if (!fit.fits()) fit.remedies = Remedies(spec, isa, memory).Find();
  return fit;
}

std::string FitText(const MemoryFit& fit, int num_ranks) {
  std::string text = fmt::format("  host      {} rank{}: {} predicted", num_ranks,
                                 num_ranks == 1 ? "" : "s", Words(fit.ranks_bytes));
  if (fit.reference_bytes > 0) {
    text += fmt::format(", then {} for one worker", Words(fit.reference_bytes));
  }
  text += fmt::format("; {} here, {} of them available", Words(fit.memory.total_bytes),
                      Words(fit.memory.available_bytes));
  if (fit.memory.bound != "host") text += fmt::format(" (by {})", fit.memory.bound);
  return text + "\n";
}

Status CheckFit(const MemoryFit& fit) {
  if (fit.fits()) return {};
  std::string limit;
  if (fit.needed_bytes() > fit.memory.total_bytes) {
    limit = fmt::format("{} are needed, {} are here ({})", Words(fit.needed_bytes()),
                        Words(fit.memory.total_bytes),
                        fit.memory.bound == "host" ? "the host's memory" : fit.memory.bound);
  } else {
    limit = fmt::format("a rank needs {}, ulimit leaves a process {}", Words(fit.largest_bytes),
                        Words(fit.memory.process_bytes));
  }
  return MakeError(ErrorCode::kInfeasible, "the job does not fit this host: {}: what would: {}",
                   limit, fmt::join(fit.remedies, "; "));
}

}  // namespace troupe
