#include "coordinator/cli/schedule_flags.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>

#include <CLI/CLI.hpp>

namespace troupe {
namespace {

template <typename T>
struct Plain {
  using Type = T;
};
template <typename T>
struct Plain<std::optional<T>> {
  using Type = T;
};

// A titled part of --help. CLI11 says of a bad number only that it cannot be converted, and takes a
// leading 0 for octal.
class FlagGroup {
 public:
  FlagGroup(CLI::App* verb, std::string title) : verb_(verb), title_(std::move(title)) {}

  template <typename T, typename Value = typename Plain<T>::Type>
  void Add(
      const std::string& flag, T& target, const std::string& text,
      [[maybe_unused]] std::type_identity_t<Value> most = std::numeric_limits<Value>::max()) const {
    CLI::Option* option = verb_->add_option(flag, target, text)->group(title_);
    if constexpr (std::is_integral_v<Value>) {
      option->transform(CLI::Validator(
          [most](std::string& given) -> std::string {
            Value number = 0;
            const char* const end = given.data() + given.size();
            const auto [read, code] = std::from_chars(given.data(), end, number);
            if (code == std::errc::invalid_argument || read != end || given.front() == '-') {
              return fmt::format("{}: use a whole number", given);
            }
            if (code == std::errc::result_out_of_range || number > most) {
              return fmt::format("{}: use a whole number up to {}", given, most);
            }
            given = fmt::format("{}", number);
            return "";
          },
          ""));
    } else if constexpr (std::is_floating_point_v<Value>) {
      option->check(CLI::Validator(
          [](std::string& given) {
            double number = 0;
            const bool read = CLI::detail::lexical_cast(given, number);
            return read ? "" : fmt::format("{}: use a number", given);
          },
          ""));
    }
  }

 private:
  CLI::App* verb_;
  std::string title_;
};

void AddTimes(CLI::App* verb, CostOptions& costs) {
  const FlagGroup group(verb, "Times, in a unit of your own");
  group.Add("--cost-forward", costs.forward, "Forward of a rank's whole share; 1");
  group.Add("--cost-backward-input", costs.backward_input, "its input gradient; 1");
  group.Add("--cost-backward-weight", costs.backward_weight, "its weight gradient; 1");
  group.Add("--cost-unshard", costs.unshard, "a gather of all its parameters; 0");
  group.Add("--cost-reduce-grad", costs.reduce_grad, "a reduction of all its gradients; 0");
  group.Add("--cost-pair", costs.pair,
            "an overlapped Forward and Backward of a whole share; the sum of the three");
  group.Add("--comm", costs.hop, "latency of one hop between ranks; 0");
  group.Add("--costs", costs.file,
            "every stage's own times: a run's directory, or a file, either JSON\n"
            "{\"unit\": \"ms\", \"link_latency\": 0.1, \"stages\": [{\"forward\": 1,\n"
            "\"backward_input\": 1, \"backward_weight\": 1}, …]}, with \"backward\" in place\n"
            "of the halves where it is known as a whole, and \"unshard\" and \"reduce_grad\"\n"
            "where parameters are gathered and gradients reduced, or CSV under the head\n"
            "forward,backward_input,backward_weight");
}

void AddNoise(CLI::App* verb, NoiseOptions& noise, int& samples) {
  const FlagGroup group(verb, "Noise");
  group.Add("--jitter", noise.jitter, "deviation of the logarithm of every time");
  group.Add("--hiccup", noise.hiccup,
            "RATE,SIZE: that share of Forwards and input gradients takes SIZE Forwards more");
  group.Add("--straggler", noise.straggler, "RANK,FACTOR: all of a rank takes FACTOR times");
  group.Add("--seed", noise.seed, "0; schedules with the same stages meet the same noise");
  group.Add("--samples", samples, "1; figures are means over so many steps", kSamplesMax);
}

void AddExecution(CLI::App* verb, ScheduleFlags& options) {
  const FlagGroup group(verb, "How ranks follow their lists");
  ExecutionSettings& execution = options.execution;
  group.Add("--executor", execution.executor,
            "strict, guided (weight gradients fill gaps) or free-run");
  group.Add("--activation-slack", execution.activation_slack,
            "guided: microbatches above the list's own peak; 0");
  group.Add("--memory-limit", options.memory_limit,
            "microbatches' activations a rank: of free-run (1.5 P) and the lower bound");
  group.Add("--weight-parts", execution.weight_parts,
            "parts of a weight gradient; 1, in free-run 4", kWeightPartsMax);
  group.Add("--pairs", execution.pairs, "overlapped pairs: eager or fused");
  group.Add("--backward-output", execution.backward_output,
            "a whole backward sends its gradient at its end, or after its input half: input");
  group.Add("--rho", options.rho,
            "1; part of an activation that stays for the weight gradient, 0 to 1");
}

}  // namespace

void AddScheduleFlags(CLI::App* verb, ScheduleFlags& options) {
  verb->add_option("name", options.names, "NAME, FILE.csv, or: compare NAME NAME …");
  verb->add_flag("--list", options.list, "the names, with constraint, placement and formulas");
  const FlagGroup shape(verb, "Options");
  shape.Add("--stages", options.ranks, "ranks of the pipeline", kRanksMax);
  shape.Add("--microbatches", options.microbatches, "a step, of both directions together",
            kMicrobatchesMax);
  shape.Add("--chunks", options.chunks, "model chunks a rank", kStagesMax);
  shape.Add("--group", options.group,
            "interleaved: microbatches that a chunk takes before the next one's turn",
            kMicrobatchesMax);
  shape.Add("--unshard", options.unshard,
            "put UNSHARD, RESHARD and REDUCE_GRAD into the lists, as PyTorch does: parameters of\n"
            "the next so many different stages of a rank are gathered",
            kStagesMax);
  shape.Add("-o,--output", options.output, "text, json, csv or svg");
  shape.Add("--dialect", options.dialect, "of csv: troupe or pytorch");
  verb->add_flag("--with-communication", options.with_communication, "csv with sends and receives");
  AddTimes(verb, options.costs);
  AddNoise(verb, options.noise, options.samples);
  AddExecution(verb, options);
}

}  // namespace troupe
