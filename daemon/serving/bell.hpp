#pragma once
// What wakes a sleeping conductor: tiers that finished something, the control plane's commands.

#include "base/result.hpp"
#include "base/unique_fd.hpp"

#include <atomic>
#include <memory>

namespace statecached {

/// wake() is for any thread and costs one atomic store while the owner is awake. Owner: one thread.
///   owner:  take(); ...work...; set_sleeping(true); if (!pending()) epoll_wait(fd());
///   set_sleeping(false)
/// Both sides use sequentially consistent operations, so either the owner sees the wish before it
/// sleeps or the waker sees that it sleeps.
class Bell {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Bell>> create();

  void wake() noexcept;

  /// Forgets the wishes so far; true if there was one.
  bool take() noexcept { return pending_.exchange(false); }

  [[nodiscard]] bool pending() const noexcept { return pending_.load(); }

  void set_sleeping(bool sleeping) noexcept { sleeping_.store(sleeping); }

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  /// After epoll said that fd() is readable.
  void drain() noexcept;

 private:
  explicit Bell(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
  std::atomic<bool> pending_{false};
  std::atomic<bool> sleeping_{false};
};

}  // namespace statecached
