#pragma once
// How long the conductor's steps take: on the wall, and of its thread's processor time.
//
// Reading a thread's processor time is a system call (0.8 us in a virtual machine), too much for
// every step of two microseconds. A step that was short on the wall was short in processor time
// too, and is recorded as that. Of a long one the processor time is what passed since the last
// reading, less what the wall says of the steps in between; readings are at most kEvery apart while
// there is work, so that this is exact unless the thread lost its processor within that moment. One
// thread.

#include "base/histogram.hpp"
#include "base/time.hpp"

#include <algorithm>
#include <ctime>

namespace statecached {

class StepMeter {
 public:
  explicit StepMeter(const Clock& clock) : clock_(clock) {}

  /// A step begins; `now` is the time.
  void start(Instant now) noexcept {
    started_ = now;
    if (now - read_at_ > kEvery) read(now);
  }

  /// It ended, and the next one begins.
  void done(Histogram& cpu, Histogram& wall) noexcept {
    const Instant now = clock_.now();
    const Nanos took = std::max(now - started_, Nanos::zero());
    Nanos used = took;
    if (took > kShort) {
      const Nanos before = started_ - read_at_;
      const Nanos was = cpu_;
      read(now);
      used = std::clamp(cpu_ - was - before, Nanos::zero(), took);
    }
    cpu.record(static_cast<std::uint64_t>(used.count()));
    wall.record(static_cast<std::uint64_t>(took.count()));
    start(now);
  }

  /// When the step at hand began.
  [[nodiscard]] Instant started() const noexcept { return started_; }

 private:
  static constexpr Nanos kShort = std::chrono::microseconds(40);
  static constexpr Nanos kEvery = std::chrono::microseconds(50);

  void read(Instant now) noexcept {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    cpu_ = std::chrono::seconds(time.tv_sec) + Nanos(time.tv_nsec);
    read_at_ = now;
  }

  const Clock& clock_;
  Instant started_{};
  Instant read_at_{};
  Nanos cpu_{};
};

}  // namespace statecached
