// Properties over random shapes: every generated schedule is valid, and the simulator runs what any
// executor that asks NextAction runs.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <utility>

#include "actors/schedule/collective_lists.h"
#include "actors/schedule/csv.h"
#include "actors/schedule/generators.h"
#include "actors/schedule/lower_bound.h"
#include "actors/schedule/next_action.h"
#include "actors/schedule/simulator.h"
#include "actors/schedule/validator.h"

namespace troupe {
namespace {

// Sets microbatches (and what else the schedule asks for) at random within its rule.
void FillRandomly(const ScheduleInfo& info, ScheduleSpec& spec) {
  const int more = *rc::gen::inRange(0, 20);
  spec.num_microbatches = 1 + more;
  if (info.chunks_max == 0) {
    spec.chunks_per_rank = *rc::gen::inRange(info.chunks_min, 5);
  }
  if (info.has_groups && *rc::gen::arbitrary<bool>()) {
    spec.group = *rc::gen::inRange(spec.num_ranks, 2 * spec.num_ranks + 1);
    const bool has_rest = spec.group > spec.num_ranks && *rc::gen::arbitrary<bool>();
    spec.num_microbatches = spec.group * (1 + more % 3) +
                            (has_rest ? *rc::gen::inRange(spec.num_ranks, spec.group) : 0);
  } else if (info.has_groups) {  // the default group, also with fewer microbatches than ranks
    spec.num_microbatches = *rc::gen::element(*rc::gen::inRange(1, spec.num_ranks + 1),
                                              spec.num_ranks * (1 + more % 4));
  } else if (info.name == "zb-h1") {
    spec.num_microbatches = spec.num_ranks + more;
  } else if (info.name == "zb-h2") {
    spec.num_microbatches = 2 * spec.num_ranks - 1 + more;
  } else if (info.name == "dualpipe-v") {
    spec.num_microbatches = 2 * spec.num_ranks + more;
  } else if (info.name == "dualpipe") {
    spec.num_ranks += spec.num_ranks % 2;
    spec.num_microbatches = 2 * (spec.num_ranks + more);
  }
}

// Any schedule that the table knows, at any shape that its rule allows.
Schedule RandomSchedule() {
  const auto known = KnownSchedules();
  const ScheduleInfo& info = known[*rc::gen::inRange<size_t>(0, known.size())];
  ScheduleSpec spec{.name = std::string(info.name), .num_ranks = *rc::gen::inRange(1, 13)};
  FillRandomly(info, spec);
  return *Generate(spec);
}

// With collectives now and then, as PyTorch's lowering puts them.
Schedule RandomLists() {
  const Schedule schedule = RandomSchedule();
  if (!*rc::gen::arbitrary<bool>()) return schedule;
  return *WithCollectives(schedule, *rc::gen::inRange(2, 5));
}

CostModel RandomCosts(const Schedule& schedule) {
  CostModel costs;
  for (int stage = 0; stage < schedule.num_stages; ++stage) {
    costs.stages.push_back({.forward_ns = *rc::gen::inRange(1, 100),
                            .backward_input_ns = *rc::gen::inRange(1, 100),
                            .backward_weight_ns = *rc::gen::inRange(1, 100),
                            .unshard_ns = *rc::gen::inRange(0, 100),
                            .reduce_grad_ns = *rc::gen::inRange(0, 100)});
  }
  costs.link_latency_ns = *rc::gen::inRange(0, 50);
  return costs;
}

TEST(ScheduleProperty, GeneratedSchedulesAreValid) {
  EXPECT_TRUE(rc::check([] {
    const Schedule schedule = RandomSchedule();
    const auto report = Validate(schedule);
    RC_ASSERT(report.ok());
    RC_ASSERT(report->ascending);
    // Every boundary between stages on two ranks is passed once each way.
    int num_crossings = 0;
    for (int stage = 1; stage < schedule.num_stages; ++stage) {
      num_crossings += !schedule.IsFirstStage(StageId(stage)) &&
                       schedule.placement[stage] != schedule.placement[stage - 1];
    }
    RC_ASSERT(report->messages_per_microbatch * schedule.num_directions == 2 * num_crossings);
    RC_ASSERT(report->parameter_replicas == schedule.num_directions);
    // In list order a single slot a channel is enough to get through.
    RC_ASSERT(Validate(schedule, {.slots_per_channel = 1}).ok());
  }));
}

TEST(ScheduleProperty, CsvKeepsTheSchedule) {
  EXPECT_TRUE(rc::check([] {
    const Schedule schedule = RandomLists();
    const auto read = ParseCsv(ToCsv(schedule), schedule.name);
    RC_ASSERT(read.ok());
    RC_ASSERT(read->ranks == schedule.ranks);
    RC_ASSERT(read->placement == schedule.placement);
    RC_ASSERT(read->num_directions == schedule.num_directions);
    RC_ASSERT(read->num_microbatches == schedule.num_microbatches);
    CsvNotes notes;
    const auto sent = ParseCsv(*ToCsvWithCommunication(schedule), schedule.name, &notes);
    RC_ASSERT(sent.ok());
    RC_ASSERT(sent->ranks == schedule.ranks);
    RC_ASSERT(notes.with_communication == (schedule.num_ranks > 1));
  }));
}

// Ranks that ask NextAction in random order, without time: what the executor actors do.
class ToyExecutors {
 public:
  explicit ToyExecutors(const Schedule& schedule) : schedule_(schedule), ran_(schedule.num_ranks) {
    lists_.reserve(static_cast<size_t>(schedule.num_ranks));
    for (int rank = 0; rank < schedule.num_ranks; ++rank) {
      lists_.emplace_back(schedule, PipelineRank(rank));
      progress_.emplace_back(lists_.back());
    }
  }
  // Lets one rank act; false where it is blocked or finished.
  bool Step(int rank) {
    const Decision decision = NextAction(progress_[rank]);
    if (!std::holds_alternative<Start>(decision)) {
      return false;
    }
    const Action action = std::get<Start>(decision).action;
    const int32_t entry = std::get<Start>(decision).entry;
    progress_[rank].MarkStarted(entry);
    progress_[rank].MarkDone(entry);
    ran_[rank].push_back(action);
    if (const auto output = OutputOf(schedule_, action); output && output->crosses_ranks()) {
      RC_ASSERT(progress_[output->to.value].MarkArrived(output->kind, output->to_stage,
                                                        output->microbatch));
    }
    for (const Transfer& input : InputsOf(schedule_, action)) {
      if (input.crosses_ranks()) --in_flight_[{input.from, input.to, input.kind}];
    }
    if (const auto output = OutputOf(schedule_, action); output && output->crosses_ranks()) {
      const auto key = std::make_tuple(output->from, output->to, output->kind);
      most_in_flight_[key] = std::max(most_in_flight_[key], ++in_flight_[key]);
    }
    return true;
  }
  const std::vector<std::vector<Action>>& ran() const { return ran_; }
  const std::map<std::tuple<PipelineRank, PipelineRank, InputKind>, int>& most_in_flight() const {
    return most_in_flight_;
  }

