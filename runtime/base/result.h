// Result<T>: a value or an Error. No exception crosses a handler; functions that can meet an
// operating error return a Result and callers use RETURN_IF_ERROR / ASSIGN_OR_RETURN.
#pragma once

#include <optional>
#include <utility>
#include <variant>

#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace troupe {

template <typename T>
class [[nodiscard]] Result {
 public:
  // NOLINTNEXTLINE(*-explicit-*): `return value;` and `return error;` are the point
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & {
    CHECK(ok(), "{}", std::get<1>(state_).message);
    return std::get<0>(state_);
  }
  const T& value() const& {
    CHECK(ok(), "{}", std::get<1>(state_).message);
    return std::get<0>(state_);
  }
  T&& value() && {
    CHECK(ok(), "{}", std::get<1>(state_).message);
    return std::get<0>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const& {
    CHECK(!ok());
    return std::get<1>(state_);
  }
  Error&& error() && {
    CHECK(!ok());
    return std::get<1>(std::move(state_));
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() {}  // defaulted, `return {}` would fill the room of an error with zeros
  Result(Error error) : error_(std::move(error)) {}  // NOLINT(*-explicit-*)

  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const& {
    CHECK(!ok());
    return *error_;
  }
  Error&& error() && {
    CHECK(!ok());
    return std::move(*error_);
  }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

// MakeError(code, format, args...) -> Error, usable wherever a Result is returned. Cold, so that
// the way without an error carries none of it.
template <typename... Args>
[[gnu::cold, gnu::noinline]] Error MakeError(ErrorCode code, fmt::format_string<Args...> format,
                                             Args&&... args) {
  return Error{code, fmt::format(format, std::forward<Args>(args)...)};
}

}  // namespace troupe

#define TROUPE_CONCAT_INNER(a, b) a##b
#define TROUPE_CONCAT(a, b) TROUPE_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expression)                                \
  do {                                                             \
    if (auto status_ = (expression); !status_.ok()) [[unlikely]] { \
      return std::move(status_).error();                           \
    }                                                              \
  } while (false)

#define ASSIGN_OR_RETURN(declaration, expression) \
  ASSIGN_OR_RETURN_INNER(TROUPE_CONCAT(result_, __LINE__), declaration, expression)
#define ASSIGN_OR_RETURN_INNER(result, declaration, expression) \
  auto result = (expression);                                   \
  if (!result.ok()) [[unlikely]] {                              \
    return std::move(result).error();                           \
  }                                                             \
  declaration = std::move(result).value()

// The same two for coroutines.
#define CO_RETURN_IF_ERROR(expression)                             \
  do {                                                             \
    if (auto status_ = (expression); !status_.ok()) [[unlikely]] { \
      co_return std::move(status_).error();                        \
    }                                                              \
  } while (false)
#define CO_ASSIGN_OR_RETURN(declaration, expression) \
  CO_ASSIGN_OR_RETURN_INNER(TROUPE_CONCAT(result_, __LINE__), declaration, expression)
#define CO_ASSIGN_OR_RETURN_INNER(result, declaration, expression) \
  auto result = (expression);                                      \
  if (!result.ok()) [[unlikely]] {                                 \
    co_return std::move(result).error();                           \
  }                                                                \
  declaration = std::move(result).value()
