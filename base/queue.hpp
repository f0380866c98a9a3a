#pragma once
// Bounded queues between threads of one process. (Rings between processes: client/wire.)

#include "base/result.hpp"

#include <atomic>
#include <cstddef>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace statecached {

/// One producer thread, one consumer thread, wait-free. push() moves only when there is room.
template <class T>
class SpscQueue {
 public:
  explicit SpscQueue(std::size_t capacity) : slots_(capacity + 1) {}

  SpscQueue(const SpscQueue&) = delete;
  SpscQueue& operator=(const SpscQueue&) = delete;

  [[nodiscard]] bool push(T&& value) {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);
    const std::size_t next = tail + 1 == slots_.size() ? 0 : tail + 1;
    if (next == head_.load(std::memory_order_acquire)) return false;  // pairs with pop's release
    slots_[tail] = std::move(value);
    tail_.store(next, std::memory_order_release);
    return true;
  }

  [[nodiscard]] std::optional<T> pop() {
    const std::size_t head = head_.load(std::memory_order_relaxed);
    // pairs with push's release
    if (head == tail_.load(std::memory_order_acquire)) return std::nullopt;
    std::optional<T> out(std::move(slots_[head]));
    slots_[head] = T{};
    head_.store(head + 1 == slots_.size() ? 0 : head + 1, std::memory_order_release);
    return out;
  }

  /// Consumer side only.
  [[nodiscard]] bool empty() const noexcept {
    return head_.load(std::memory_order_relaxed) == tail_.load(std::memory_order_acquire);
  }

 private:
  std::vector<T> slots_;
  alignas(64) std::atomic<std::size_t> head_{0};
  alignas(64) std::atomic<std::size_t> tail_{0};
};

/// Any producers, one consumer that takes everything at once. Bounded; a mutex held for a few
/// moves.
template <class T>
class Mailbox {
 public:
  explicit Mailbox(std::size_t capacity) : capacity_(capacity) {}

  [[nodiscard]] bool push(T&& value) {
    const std::lock_guard lock(mutex_);
    if (items_.size() >= capacity_) return false;
    items_.push_back(std::move(value));
    pending_.store(true, std::memory_order_release);
    return true;
  }

  /// Appends everything to `out`; false when there was nothing.
  bool take(std::vector<T>& out) {
    if (!pending_.load(std::memory_order_acquire)) return false;
    const std::lock_guard lock(mutex_);
    for (T& item : items_)
      out.push_back(std::move(item));
    items_.clear();
    pending_.store(false, std::memory_order_release);
    return true;
  }

 private:
  std::size_t capacity_;
  std::mutex mutex_;
  std::vector<T> items_;
  std::atomic<bool> pending_{false};
};

}  // namespace statecached
