#include "coordinator/job/yaml_scalar.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>

namespace troupe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

template <typename T>
bool ParseAll(std::string_view text, T& value) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end;
}

bool ParseFinite(std::string_view text, double& value) {
  return ParseAll(text, value) && std::isfinite(value);
}

std::optional<bool> ParseBool(std::string_view text) {
  for (const std::string_view yes : {"true", "True", "TRUE"}) {
    if (text == yes) return true;
  }
  for (const std::string_view no : {"false", "False", "FALSE"}) {
    if (text == no) return false;
  }
  return std::nullopt;
}

// "1,000" as a thousand: groups of three digits.
bool HasThousands(std::string_view text) {
  size_t digits = 0;
  bool grouped = false;
  for (const char c : text) {
    if (c == ',') {
      if (digits == 0 || digits > 3 || (grouped && digits != 3)) return false;
      grouped = true;
      digits = 0;
    } else if (std::isdigit(static_cast<unsigned char>(c)) == 0) {
      return false;
    } else {
      ++digits;
    }
  }
  return grouped && digits == 3;
}

// What a numeric field takes; of a whole one values from -most to most, as far as a sentence says.
struct NumberKind {
  bool whole = false;
  int64_t most = std::numeric_limits<int32_t>::max();
};
NumberKind KindOf(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return {.whole = true};
    case FieldDescriptor::CPPTYPE_INT64:
      return {.whole = true, .most = int64_t{1} << 53};  // exact as a double
    default:
      return {};
  }
}

// "write 4000 or 4096" for 4k, "write 4096" for 4Ki; empty where there is no such suffix. Values
// that are not whole are none where that is asked for.
std::string WithoutSuffix(std::string_view text, const NumberKind& kind) {
  struct Suffix {
    char letter;
    double decimal;
    double binary;
  };
  constexpr std::array kSuffixes = {Suffix{'k', 1e3, 0x1p10}, Suffix{'m', 1e6, 0x1p20},
                                    Suffix{'g', 1e9, 0x1p30}};
  if (text.size() > 2 && (text.ends_with('b') || text.ends_with('B'))) text.remove_suffix(1);
  const bool binary_only = text.size() > 2 && text.ends_with('i');
  if (binary_only) text.remove_suffix(1);
  if (text.size() < 2) return "";
  const int letter = std::tolower(static_cast<unsigned char>(text.back()));
  const auto suffix = std::ranges::find(kSuffixes, letter, &Suffix::letter);
  double value = 0;
  if (suffix == kSuffixes.end() || !ParseFinite(text.substr(0, text.size() - 1), value)) return "";
  std::string list;
  for (const double scale : {suffix->decimal, suffix->binary}) {
    const double number = value * scale;
    if (binary_only && scale == suffix->decimal) continue;
    if (std::abs(number) > static_cast<double>(kind.most)) continue;
    const bool is_whole = number == std::trunc(number);
    if (kind.whole && !is_whole) continue;
    list += list.empty() ? "write " : " or ";
    list += is_whole ? fmt::format("{}", static_cast<int64_t>(number)) : fmt::format("{}", number);
  }
  return list;
}

// What is wrong with `text` as a number, and the plain digits for what was probably meant: 1e3,
// 2_000, 1,000 and 4k are numbers elsewhere.
std::string NumberNeeded(std::string text, const NumberKind& of_field) {
  const bool whole = of_field.whole;
  double value = 0;
  if (ParseAll(text, value) && !std::isfinite(value)) {
    return whole ? "a whole number" : "a finite number";
  }
  std::erase_if(text, [](char c) { return c == '_'; });
  if (HasThousands(text)) std::erase(text, ',');
  if (text.starts_with('+')) text.erase(0, 1);
  const std::string kind = whole ? "a whole number" : "a number";
  if (!ParseFinite(text, value)) {
    const std::string meant = WithoutSuffix(text, of_field);
    return meant.empty() ? kind : fmt::format("{} in plain digits: {}", kind, meant);
  }
  if (!whole) return fmt::format("a number in plain digits: write {}", text);
  if (value != std::trunc(value)) return "a whole number";
  if (std::abs(value) > static_cast<double>(of_field.most)) {
    return fmt::format("a whole number from -{0} to {0}", of_field.most);
  }
  return fmt::format("a whole number in plain digits: write {}", static_cast<int64_t>(value));
}

}  // namespace

bool SetScalar(const std::string& text, const FieldDescriptor& field, Message& message) {
  const Reflection& r = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: {
      int32_t value = 0;
      if (!ParseAll(text, value)) return false;
      field.is_repeated() ? r.AddInt32(&message, &field, value)
                          : r.SetInt32(&message, &field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_INT64: {
      int64_t value = 0;
      if (!ParseAll(text, value)) return false;
      field.is_repeated() ? r.AddInt64(&message, &field, value)
                          : r.SetInt64(&message, &field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double value = 0;
      if (!ParseFinite(text, value)) return false;
      field.is_repeated() ? r.AddDouble(&message, &field, value)
                          : r.SetDouble(&message, &field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_BOOL: {
      const std::optional<bool> value = ParseBool(text);
      if (value) r.SetBool(&message, &field, *value);
      return value.has_value();
    }
    default:
      r.SetString(&message, &field, text);
      return true;
  }
}

std::string_view TypeInWords(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64:
      return "a whole number";
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "a number";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_STRING:
      return "text";
    default:
      return "a mapping";
  }
}

std::string NeededFor(const std::string& text, const FieldDescriptor& field) {
  const NumberKind kind = KindOf(field);
  const bool number = kind.whole || field.cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE;
  return number ? NumberNeeded(text, kind) : std::string(TypeInWords(field));
}

std::string YamlText(std::string_view text) {
  // No word that YAML could take for another type, and nothing that ends a scalar.
  const bool plain =
      text.starts_with('/') && std::ranges::all_of(text, [](unsigned char c) {
        return std::isalnum(c) != 0 ||
               std::string_view("/._-+=@%").find(static_cast<char>(c)) != std::string_view::npos;
      });
  return plain ? std::string(text) : QuotedYaml(text);
}

std::string QuotedYaml(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      quoted += fmt::format("\\x{:02x}", byte);
      continue;
    }
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}

}  // namespace troupe
