#include "actors/rank_reports.h"

#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <numeric>

#include "actors/plan/context_volume.h"
#include "actors/plan/job_orders.h"
#include "actors/stage_set.h"
#include "runtime/base/host_memory.h"
#include "runtime/base/vector_isa.h"
#include "runtime/trace/span.h"

namespace troupe {
namespace {

int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total = 0;
  int64_t resident = 0;
  file >> total >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

std::string CpuModel() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name")) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown CPU";
}

}  // namespace

proto::MemoryReport ReportMemory(const MemoryLedger& ledger, const MemoryPrediction& predicted,
                                 int64_t step) {
  const MemoryLedger::Usage usage = ledger.Snapshot();
  proto::MemoryReport report;
  report.set_step(step);
  int64_t tagged = 0;
  for (size_t i = 0; i < kNumMemoryTags; ++i) {
    auto* tag = report.add_tags();
    tag->set_tag(std::string(MemoryTagName(static_cast<MemoryTag>(i))));
    tag->set_predicted_bytes(predicted[i]);
    tag->set_current_bytes(usage.current_bytes[i]);
    tag->set_peak_bytes(usage.peak_bytes[i]);
    tagged += usage.current_bytes[i];
  }
  report.set_resident_bytes(ResidentBytes());
  report.set_other_bytes(report.resident_bytes() - tagged);
  return report;
}

proto::StepMemory ReportStepMemory(int64_t step, const MemoryCourse& course,
                                   const MemoryPrediction& predicted) {
  proto::StepMemory report;
  report.set_step(step);
  for (size_t i = 0; i < kNumMemoryTags; ++i) {
    report.add_tags(std::string(MemoryTagName(static_cast<MemoryTag>(i))));
  }
  report.set_predicted_bytes(std::accumulate(predicted.begin(), predicted.end(), int64_t{0}));
  int64_t start_ns = 0;
  for (const MemorySample& sample : course.Samples()) {
    if (report.samples_size() == 0) start_ns = sample.time_ns;
    auto* told = report.add_samples();
    told->set_time_ns(sample.time_ns - start_ns);
    told->set_allocated_bytes(sample.allocated_bytes);
    told->mutable_used_bytes()->Assign(sample.used_bytes.begin(), sample.used_bytes.end());
  }
  return report;
}

proto::CommunicationReport ReportCommunication(const std::vector<CommunicationVolume>& predicted,
                                               const std::vector<CommunicationVolume>& sent,
                                               int64_t steps) {
  proto::CommunicationReport report;
  report.set_steps(steps);
  const auto row_of = [&report](const CommunicationVolume& volume) {
    auto& rows = *report.mutable_rows();
    const auto row = std::find_if(rows.begin(), rows.end(), [&volume](const auto& r) {
      return r.axis() == AxisName(volume.axis) && r.operation() == volume.operation;
    });
    if (row != rows.end()) return &*row;
    auto* added = report.add_rows();
    added->set_axis(std::string(AxisName(volume.axis)));
    added->set_operation(std::string(volume.operation));
    return added;
  };
  for (const CommunicationVolume& volume : predicted) {
    auto* row = row_of(volume);
    row->set_predicted_count(volume.count);
    row->set_predicted_bytes(volume.bytes);
    row->set_bytes_per_hop(volume.bytes_per_hop);
  }
  for (const CommunicationVolume& volume : sent) {
    auto* row = row_of(volume);
    row->set_measured_count(volume.count);
    row->set_measured_bytes(volume.bytes);
  }
  return report;
}

void AddPredictedAttention(const JobPlan& plan, Rank rank,
                           proto::CommunicationReport::Attention& report) {
  const AttentionPairs pairs = AttentionPairsOf(plan, rank);
  int phase = 0;
  for (const auto* of_phase : {&pairs.forward, &pairs.recompute, &pairs.backward}) {
    if (phase == report.phases_size()) report.add_phases();
    report.mutable_phases(phase++)->mutable_predicted_pairs()->Assign(of_phase->begin(),
                                                                      of_phase->end());
  }
  const ContextParallel& context = plan.batch.context;
  report.set_method(std::string(ContextMethodName(context.method)));
  report.set_index(plan.mesh.Coordinate(rank, Axis::kCp));
  report.set_num_ranks(context.num_ranks);
}