 private:
  const Schedule& schedule_;
  std::vector<RankList> lists_;
  std::vector<RankProgress> progress_;
  std::vector<std::vector<Action>> ran_;
  std::map<std::tuple<PipelineRank, PipelineRank, InputKind>, int> in_flight_;
  std::map<std::tuple<PipelineRank, PipelineRank, InputKind>, int> most_in_flight_;
};

TEST(ScheduleProperty, SimulatorRunsWhatExecutorsRun) {
  EXPECT_TRUE(rc::check([] {
    const Schedule schedule = RandomLists();
    const Simulation simulation = *Simulate(schedule, RandomCosts(schedule));
    std::vector<std::vector<Action>> simulated(schedule.num_ranks);
    for (const Bar& bar : simulation.timeline.bars) {
      simulated[bar.rank.value].push_back(bar.action);
    }
    ToyExecutors executors(schedule);
    const auto order =
        *rc::gen::container<std::vector<int>>(64, rc::gen::inRange(0, schedule.num_ranks));
    for (const int rank : order) {
      while (executors.Step(rank)) {
      }
    }
    for (bool any = true; any;) {
      any = false;
      for (int rank = 0; rank < schedule.num_ranks; ++rank) {
        any = executors.Step(rank) || any;
      }
    }
    RC_ASSERT(executors.ran() == simulated);
    const auto channels = ChannelsOf(schedule);
    for (const auto& [key, most] : executors.most_in_flight()) {
      const auto& [from, to, kind] = key;
      RC_ASSERT(most <= SlotsFor(channels, from, to, kind));
    }
  }));
}

// Lets every rank run until none can; true where all lists are done.
bool RunsToTheEnd(const Schedule& schedule) {
  ToyExecutors executors(schedule);
  for (bool any = true; any;) {
    any = false;
    for (int rank = 0; rank < schedule.num_ranks; ++rank) {
      any = executors.Step(rank) || any;
    }
  }
  return executors.ran() == schedule.ranks;
}

TEST(ScheduleProperty, ValidatorAgreesWithExecutorsOnMixedUpLists) {
  int num_valid = 0;
  int num_deadlocked = 0;
  EXPECT_TRUE(rc::check([&] {
    Schedule schedule = RandomSchedule();
    for (std::vector<Action>& actions : schedule.ranks) {
      for (Action& action : actions) {
        action.pair = kNotPaired;  // to tear a pair apart is an error of its own
      }
    }
    const int swaps = *rc::gen::inRange(1, 6);
    for (int i = 0; i < swaps; ++i) {
      std::vector<Action>& actions = schedule.ranks[*rc::gen::inRange(0, schedule.num_ranks)];
      const auto at = *rc::gen::inRange<size_t>(0, actions.size());
      const auto other = *rc::gen::inRange<size_t>(0, actions.size());
      std::swap(actions[at], actions[other]);
    }
    const auto report = Validate(schedule);
    RC_ASSERT(report.ok() == RunsToTheEnd(schedule));
    num_valid += report.ok();
    if (!report.ok() && ValidateStructure(schedule).ok()) {
      ++num_deadlocked;
      const std::string& words = report.error().message;
      RC_ASSERT(words.find("deadlock: rank") != std::string::npos);
      RC_ASSERT(words.find("which rank") != std::string::npos);
    }
  }));
  EXPECT_GT(num_valid, 0);
  EXPECT_GT(num_deadlocked, 0);
}

TEST(ScheduleProperty, AnyTextIsReadOrRefused) {
  EXPECT_TRUE(rc::check([] {
    // Mostly whole cells, so that some texts are schedules; now and then a fragment.
    const auto pieces =
        *rc::gen::container<std::vector<std::string>>(rc::gen::weightedOneOf<std::string>(
            {{12, rc::gen::element<std::string>("0F0,", "0B0,", "0I0,", "0W0,", "0W0/1of2,",
                                                "0W0/2of2,", "(0F0;0B0)OVERLAP_F_B,", "0F1,",
                                                "0B1,", "0UNSHARD,", "0RESHARD,", "0REDUCE_GRAD,",
                                                "0REDUCE_GRAD0,", "0WAIT_REDUCE_GRAD,", ",")},
             {1, rc::gen::element<std::string>("0", "F", "(", ";", ")", "\n", "/", "BW", "1F0\n",
                                               "-", "99999999999", "\x80")}}));
    std::string text;
    for (const std::string& piece : pieces) {
      text += piece;
    }
    const auto read = ParseCsv(text, "any");
    RC_CLASSIFY(read.ok());
    if (read.ok()) {
      CsvNotes notes;
      const auto again = ParseCsv(ToCsv(*read), "any", &notes);
      RC_ASSERT(again.ok());
      const bool valid = Validate(*read).ok();  // must come back, whatever it says
      // A list that cannot be, with W but no I, may look like the older dialect.
      RC_ASSERT(again->ranks == read->ranks || (notes.older_dialect && !valid));
    }
  }));
}

TEST(ScheduleProperty, SlotBoundIsReached) {
  // A sender that runs as far as it can while its receiver sleeps fills exactly the slots.
  EXPECT_TRUE(rc::check([] {
    const auto name = *rc::gen::element<std::string>("gpipe", "1f1b");
    const Schedule schedule = *Generate({.name = name,
                                         .num_ranks = *rc::gen::inRange(2, 13),
                                         .num_microbatches = *rc::gen::inRange(1, 33)});
    ToyExecutors executors(schedule);
    while (executors.Step(0)) {
    }
    const auto key = std::make_tuple(PipelineRank(0), PipelineRank(1), InputKind::kActivation);
    RC_ASSERT(executors.most_in_flight().at(key) == SlotsFor(ChannelsOf(schedule), PipelineRank(0),
                                                             PipelineRank(1),
                                                             InputKind::kActivation));
  }));
}

TEST(ScheduleProperty, NoScheduleBeatsTheLowerBound) {
  EXPECT_TRUE(rc::check([] {
    const Schedule schedule = RandomLists();
    const CostModel costs = RandomCosts(schedule);
    const Simulation simulation = *Simulate(schedule, costs);
    const double peak = *std::ranges::max_element(simulation.peak_activations);
    const LowerBound bound = LowerBoundOf(schedule, costs, peak);
    RC_ASSERT(simulation.idle.makespan_ns >= bound.makespan_ns);
    RC_ASSERT(simulation.idle.span_ns >= bound.span_ns);
    RC_ASSERT(bound.makespan_ns >= bound.span_ns);
    RC_ASSERT(bound.makespan_ns >= LowerBoundOf(schedule, costs).makespan_ns);
  }));
}

TEST(ScheduleProperty, TimesRespectEveryDependency) {
  EXPECT_TRUE(rc::check([] {
    const Schedule schedule = RandomSchedule();
    const CostModel costs = RandomCosts(schedule);
    const int slots = *rc::gen::inRange(0, 4);
    const Simulation simulation = *Simulate(schedule, costs, {.slots_per_channel = slots});
    std::map<std::tuple<StageId, InputKind, MicrobatchId>, int64_t> sent_at_ns;
    for (const Bar& bar : simulation.timeline.bars) {
      if (const auto output = OutputOf(schedule, bar.action)) {
        sent_at_ns[{output->to_stage, output->kind, output->microbatch}] = bar.end_ns;
      }
    }
    std::vector<int64_t> rank_free_ns(schedule.num_ranks, 0);
    for (const Bar& bar : simulation.timeline.bars) {
      RC_ASSERT(bar.end_ns - bar.start_ns == costs.CostNs(bar.action));
      RC_ASSERT(bar.start_ns >= rank_free_ns[bar.rank.value]);
      rank_free_ns[bar.rank.value] = bar.end_ns;
      for (const Transfer& input : InputsOf(schedule, bar.action)) {
        const int64_t latency_ns = input.crosses_ranks() ? costs.link_latency_ns : 0;
        RC_ASSERT(bar.start_ns >=
                  sent_at_ns.at({input.to_stage, input.kind, input.microbatch}) + latency_ns);
      }
    }
  }));
}

TEST(ScheduleProperty, NoRankHoldsMoreThanItsPolicyAllows) {
  EXPECT_TRUE(rc::check([] {
    const Schedule schedule = RandomSchedule();
    RC_PRE(Validate(schedule)->ascending);
    ExecutionPolicy policy;
    const bool free_run = *rc::gen::arbitrary<bool>();
    policy.mode = free_run ? ExecutorMode::kFreeRun : ExecutorMode::kGuided;
    policy.activation_slack = free_run ? 0 : *rc::gen::element(0.5, 1.0, 3.0);
    policy.activation_limit = free_run ? *rc::gen::element(1.0, 1.5, 4.0) * schedule.num_ranks : 0;
    const ActionTimes times(schedule, RandomCosts(schedule), {.sigma = 0.5},
                            *rc::gen::inRange<uint64_t>(0, 1000));
    const auto run = Simulator(schedule, {.policy = policy}).Run(times);
    RC_ASSERT(run.ok());
    for (int rank = 0; rank < schedule.num_ranks; ++rank) {
      const double most = RankList(schedule, PipelineRank(rank), policy).activation_cap();
      RC_ASSERT(run->peak_activations[static_cast<size_t>(rank)] <= most + 1e-6);
    }
  }));
}

// Two pipelines whose ranks of one place share every pass: the second's follow the first's. A rank
// begins any pass that it may; the pass ends when the other one has begun it, too.
class SharedPipelines {
 public:
  SharedPipelines(const Schedule& schedule, const ExecutionPolicy& policy) : schedule_(schedule) {
    for (int rank = 0; rank < schedule.num_ranks; ++rank) {
      lists_.emplace_back(schedule, PipelineRank(rank), policy);
    }
    for (Pipeline& pipeline : pipelines_) {
      for (const RankList& list : lists_) pipeline.emplace_back(RankProgress(list));
    }
    for (Member& member : pipelines_[1]) member.progress.Follow();
  }
  // Lets a rank do one thing; false where it can do none.
  bool Step(size_t pipeline, size_t rank) {
    Member& member = pipelines_[pipeline][rank];
    Member& other = pipelines_[1 - pipeline][rank];
    if (member.open >= 0) return EndsWith(other.passes, member) && End(pipeline, member);
    const Decision decision = NextAction(member.progress);
    const auto* start = std::get_if<Start>(&decision);
    if (start == nullptr) return false;
    member.progress.MarkStarted(start->entry);
    member.open = start->entry;
    if (!ReadsWeights(start->action.kind)) return true;
    member.passes.push_back(start->action);
    if (pipeline == 0) {
      RC_ASSERT(other.progress.MarkChosen(start->action.stage, start->action.kind,
                                          start->action.microbatch));
    }
    return true;
  }
  bool finished() const {
    return std::ranges::all_of(pipelines_, [](const Pipeline& pipeline) {
      return std::ranges::all_of(pipeline, [](const Member& member) {
        return std::holds_alternative<Finished>(NextAction(member.progress));
      });
    });
  }
  void CheckOrderAndMemory() const {
    for (size_t rank = 0; rank < lists_.size(); ++rank) {
      RC_ASSERT(pipelines_[0][rank].passes == pipelines_[1][rank].passes);
      for (const Pipeline& pipeline : pipelines_) {
        RC_ASSERT(pipeline[rank].progress.peak_held() <= lists_[rank].activation_cap() + 1e-6);
      }
    }
  }

