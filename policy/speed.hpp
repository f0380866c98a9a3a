#pragma once

// The FLOP/s that an engine achieves in prefill, learned from the times it reports (design.md 6): a
// ratio of sums, so that long prefills count for more than short ones, whose time is mostly
// overhead. Old reports fade.

namespace statecached {

class EngineSpeed {
 public:
  EngineSpeed() = default;

  explicit EngineSpeed(double prior)
      : rate_(prior),
        flops_(prior * kPriorSeconds),
        seconds_(kPriorSeconds) {}

  /// A prefill of `flops` took `seconds`.
  void add(double flops, double seconds) noexcept {
    if (!(flops > 0) || !(seconds > 0)) return;
    flops_ = flops_ * kKeep + flops;
    seconds_ = seconds_ * kKeep + seconds;
    rate_ = flops_ / seconds_;
  }

  [[nodiscard]] double rate() const noexcept { return rate_; }

 private:
  /// What the prior weighs: next to nothing, since an engine on a CPU is ten thousand times off.
  static constexpr double kPriorSeconds = 1e-6;
  static constexpr double kKeep = 31.0 / 32;  ///< the last 32 reports or so count
  double rate_ = 400e12;
  double flops_ = 0, seconds_ = 0;
};

}  // namespace statecached
