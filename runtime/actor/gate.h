// Gate: orderly shutdown as a type. Work enters with a pass; Close refuses new work and waits until
// every pass has come back.
//
// Thread: one scheduler's.
//   G1. After Close began, Enter fails with kCancelled.
//   G2. Close finishes when, and only when, no pass is out.
//   G3. The gate outlives its passes.
#pragma once

#include <coroutine>
#include <string_view>
#include <utility>

#include "runtime/actor/await.h"
#include "runtime/actor/task.h"
#include "runtime/base/result.h"

namespace troupe {

class Gate {
 public:
  class [[nodiscard]] Pass {
   public:
    Pass() = default;
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass& operator=(Pass&& other) noexcept {
      if (this != &other) {
        Return();
        gate_ = std::exchange(other.gate_, nullptr);
      }
      return *this;
    }
    ~Pass() { Return(); }
    void Return() {
      if (auto* gate = std::exchange(gate_, nullptr)) gate->Leave();
    }

   private:
    friend class Gate;
    explicit Pass(Gate* gate) : gate_(gate) {}
    Gate* gate_ = nullptr;
  };

  explicit Gate(std::string_view name) : name_(name) {}  // a literal
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  ~Gate() { CHECK(inside_ == 0, "gate {}: {} passes are still out", name_, inside_); }

  Result<Pass> Enter() {
    if (closed_)
      return MakeError(ErrorCode::kCancelled, "{}: it is closing, new work is refused", name_);
    ++inside_;
    return Pass(this);
  }
  Task<> Close() {
    closed_ = true;
    co_await Empty(*this);
  }

  bool closed() const { return closed_; }
  int inside() const { return inside_; }

 private:
  struct Empty {
    explicit Empty(Gate& g) : gate(g) {}
    Gate& gate;
    Suspension suspension;
    ~Empty() {
      if (gate.closing_ == &suspension) gate.closing_ = nullptr;
    }
    bool await_ready() const { return gate.inside_ == 0; }
    void await_suspend(std::coroutine_handle<> handle) {
      CHECK(gate.closing_ == nullptr, "gate {}: one waits for its closing already", gate.name_);
      suspension.Suspend(handle);
      gate.closing_ = &suspension;
    }
    void await_resume() const {}
  };

  void Leave() {
    if (--inside_ == 0 && closing_ != nullptr) closing_->Wake();
  }

  std::string_view name_;
  bool closed_ = false;
  int inside_ = 0;
  Suspension* closing_ = nullptr;
};

}  // namespace troupe
