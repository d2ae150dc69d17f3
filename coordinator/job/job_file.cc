#include "coordinator/job/job_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <set>

#include "actors/schedule/csv.h"
#include "coordinator/job/absolute_paths.h"
#include "coordinator/job/hf_model.h"
#include "coordinator/job/job_checks.h"
#include "coordinator/job/job_defaults.h"
#include "coordinator/job/job_files.h"
#include "coordinator/job/job_warnings.h"
#include "coordinator/job/yaml_walker.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFileBytesMax = int64_t{1} << 20;
constexpr int kExtendsMax = 8;
constexpr size_t kSentenceBytesMax = 1000;

// A list replaces a list.
void Merge(const proto::JobSpec& own, proto::JobSpec& spec) {
  if (own.optimizer().betas_size() > 0) spec.mutable_optimizer()->clear_betas();
  if (own.model().eos_token_id_size() > 0) spec.mutable_model()->clear_eos_token_id();
  if (own.parallelism().stage_layers_size() > 0) spec.mutable_parallelism()->clear_stage_layers();
  spec.MergeFrom(own);
}

class JobFileReader {
 public:
  JobFileReader(FileSystem& files, const std::string& path) : files_(files) {
    reading_.job.path = path;
  }

  JobReading Run(const std::vector<Override>& overrides) {
    auto here = CurrentFolder();
    if (!here.ok() && !job_.path.starts_with('/')) {
      reading_.errors.push_back({.message = here.error().message, .code = here.error().code});
      return std::move(reading_);
    }
    if (here.ok()) here_ = *std::move(here);
    ReadWithParents(job_.path, 0, "");
    for (const Override& one : overrides) Apply(one);
    if (unread_.contains("")) return std::move(reading_);  // nothing to judge
    ForgetUnread();
    if (Status merged = MergeHfConfig(files_, *job_.spec.mutable_model(), job_.provenance);
        !merged.ok()) {
      Add(merged.error());
      unread_.insert("model.");
      // Of a folder that is not there it is said once.
      const std::string& folder = job_.spec.model().init_from();
      if (merged.error().message.starts_with("model.init_from") && !files_.List(folder).ok()) {
        unread_.insert("model.init_from");
      }
    }
    ReadSchedule();
    ApplyDefaults(job_.spec, job_.provenance);
    Check();
    if (reading_.errors.empty()) Finish();
    return std::move(reading_);
  }

 private:
  void Add(const Error& error) { reading_.errors.push_back(FindingOf(job_, error)); }
  void AddAt(std::string where, std::string sentence) {
    reading_.errors.push_back(
        {.place = {.where = std::move(where)}, .message = Shown(sentence, kSentenceBytesMax)});
  }

  // Parents first, so that a child's keys win. `named_at`: where another file names this one, and
  // how.
  void ReadWithParents(const std::string& path, int depth, const std::string& named_at) {
    if (depth > kExtendsMax) {
      unread_.insert("");
      return AddAt(named_at,
                   fmt::format("goes through more than {} files: end the chain", kExtendsMax));
    }
    const auto text = files_.ReadFile(path, kFileBytesMax);
    if (!text.ok()) {
      unread_.insert("");
      return AddAt(named_at, text.error().message);
    }
    const std::string folder = FolderOf(path);
    const std::string here = AbsolutePath(here_, folder);
    proto::JobSpec own;
    Provenance provenance;
    ExtraKeys extra = {{"extends", ""}};
    const std::string source = depth == 0 ? "file" : AbsolutePath(here, fs::path(path).filename());
    WalkYaml(*text, {path, source, &reading_.errors, &provenance, &unread_}, own, &extra);
    const std::string& parent = extra["extends"];
    const Place extends = provenance["extends"].place;
    if (!parent.empty()) {
      ReadWithParents((fs::path(folder) / parent).lexically_normal().string(), depth + 1,
                      fmt::format("{}: extends = {}", extends.Text(), Shown(parent)));
    }
    std::vector<Edit> edits = ResolvePaths(files_, here, provenance, own);
    if (depth == 0) {
      const std::string from = parent.empty() ? "" : AbsolutePath(here, parent);
      if (from != parent) edits.push_back({extends, parent, from});
      KeepText(*text, std::move(edits), own, from);
    }
    Merge(own, job_.spec);
    for (auto& [key, origin] : provenance) job_.provenance[key] = std::move(origin);
  }

  // The text that says the same from anywhere; none where paths cannot be written into it.
  void KeepText(const std::string& text, std::vector<Edit> edits, const proto::JobSpec& own,
                const std::string& parent) {
    job_.text = text;
    if (edits.empty()) return;
    std::string edited = WithEdits(text, std::move(edits));
    proto::JobSpec again;
    std::vector<Finding> errors;
    ExtraKeys extra = {{"extends", ""}};
    WalkYaml(edited, {.errors = &errors}, again, &extra);
    const bool same = errors.empty() && extra["extends"] == parent &&
                      again.SerializeAsString() == own.SerializeAsString();
    job_.text = same ? std::move(edited) : "";
  }

  void Apply(const Override& o) {
    const std::string place =
        o.flag.empty() ? fmt::format("--set {}={}", Shown(o.path), Shown(o.value)) : o.flag;
    const WalkContext context{place, "flag", &reading_.errors, &job_.provenance, &unread_};
    if (o.value.empty()) return UnsetKey(o.path, context, job_.spec);
    proto::JobSpec own;
    WalkOverride(o.path, o.value, context, own);
    // Paths on the command line are relative to where it was typed.
    (void)ResolvePaths(files_, here_, {}, own);
    Merge(own, job_.spec);
  }