proto::SpanBatch ReportSpans() {
  proto::SpanBatch batch;
  const DrainResult drained = DrainTrace([&batch](const SpanRecord& record) {
    if (record.category == SpanCategory::kHandler) return;
    auto* span = batch.add_spans();
    span->set_name(TraceName(record.name));
    span->set_category(std::string(SpanCategoryName(record.category)));
    span->set_start_ns(record.start_ns);
    span->set_end_ns(record.end_ns);
    span->set_cpu_ns(record.cpu_ns);
    span->set_stage(record.stage);
    span->set_microbatch(record.microbatch);
    span->set_flow_out(record.flow_out);
    span->set_flow_in(record.flow_in);
    span->set_step(record.step);
  });
  batch.set_dropped(drained.lost);
  return batch;
}

proto::Waits ReportWaits(const WaitBoard& waits, const Clock& clock) {
  proto::Waits report;
  for (const WaitRecord& record : waits.Snapshot()) {
    auto* edge = report.add_edges();
    edge->set_waiter(record.waiter);
    edge->set_owed(record.owed);
    edge->set_from(record.from);
    edge->mutable_from_ranks()->Assign(record.from_ranks.begin(), record.from_ranks.end());
    edge->set_step(record.step);
    edge->set_microbatch(record.microbatch);
    edge->set_waited_ms((clock.NowNs() - record.since_ns) / 1'000'000);
  }
  return report;
}

// Of the shard's leaves, each with its number: those of all shards add up to the parameter's.
static uint64_t DigestOfLeaves(const StageParameter& p) {
  const int64_t leaf_bytes = kShardLeafElements * DTypeBytes(p.weight.dtype());
  const auto* data = static_cast<const std::byte*>(p.weight.data());
  uint64_t sum = 0;
  auto leaf = static_cast<uint64_t>(p.shard.first_leaf());
  for (int64_t at = 0; at < p.weight.num_bytes(); at += leaf_bytes, ++leaf) {
    const int64_t num_bytes = std::min(leaf_bytes, p.weight.num_bytes() - at);
    sum += XXH64(data + at, static_cast<size_t>(num_bytes), leaf);
  }
  return sum;
}

void AddParameterDigests(const std::vector<const StageParameters*>& stages,
                         proto::Finished& finished) {
  for (const StageParameters* stage : stages) {
    for (const StageParameter& p : stage->all()) {
      if (!p.owned || p.shard.num_elements == 0) continue;
      proto::ParameterDigest& digest = *finished.add_parameter_digests();
      digest.set_parameter(p.index);
      digest.set_sum(DigestOfLeaves(p));
    }
  }
}

Status MeasureDevice(FileSystem& files, const proto::JobSpec& spec, const Clock& clock,
                     proto::Hello& hello) {
  hello.set_cpu(CpuName());
  hello.set_build(BuildId());
  if (const auto memory = ReadHostMemory(files)) hello.set_memory_bytes(memory->total_bytes);
  if (MeasuresCosts(spec)) {
    ASSIGN_OR_RETURN(const ModelCosts costs, MeasureCosts(spec, clock));
    *hello.mutable_costs() = ToProto(costs);
  }
  hello.set_product_flops(MeasureProductFlops(spec, clock));
  return {};
}

std::string BuildId() {
  std::ifstream file("/proc/self/exe", std::ios::binary);
  XXH64_state_t* state = XXH64_createState();
  XXH64_reset(state, 0);
  std::vector<char> chunk(1 << 16);
  while (file.read(chunk.data(), static_cast<std::streamsize>(chunk.size())) || file.gcount() > 0) {
    XXH64_update(state, chunk.data(), static_cast<size_t>(file.gcount()));
  }
  const uint64_t hash = XXH64_digest(state);
  XXH64_freeState(state);
  return fmt::format("{:016x}", hash);
}

std::string CpuName() { return fmt::format("{} ({})", CpuModel(), VectorIsaName(ThisVectorIsa())); }

}  // namespace troupe
