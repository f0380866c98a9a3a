#include "daemon/serving/bell.hpp"

#include <sys/eventfd.h>

#include <cstdint>

namespace statecached {

Result<std::unique_ptr<Bell>> Bell::create() {
  UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) return fail_errno("making the eventfd that wakes the conductor");
  return std::unique_ptr<Bell>(new Bell(std::move(fd)));
}

void Bell::wake() noexcept {
  pending_.store(true);
  if (!sleeping_.load()) return;
  const std::uint64_t one = 1;
  // Cannot fail but with EAGAIN at 2^64 - 2 unread wake-ups, when the owner is awake anyway.
  [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof one);
}

void Bell::drain() noexcept {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(fd_.get(), &count, sizeof count);
}

}  // namespace statecached