  // The job carries the schedule's text: no other host needs the file, and nobody later.
  void ReadSchedule() {
    proto::Parallelism& parallelism = *job_.spec.mutable_parallelism();
    if (parallelism.has_schedule_csv()) {
      auto text = files_.ReadFile(parallelism.schedule_csv(), kCsvBytesMax);
      if (text.ok()) {
        parallelism.set_schedule_actions(*std::move(text));
        job_.provenance["parallelism.schedule_actions"] = {.source = parallelism.schedule_csv()};
      } else {
        Add(Context("parallelism.schedule_csv", std::move(text).error()));
        unread_.insert("parallelism.schedule_csv");
      }
      parallelism.clear_schedule_csv();
    }
    if (parallelism.has_schedule_actions()) parallelism.set_schedule("csv");
  }

  void Check() {
    const proto::JobSpec judged = WithoutUnread();
    FileFindings in_files = CheckFiles(files_, judged);
    std::vector<Error> errors = CheckJob(judged);
    std::ranges::move(in_files.errors, std::back_inserter(errors));
    for (const Error& error : errors) {
      if (!Follows(error.message)) Add(error);
    }
    std::vector<std::string> odd = std::move(in_files.warnings);
    if (reading_.errors.empty()) {
      std::ranges::move(OddSettings(job_.spec, job_.provenance), std::back_inserter(odd));
    }
    for (std::string& sentence : odd) {
      job_.warnings.push_back(FindingOf(job_, {ErrorCode::kInvalidSpec, std::move(sentence)}));
    }
  }

  // Neither what a parent says of it counts.
  void ForgetUnread() {
    std::vector<Finding> none;
    const WalkContext context{.errors = &none, .provenance = &job_.provenance};
    for (const std::string& key : unread_) {
      if (!key.ends_with('.')) UnsetKey(key, context, job_.spec);
    }
  }

  bool Unread(std::string_view key) const {
    return unread_.contains(std::string(key)) ||
           unread_.contains(std::string(key.substr(0, key.rfind('.'))));
  }

  // Where a default stands in for what could not be read, a value that cannot be: nothing is made
  // of it, and what is said of it was said before.
  proto::JobSpec WithoutUnread() {
    proto::JobSpec spec = job_.spec;
    proto::Parallelism& p = *spec.mutable_parallelism();
    if (Unread("parallelism.pp")) p.set_pp(0);
    if (Unread("parallelism.dp")) p.set_dp(0);
    if (Unread("parallelism.cp")) p.set_cp(0);
    if (Unread("parallelism.virtual_stages")) p.set_virtual_stages(-1);
    if (Unread("parallelism.schedule") || Unread("parallelism.schedule_csv")) {
      unread_.insert("parallelism.schedule");
      p.clear_schedule_actions();
      p.set_schedule("?");
    }
    return spec;
  }

  // Whether a sentence speaks of what could not be read, and was said about that already.
  bool Follows(std::string_view sentence) const {
    if (unread_.empty()) return false;
    const bool speaks_of_it = AnyKeyIn(sentence, [this](std::string_view key) {
      for (size_t end = key.size(); end != std::string_view::npos && end > 0;
           end = key.rfind('.', end - 1)) {
        if (unread_.contains(std::string(key.substr(0, end)))) return true;
      }
      return false;
    });
    const std::string_view key = LeadingKey(sentence);
    const std::string group(key.substr(0, key.rfind('.') + 1));
    return speaks_of_it || (sentence.find(" is missing") != std::string_view::npos &&
                            !group.empty() && unread_.contains(group));
  }

  void Finish() {
    job_.effective_text = EffectiveYaml(job_.spec, job_.provenance);
    if (job_.text.empty()) {
      job_.text = fmt::format("# What {} says, with its paths absolute.\n{}", job_.path,
                              job_.effective_text);
    }
  }

  FileSystem& files_;
  JobReading reading_{};
  LoadedJob& job_ = reading_.job;
  std::set<std::string> unread_{};
  std::string here_{};  // where the command was typed
};

}  // namespace

Result<Override> ParseOverride(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return MakeError(ErrorCode::kInvalidSpec, "--set {}: write it as key.key=value",
                     std::string(text));
  }
  return Override{std::string(text.substr(0, equals)), std::string(text.substr(equals + 1))};
}

JobReading ReadJob(FileSystem& files, const std::string& path,
                   const std::vector<Override>& overrides) {
  return JobFileReader(files, path).Run(overrides);
}

Error Joined(const std::vector<Finding>& errors) {
  std::vector<std::string> lines;
  ErrorCode code = ErrorCode::kInfeasible;
  for (const Finding& error : errors) {
    if (error.code != ErrorCode::kInfeasible) code = ErrorCode::kInvalidSpec;
    lines.push_back(error.Line());
  }
  return MakeError(code, "{}", fmt::join(lines, "\n"));
}

Finding FindingOf(const LoadedJob& job, const Error& error) {
  const Place* place = PlaceOf(job.provenance, error.message);
  const std::string_view key = LeadingKey(error.message);
  const bool known = key.find('.') != std::string_view::npos || job.provenance.contains(key);
  return {.place = place == nullptr ? Place{.where = job.path} : *place,
          .key = std::string(known ? key : ""),
          .message = Shown(error.message, kSentenceBytesMax),
          .code = error.code};
}

}  // namespace troupe
