#include "coordinator/report/plan_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <numeric>
#include <vector>

#include <nlohmann/json.hpp>

#include "actors/plan/communication_volume.h"
#include "actors/plan/context_balance.h"
#include "actors/plan/context_volume.h"
#include "actors/plan/kernel_memory.h"
#include "actors/schedule/drawing.h"
#include "coordinator/report/communication_report.h"

namespace troupe {
namespace {

std::string Row(const JobPlan& plan, size_t rank, VectorIsa isa) {
  std::string holds;
  for (const StageId stage : plan.StagesOf(Rank(static_cast<int32_t>(rank)))) {
    holds += (holds.empty() ? "" : "; ") + Describe(plan.stages[static_cast<size_t>(stage.value)]);
  }
  std::string row = fmt::format("  {:<5} {:<24}", rank, holds);
  int64_t total = 0;
  for (const int64_t bytes : plan.MemoryOf(Rank(static_cast<int32_t>(rank)), isa)) {
    row += fmt::format(" {:>11}", BytesInWords(static_cast<double>(bytes)));
    total += bytes;
  }
  return row + fmt::format(" {:>11}\n", BytesInWords(static_cast<double>(total)));
}

// "weights, gradients and optimizer state in shards of 4 ranks", "… in shards within groups of 2
// ranks, 2 copies"
std::string SharedOut(const JobPlan& plan) {
  if (plan.num_owners() == 1) return "nothing is shared out";
  std::vector<std::string> what;
  if (plan.GathersUnits()) what.emplace_back("weights");
  if (plan.batch.grad_reduce == GradReduce::kMicrobatch) what.emplace_back("gradients");
  std::string text = fmt::format("{}{}optimizer state in shards ", fmt::join(what, ", "),
                                 what.empty() ? "" : " and ");
  text += plan.num_shard_replicas() == 1
              ? fmt::format("of {} ranks", plan.num_owners())
              : fmt::format("within groups of {} ranks, {} copies", plan.num_owners(),
                            plan.num_shard_replicas());
  if (plan.zero.persist_elements > 0) {
    text += fmt::format("; parameters of fewer than {} elements whole",
                        WithThousands(plan.zero.persist_elements));
  }
  if (!plan.GathersUnits()) return text;
  return text + fmt::format("; {} unit{} gathered ahead, each kept {}", plan.zero.prefetch,
                            plan.zero.prefetch == 1 ? "" : "s",
                            plan.zero.reshard_after_forward ? "for one pass"
                                                            : "from a Forward to its backward");
}

std::string_view AlongWhat(ReductionAlgorithm reduction) {
  switch (reduction) {
    case ReductionAlgorithm::kOrdered:
      return "";
    case ReductionAlgorithm::kRing:
      return " along rings";
    case ReductionAlgorithm::kChain:
      return " along a chain of ranks and back";
  }
  return "";
}

// What ranks with the same weights share out, and how and when they add up their gradients.
std::string DataParallelLine(const JobPlan& plan) {
  if (plan.batch.weight_replicas() == 1) return "";
  const bool once = plan.batch.grad_reduce == GradReduce::kStep;
  return fmt::format("  zero      stage {}: {}; gradients added up {}{}\n", plan.zero.stage,
                     SharedOut(plan), once ? "once a step" : "every microbatch",
                     AlongWhat(plan.reduction));
}

// How ranks share sequences, and when their hops are hidden.
std::string ContextLines(const JobPlan& plan, const PlanMachine& machine) {
  const ContextParallel& context = plan.batch.context;
  if (!context.shared()) return "";
  const std::string own = WithThousands(plan.batch.local_seq_len());
  std::string text = fmt::format(
      "  context   {}, {}: {} ranks share each sequence, {} of its tokens each; balance {:.3f}{}",
      ContextMethodName(context.method), SequenceLayoutName(context.layout), context.num_ranks, own,
      BalanceOf(context.method, PairsByHop(context, plan.batch.seq_len)),
      plan.batch.packs_documents ? " of one document a sequence; of several, at most its work"
                                 : "");
  if (context.method != ContextMethod::kRing) return text + "\n";
  text += fmt::format("; a hop carries {}, of gradients {}\n",
                      BytesInWords(static_cast<double>(KvBlockBytes(plan))),
                      BytesInWords(static_cast<double>(KvGradientBlockBytes(plan))));
  if (!machine.speeds_known()) return text;
  const HidingChunk chunk = HidingChunkOf(plan, machine.flops_per_second, machine.bytes_per_second);
  return text + fmt::format(
                    "  hops      hidden from {} tokens a rank on, in a backward from {}, at "
                    "{:g} operations and {:g} B a second; a rank has {}\n",
                    WithThousands(chunk.forward), WithThousands(chunk.backward),
                    machine.flops_per_second, machine.bytes_per_second, own);
}

std::string RecomputeLine(const JobPlan& plan) {
  static constexpr std::string_view kWhat[] = {"", "queries, keys, values and attention",
                                               "all of a layer but its input"};
  if (plan.recompute == Recompute::kNone) return "";
  return fmt::format("  recompute {}: a backward computes {} again\n",
                     RecomputeName(plan.recompute), kWhat[static_cast<size_t>(plan.recompute)]);
}

// null where no sequence is shared.
nlohmann::ordered_json ContextJson(const JobPlan& plan, const PlanMachine& machine) {
  const ContextParallel& context = plan.batch.context;
  if (!context.shared()) return nullptr;
  nlohmann::ordered_json json = {
      {"ranks", context.num_ranks},
      {"method", ContextMethodName(context.method)},
      {"load_balance", SequenceLayoutName(context.layout)},
      {"chunk", plan.batch.local_seq_len()},
      {"balance", BalanceOf(context.method, PairsByHop(context, plan.batch.seq_len))}};
  if (context.method != ContextMethod::kRing || !machine.speeds_known()) return json;
  const HidingChunk chunk = HidingChunkOf(plan, machine.flops_per_second, machine.bytes_per_second);
  json["hiding_chunk"] = {{"forward", chunk.forward},
                          {"backward", chunk.backward},
                          {"flops_per_second", machine.flops_per_second},
                          {"bytes_per_second", machine.bytes_per_second}};
  return json;
}

// "float32", "bfloat16, gradients too"
std::string Numbers(const proto::JobSpec& spec, const JobPlan& plan) {
  const std::string& dtype = spec.train().dtype();
  if (!plan.widths.rounds_gradients()) return dtype;
  return dtype + (dtype == spec.train().grad_dtype()
                      ? ", gradients too"
                      : fmt::format(", gradients {}", spec.train().grad_dtype()));
}

// One row of `memory`, and those of `communication`.
void AddRows(const JobPlan& plan, int32_t rank, const MemoryPrediction& memory,
             nlohmann::ordered_json& json) {
  nlohmann::ordered_json row;
  row["rank"] = rank;
  for (int tag = 0; tag < kNumMemoryTags; ++tag) {
    row[std::string(MemoryTagName(static_cast<MemoryTag>(tag)))] = memory[static_cast<size_t>(tag)];
  }
  row["total"] = std::accumulate(memory.begin(), memory.end(), int64_t{0});
  json["memory"].push_back(std::move(row));
  for (const CommunicationVolume& volume : CommunicationOf(plan, Rank(rank))) {
    nlohmann::ordered_json sent = {{"rank", rank},
                                   {"axis", AxisName(volume.axis)},
                                   {"operation", volume.operation},
                                   {"count", volume.count},
                                   {"bytes", volume.bytes}};
    if (volume.bytes_per_hop > 0) sent["bytes_per_hop"] = volume.bytes_per_hop;
    json["communication"].push_back(std::move(sent));
  }
}

}  // namespace

std::string PlanText(const proto::JobSpec& spec, const JobPlan& plan, const PlanMachine& machine,
                     int columns) {
  const int cores = machine.cores;
  const int ranks = plan.mesh.num_ranks();
  std::string text =
      fmt::format("{}: {} parameters in {} layers, {}, seed {}\n", spec.name(),
                  WithThousands(plan.table.num_elements()), plan.config.num_hidden_layers,
                  Numbers(spec, plan), spec.train().seed());
  text += fmt::format("  layout    {}: {} worker{}, {} math thread{} each\n", plan.mesh.Name(),
                      ranks, ranks == 1 ? "" : "s", spec.resources().threads_per_worker(),
                      spec.resources().threads_per_worker() == 1 ? "" : "s");
  text += fmt::format("  batch     {}\n", Describe(plan.batch));
  text += DataParallelLine(plan) + ContextLines(plan, machine) + RecomputeLine(plan);
  const int deep = plan.train.num_ranks;
  const int microbatches = plan.batch.num_microbatches;
  text += fmt::format("  schedule  {}: {} rank{} x {} microbatch{}, makespan bubble {:.1f} %\n",
                      plan.train.name, deep, deep == 1 ? "" : "s", microbatches,
                      microbatches == 1 ? "" : "es", 100 * plan.simulation.idle.bubble_makespan);
  if (!plan.reason.empty()) {
    text += "            the choice of `auto` by operations; the ranks' own times will decide\n";
  }
  if (cores > 0 && ranks > cores) {
    text += fmt::format("  cores     {} workers share {} core{}: a full run, only slower\n", ranks,
                        cores, cores == 1 ? "" : "s");
  }
  text += fmt::format(
      "  memory    on CPUs with {}, as here{}\n", VectorIsaName(machine.isa),
      WidensBFloat16(plan.widths, machine.isa) ? ": bfloat16 is multiplied in float32" : "");
  text += fmt::format("\n  {:<5} {:<24}", "rank", "holds");
  for (int tag = 0; tag < kNumMemoryTags; ++tag) {
    text += fmt::format(" {:>11}", MemoryTagName(static_cast<MemoryTag>(tag)));
  }
  text += fmt::format(" {:>11}\n", "predicted");
  for (int rank = 0; rank < ranks; ++rank) {
    text += Row(plan, static_cast<size_t>(rank), machine.isa);
  }
  if (const std::string table = PlannedCommunicationText(plan); !table.empty()) {
    text += "\n  what a rank sends in a step, and in how many messages or operations\n" + table;
  }
  if (deep > 1) {
    text += "\n" + DrawText(plan.simulation.timeline, columns);
  }
  return text;
}

std::string PlanJson(const proto::JobSpec& spec, const JobPlan& plan, const PlanMachine& machine,
                     int indent, const MemoryFit* fit) {
  nlohmann::ordered_json json;
  json["name"] = spec.name();
  json["parameters"] = plan.table.num_elements();
  json["layout"] = plan.mesh.Name();
  json["workers"] = plan.mesh.num_ranks();
  json["schedule"] = plan.train.name;
  json["microbatches"] = plan.batch.num_microbatches;
  json["tokens_per_step"] = plan.batch.tokens_per_step();
  json["zero_stage"] = plan.zero.stage;
  json["zero_group"] = plan.num_owners();
  json["persist_elements"] = plan.zero.persist_elements;
  json["grad_reduce"] = GradReduceName(plan.batch.grad_reduce);
  json["reduction"] =
      plan.reduction == ReductionAlgorithm::kRing ? kRingReduction : kOrderedReduction;
  json["algorithm"] = plan.reduction == ReductionAlgorithm::kChain ? kReduceBroadcast : kAllReduce;
  json["grad_dtype"] = spec.train().grad_dtype();
  json["bubble_makespan"] = plan.simulation.idle.bubble_makespan;
  json["context"] = ContextJson(plan, machine);
  json["recompute"] = RecomputeName(plan.recompute);
  json["vector_isa"] = VectorIsaName(machine.isa);
  for (const char* rows : {"ranks", "memory", "communication"}) {
    json[rows] = nlohmann::ordered_json::array();
  }
  for (int32_t rank = 0; rank < plan.mesh.num_ranks(); ++rank) {
    const MemoryPrediction memory = plan.MemoryOf(Rank(rank), machine.isa);
    nlohmann::ordered_json row;
    row["rank"] = rank;
    for (const StageId stage : plan.StagesOf(Rank(rank))) {
      const StageLayout& layout = plan.stages[static_cast<size_t>(stage.value)];
      row["stages"].push_back(
          {{"stage", stage.value},
           {"first_layer", layout.first_layer},
           {"num_layers", layout.num_layers},
           {"embedding", layout.has_embedding()},
           {"head", layout.has_head()},
           {"peak_microbatches", plan.peak_microbatches[static_cast<size_t>(stage.value)]}});
    }
    for (int tag = 0; tag < kNumMemoryTags; ++tag) {
      row["memory"][std::string(MemoryTagName(static_cast<MemoryTag>(tag)))] =
          memory[static_cast<size_t>(tag)];
    }
    json["ranks"].push_back(std::move(row));
    AddRows(plan, rank, memory, json);
  }
  if (fit != nullptr) {
    json["host"] = {{"needed_bytes", fit->needed_bytes()},
                    {"memory_bytes", fit->memory.total_bytes},
                    {"available_bytes", fit->memory.available_bytes},
                    {"bound", fit->memory.bound},
                    {"fits", fit->fits()},
                    {"what_would", fit->remedies}};
  }
  return json.dump(indent);
}

}  // namespace troupe
