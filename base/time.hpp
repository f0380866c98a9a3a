#pragma once
// Time as an input: whatever decides anything gets an Instant from its caller.

#include <chrono>
#include <cstdint>

namespace statecached {

using Nanos = std::chrono::nanoseconds;

/// A clock that nobody can read by accident: it has no now(). Zero is the start of the machine
/// (MonotonicClock) or of the simulation (a ManualClock).
struct TimeBase {
  using rep = std::int64_t;
  using period = std::nano;
  using duration = Nanos;
  static constexpr bool is_steady = true;
};

using Instant = std::chrono::time_point<TimeBase, Nanos>;

[[nodiscard]] constexpr double seconds(Nanos d) noexcept {
  return static_cast<double>(d.count()) * 1e-9;
}

[[nodiscard]] constexpr Nanos from_seconds(double s) noexcept {
  return Nanos{static_cast<std::int64_t>(s * 1e9)};
}

/// The seam: implementations must be callable from any thread.
class Clock {
 public:
  Clock() = default;
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;
  virtual ~Clock() = default;
  [[nodiscard]] virtual Instant now() const noexcept = 0;
};

/// CLOCK_MONOTONIC.
class MonotonicClock final : public Clock {
 public:
  [[nodiscard]] Instant now() const noexcept override {
    return Instant{
        std::chrono::duration_cast<Nanos>(std::chrono::steady_clock::now().time_since_epoch())};
  }
};

/// Stands still until told otherwise. One thread.
class ManualClock final : public Clock {
 public:
  [[nodiscard]] Instant now() const noexcept override { return now_; }

  void advance(Nanos d) noexcept { now_ += d; }

  void set(Instant t) noexcept { now_ = t; }

 private:
  Instant now_{};
};

/// CLOCK_REALTIME as seconds since 1970: only for what outlives the process (catalog rows, logs).
[[nodiscard]] inline std::int64_t wall_seconds() noexcept {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace statecached
