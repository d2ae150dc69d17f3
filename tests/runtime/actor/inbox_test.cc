#include "runtime/actor/inbox.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace troupe {
namespace {

// ---- every interleaving --------------------------------------------------------------------
// Threads of a scenario run one atomic operation at a time, in an order that `script` decides;
// enumerating the scripts enumerates the interleavings (of a sequentially consistent machine).

class Interleaver {
 public:
  // Runs the bodies to their end under `script` (the number of the thread that goes next among
  // those able to, per step; 0 beyond its end) and returns how many could go at each step.
  std::vector<int> Run(const std::vector<std::function<void()>>& bodies,
                       const std::vector<int>& script) {
    waiting_.assign(bodies.size(), false);
    finished_.assign(bodies.size(), false);
    turn_ = -1;
    current = this;
    std::vector<std::thread> threads;
    for (size_t i = 0; i < bodies.size(); ++i) {
      threads.emplace_back([this, i, &bodies] {
        self_index = static_cast<int>(i);
        Step();
        bodies[i]();
        std::lock_guard lock(mutex_);
        finished_[i] = true;
        turn_ = -1;
        changed_.notify_all();
      });
    }
    std::vector<int> choices;
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] {
        if (turn_ != -1) return false;
        for (size_t i = 0; i < bodies.size(); ++i) {
          if (!waiting_[i] && !finished_[i]) return false;
        }
        return true;
      });
      std::vector<int> able;
      for (size_t i = 0; i < bodies.size(); ++i) {
        if (waiting_[i]) able.push_back(static_cast<int>(i));
      }
      if (able.empty()) break;
      const size_t step = choices.size();
      const int choice = step < script.size() ? script[step] : 0;
      choices.push_back(static_cast<int>(able.size()));
      turn_ = able[static_cast<size_t>(choice)];
      changed_.notify_all();
    }
    lock.unlock();
    for (auto& thread : threads) thread.join();
    return choices;
  }

  void Step() {
    std::unique_lock lock(mutex_);
    const auto self = static_cast<size_t>(self_index);
    waiting_[self] = true;
    if (turn_ == self_index) turn_ = -1;
    changed_.notify_all();
    changed_.wait(lock, [&] { return turn_ == self_index; });
    waiting_[self] = false;
  }

  static inline Interleaver* current = nullptr;
  static inline thread_local int self_index = -1;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bool> waiting_, finished_;
  int turn_ = -1;
};

// Calls scenario(script) for every script; scenario returns the choices that Run reported.
int ForEveryInterleaving(const std::function<std::vector<int>(const std::vector<int>&)>& scenario) {
  std::vector<int> script;
  for (int count = 1;; ++count) {
    const std::vector<int> choices = scenario(script);
    script.resize(choices.size(), 0);
    while (!script.empty() && script.back() + 1 >= choices[script.size() - 1]) script.pop_back();
    if (script.empty()) return count;
    ++script.back();
  }
}

template <typename T>
class SteppedAtomic {
 public:
  explicit SteppedAtomic(T value) : value_(value) {}
  T load(std::memory_order) const {
    Interleaver::current->Step();
    return value_;
  }
  T exchange(T value, std::memory_order) {
    Interleaver::current->Step();
    return std::exchange(value_, value);
  }
  bool compare_exchange_weak(T& seen, T value, std::memory_order, std::memory_order) {
    Interleaver::current->Step();
    if (value_ != seen) {
      seen = value_;
      return false;
    }
    value_ = value;
    return true;
  }
  bool compare_exchange_strong(T& seen, T value, std::memory_order s, std::memory_order f) {
    return compare_exchange_weak(seen, value, s, f);
  }

 private:
  T value_;
};

struct Item : Runnable {
  int producer = 0;
  int number = 0;
};

// Two producers against an owner that takes, parks and is woken, in every order: nothing is lost,
// doubled or reordered, and a parked owner with mail has always been told to wake.
TEST(Inbox, EveryInterleavingDeliversAndWakes) {
  const int interleavings = ForEveryInterleaving([](const std::vector<int>& script) {
    BasicInbox<SteppedAtomic> inbox;
    Item items[2][2];
    int wakes = 0;
    bool parked = false;
    std::vector<Item*> got;
    auto producer = [&](int p, int count) {
      for (int n = 0; n < count; ++n) {
        items[p][n].producer = p;
        items[p][n].number = n;
        wakes += inbox.Push(&items[p][n]);
      }
    };
    auto take = [&] {
      for (Runnable* item = inbox.TakeAll(); item != nullptr; item = item->next) {
        got.push_back(static_cast<Item*>(item));
      }
    };
    Interleaver interleaver;
    const auto choices = interleaver.Run({[&] { producer(0, 1); }, [&] { producer(1, 1); },
                                          [&] {
                                            take();
                                            parked = inbox.TryPark();
                                          }},
                                         script);
    // What is left after everybody stopped.
    const size_t before_park = got.size();
    Interleaver rest;
    rest.Run({[&] { take(); }}, {});
    EXPECT_EQ(got.size(), 2u);
    if (parked) {
      EXPECT_EQ(wakes, got.size() > before_park ? 1 : 0);
    } else {
      EXPECT_EQ(wakes, 0);
      EXPECT_GT(got.size(), before_park) << "refused to park an empty inbox";
    }
    std::vector<int> of_first;
    for (const Item* item : got) {
      if (item->producer == 0) of_first.push_back(item->number);
    }
    EXPECT_EQ(of_first, (std::vector<int>{0}));
    return choices;
  });
  EXPECT_GT(interleavings, 100);
}

TEST(Inbox, UnparkWithoutMailLeavesItEmpty) {
  Inbox inbox;
  EXPECT_TRUE(inbox.Empty());
  ASSERT_TRUE(inbox.TryPark());
  EXPECT_TRUE(inbox.Empty());
  inbox.Unpark();
  Item item;
  EXPECT_FALSE(inbox.Push(&item)) << "an awake owner was woken";
  EXPECT_FALSE(inbox.TryPark());
  EXPECT_EQ(inbox.TakeAll(), &item);
  EXPECT_EQ(inbox.TakeAll(), nullptr);
}

TEST(Inbox, EightProducersStress) {
  constexpr int kProducers = 8;
  constexpr int kEach = 5'000;
  Inbox inbox;
  std::vector<std::vector<Item>> items(kProducers, std::vector<Item>(kEach));
  std::atomic<int> wakes{0};
  std::vector<std::thread> threads;
  for (int p = 0; p < kProducers; ++p) {
    threads.emplace_back([&, p] {
      for (int n = 0; n < kEach; ++n) {
        Item& item = items[p][n];
        item.producer = p;
        item.number = n;
        if (inbox.Push(&item)) {
          wakes.fetch_add(1);
          wakes.notify_one();
        }
      }
    });
  }
  std::vector<int> next(kProducers, 0);
  int taken = 0;
  int woken = 0;
  while (taken < kProducers * kEach) {
    for (Runnable* item = inbox.TakeAll(); item != nullptr;) {
      Runnable* following = item->next;
      const auto* got = static_cast<Item*>(item);
      ASSERT_EQ(got->number, next[got->producer]++);
      ++taken;
      item = following;
    }
    if (taken < kProducers * kEach && inbox.TryPark()) {
      wakes.wait(woken);  // hangs here if a wake is lost
      ++woken;
    }
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wakes.load(), woken);
}

}  // namespace
}  // namespace troupe