 private:
  struct Member {
    explicit Member(RankProgress of) : progress(std::move(of)) {}
    RankProgress progress;
    int32_t open = -1;
    std::vector<Action> passes{};
  };
  using Pipeline = std::vector<Member>;

  // Whether nobody keeps the member's open action from ending.
  bool EndsWith(const std::vector<Action>& others, const Member& member) const {
    const Action& action =
        member.progress.list().entries()[static_cast<size_t>(member.open)].action;
    return !ReadsWeights(action.kind) || others.size() >= member.passes.size();
  }
  bool End(size_t pipeline, Member& member) {
    const int32_t entry = std::exchange(member.open, -1);
    const Action action = member.progress.list().entries()[static_cast<size_t>(entry)].action;
    member.progress.MarkDone(entry);
    const auto output = OutputOf(schedule_, action);
    if (output && output->crosses_ranks()) {
      RC_ASSERT(pipelines_[pipeline][static_cast<size_t>(output->to.value)].progress.MarkArrived(
          output->kind, output->to_stage, output->microbatch));
    }
    return true;
  }

  const Schedule& schedule_;
  std::deque<RankList> lists_{};
  std::array<Pipeline, 2> pipelines_{};
};

TEST(ScheduleProperty, RanksThatShareTheirPassesEndInOneOrder) {
  EXPECT_TRUE(rc::check([] {
    const Schedule schedule = RandomSchedule();
    RC_PRE(Validate(schedule)->ascending);
    ExecutionPolicy policy;
    const bool free_run = *rc::gen::arbitrary<bool>();
    policy.mode = free_run ? ExecutorMode::kFreeRun : ExecutorMode::kGuided;
    policy.activation_slack = free_run ? 0 : *rc::gen::element(0.5, 1.0, 3.0);
    policy.activation_limit = free_run ? *rc::gen::element(1.0, 1.5, 4.0) * schedule.num_ranks : 0;
    SharedPipelines shared(schedule, policy);
    const auto num_ranks = static_cast<size_t>(schedule.num_ranks);
    const auto order =
        *rc::gen::container<std::vector<size_t>>(256, rc::gen::inRange<size_t>(0, 2 * num_ranks));
    for (const size_t at : order) shared.Step(at / num_ranks, at % num_ranks);
    for (bool any = true; any;) {
      any = false;
      for (size_t at = 0; at < 2 * num_ranks; ++at) {
        any = shared.Step(at / num_ranks, at % num_ranks) || any;
      }
    }
    RC_ASSERT(shared.finished());
    shared.CheckOrderAndMemory();
  }));
}

}  // namespace
}  // namespace troupe
