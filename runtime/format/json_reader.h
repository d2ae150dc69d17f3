// JSON from outside, read within bounds: ParseJson limits depth and number of values while it
// parses and refuses a key given twice; JsonFields reads typed members with one sentence for each
// wrong one. Used by the readers of this folder. Pure.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "runtime/base/result.h"

namespace troupe {

struct JsonBounds {
  int max_depth = 32;
  int64_t max_values = 1'000'000;  // memory is about 50 bytes a value, beside its text
};

// kCorrupt, starting with `path`, when the text is not JSON or exceeds a bound.
Result<nlohmann::json> ParseJson(std::string_view text, const std::string& path,
                                 const JsonBounds& bounds = {});

// For messages: `text` in quotes, printable, at most 80 bytes of it.
std::string Quoted(std::string_view text);

// The whole number in `value`, when it is one and fits.
std::optional<int64_t> WholeNumber(const nlohmann::json& value);

// Members of one object, which must outlive this. `place` starts every message.
class JsonFields {
 public:
  JsonFields(const nlohmann::json& object, std::string place)
      : object_(object), place_(std::move(place)) {}

  // Read: an absent member, or null, leaves *out as it is. Require: it is an error.
  // A value of the wrong type or outside its type's range is kCorrupt.
  Status Read(std::string_view key, bool* out) const;
  Status Read(std::string_view key, int32_t* out) const;
  Status Read(std::string_view key, int64_t* out) const;
  Status Read(std::string_view key, double* out) const;
  Status Read(std::string_view key, std::string* out) const;
  template <typename T>
  Status Require(std::string_view key, T* out) const {
    if (Member(key) == nullptr) return Missing(key);
    return Read(key, out);
  }
  // The member, or null when it is absent or JSON's null.
  const nlohmann::json* Member(std::string_view key) const;
  Result<const nlohmann::json*> RequireObject(std::string_view key) const;

  Error Missing(std::string_view key) const;
  Error Wrong(std::string_view key, std::string_view wanted) const;

 private:
  const nlohmann::json& object_;
  std::string place_;
};

}  // namespace troupe
