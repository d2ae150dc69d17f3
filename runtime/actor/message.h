// Messages in flight inside a process: a pooled node that holds one typed message.
#pragma once

#include <atomic>
#include <concepts>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>

#include "runtime/actor/pool.h"
#include "runtime/actor/runnable.h"

namespace troupe {

struct ActorCell;

template <typename M>
concept NamedMessage = requires {
  { M::kMessageName } -> std::convertible_to<std::string_view>;
};

// The qualified C++ name, or kMessageName where the type has one.
template <typename M>
constexpr std::string_view MessageName() {
  if constexpr (NamedMessage<M>) {
    return M::kMessageName;
  } else {
    constexpr std::string_view text = __PRETTY_FUNCTION__;
    constexpr size_t begin = text.find("M = ") + 4;
    return text.substr(begin, text.find_first_of(";]", begin) - begin);
  }
}

// One per message type; its address is the type's identity inside the process.
struct MessageType {
  std::string_view name;
  mutable std::atomic<uint32_t> trace_name{0};  // interned on first use, 0 before

  constexpr explicit MessageType(std::string_view n) : name(n) {}
};
template <typename M>
inline constinit const MessageType kMessageType{MessageName<M>()};

// As a Runnable (only on its way through an inbox) it delivers itself to `target`.
struct MessageNode : Runnable {
  ActorCell* target = nullptr;
  uint32_t incarnation = 0;
  const MessageType* type = nullptr;
  void (*destroy)(MessageNode*) = nullptr;
};

template <typename M>
struct TypedNode : MessageNode, Pooled {
  explicit TypedNode(M m) : message(std::move(m)) {
    type = &kMessageType<M>;
    destroy = [](MessageNode* node) { delete static_cast<TypedNode*>(node); };
  }
  M message;
};

template <typename M, typename... Ms>
inline constexpr bool kIsOneOf = (std::is_same_v<M, Ms> || ...);

// M, however it is passed, is one of the messages Ms.
template <typename M, typename... Ms>
concept OneOf = kIsOneOf<std::remove_cvref_t<M>, Ms...>;

template <typename... M>
struct MessageList {};
template <typename List, typename... M>
inline constexpr bool kCovers = false;
template <typename... Listed, typename... M>
inline constexpr bool kCovers<MessageList<Listed...>, M...> = (kIsOneOf<M, Listed...> && ...);

// A handle of an actor of this process, or of another rank, that takes at least the messages M.
template <typename Handle, typename... M>
concept LocalHandleOf = Handle::kLocal && kCovers<typename Handle::Messages, M...>;
template <typename Handle, typename... M>
concept RemoteHandleOf = !Handle::kLocal && kCovers<typename Handle::Messages, M...>;

}  // namespace troupe
