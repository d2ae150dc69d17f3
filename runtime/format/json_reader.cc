#include "runtime/format/json_reader.h"

#include <utility>
#include <vector>

namespace troupe {
namespace {

using nlohmann::json;

// Builds the document while it counts, so that a hostile text stops before it costs memory.
class BoundedBuilder : public json::json_sax_t {
 public:
  explicit BoundedBuilder(const JsonBounds& bounds) : bounds_(bounds) {}

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(value); }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t&) override { return Add(value); }
  bool string(string_t& value) override { return Add(std::move(value)); }
  bool binary(binary_t&) override { return Refuse("binary value"); }
  bool start_object(size_t) override { return Open(json::object()); }
  bool start_array(size_t) override { return Open(json::array()); }
  bool end_object() override { return Shut(); }
  bool end_array() override { return Shut(); }
  bool key(string_t& name) override {
    if (open_.back()->contains(name)) return Refuse("key " + Quoted(name) + " given twice");
    key_ = std::move(name);
    return true;
  }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    return Refuse(fmt::format("syntax error at byte {}", position));
  }

  json TakeRoot() { return std::move(root_); }
  const std::string& problem() const { return problem_; }

 private:
  bool Refuse(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }
  // Pointers to open containers stay valid: a parent does not grow while its child is open.
  json* Place(json value) {
    if (open_.empty()) return &(root_ = std::move(value));
    if (open_.back()->is_array()) return &open_.back()->emplace_back(std::move(value));
    return &((*open_.back())[std::exchange(key_, {})] = std::move(value));
  }
  bool Add(json value) {
    if (++num_values_ > bounds_.max_values) {
      return Refuse(fmt::format("more than {} values", bounds_.max_values));
    }
    Place(std::move(value));
    return true;
  }
  bool Open(json container) {
    if (std::cmp_greater_equal(open_.size(), bounds_.max_depth)) {
      return Refuse(fmt::format("nested deeper than {}", bounds_.max_depth));
    }
    if (++num_values_ > bounds_.max_values) {
      return Refuse(fmt::format("more than {} values", bounds_.max_values));
    }
    open_.push_back(Place(std::move(container)));
    return true;
  }
  bool Shut() {
    open_.pop_back();
    return true;
  }

  JsonBounds bounds_;
  json root_;
  std::vector<json*> open_;
  std::string key_;
  int64_t num_values_ = 0;
  std::string problem_;
};

}  // namespace

Result<json> ParseJson(std::string_view text, const std::string& path, const JsonBounds& bounds) {
  BoundedBuilder builder(bounds);
  if (!json::sax_parse(text.begin(), text.end(), &builder)) {
    return MakeError(ErrorCode::kCorrupt, "{}: not the JSON expected here: {}", path,
                     builder.problem());
  }
  return builder.TakeRoot();
}

std::string Quoted(std::string_view text) {
  constexpr size_t kShownMax = 80;
  std::string quoted = "'";
  for (const char c : text.substr(0, kShownMax)) {
    const auto byte = static_cast<unsigned char>(c);
    quoted += byte < 0x20 || byte >= 0x7f ? '?' : c;
  }
  return quoted + (text.size() > kShownMax ? "…'" : "'");
}

std::optional<int64_t> WholeNumber(const json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (!std::in_range<int64_t>(number)) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  return std::nullopt;
}

const json* JsonFields::Member(std::string_view key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

Result<const json*> JsonFields::RequireObject(std::string_view key) const {
  const json* member = Member(key);
  if (member == nullptr) return Missing(key);
  if (!member->is_object()) return Wrong(key, "an object");
  return member;
}

Error JsonFields::Missing(std::string_view key) const {
  return MakeError(ErrorCode::kCorrupt, "{}: the key {} is missing", place_, key);
}

Error JsonFields::Wrong(std::string_view key, std::string_view wanted) const {
  return MakeError(ErrorCode::kCorrupt, "{}: {} must be {}", place_, key, wanted);
}

Status JsonFields::Read(std::string_view key, bool* out) const {
  const json* member = Member(key);
  if (member == nullptr) return {};
  if (!member->is_boolean()) return Wrong(key, "true or false");
  *out = member->get<bool>();
  return {};
}

Status JsonFields::Read(std::string_view key, int64_t* out) const {
  const json* member = Member(key);
  if (member == nullptr) return {};
  const auto number = WholeNumber(*member);
  if (!number) return Wrong(key, "a whole number of at most 63 bits");
  *out = *number;
  return {};
}

Status JsonFields::Read(std::string_view key, int32_t* out) const {
  int64_t number = *out;
  RETURN_IF_ERROR(Read(key, &number));
  if (!std::in_range<int32_t>(number)) return Wrong(key, "a whole number of at most 31 bits");
  *out = static_cast<int32_t>(number);
  return {};
}

Status JsonFields::Read(std::string_view key, double* out) const {
  const json* member = Member(key);
  if (member == nullptr) return {};
  if (!member->is_number()) return Wrong(key, "a number");
  *out = member->get<double>();
  return {};
}

Status JsonFields::Read(std::string_view key, std::string* out) const {
  const json* member = Member(key);
  if (member == nullptr) return {};
  if (!member->is_string()) return Wrong(key, "a string");
  *out = member->get_ref<const std::string&>();
  return {};
}

}  // namespace troupe
