#pragma once
// How long a load takes that ends after so many bytes of a drive's queue: latency + bytes / speed,
// both learned from the loads that ended. A least-squares line through (bytes, seconds), each load
// weighted so that all sizes count by their relative error; older loads fade.
//
// Source: the normal equations of weighted least squares, sums kept with exponential forgetting.

#include <algorithm>
#include <cstdint>

namespace statecached {

class LoadTime {
 public:
  LoadTime() = default;

  /// Before anything was measured: so many bytes a second, at once.
  explicit LoadTime(double bytes_per_second) : slope_(1 / bytes_per_second) {}

  [[nodiscard]] double seconds(std::uint64_t bytes) const noexcept {
    return latency_ + slope_ * static_cast<double>(bytes);
  }

  /// A load that ended `bytes` into the queue took `seconds`.
  void add(std::uint64_t bytes, double seconds) noexcept {
    if (bytes == 0 || !(seconds > 0)) return;
    const double x = static_cast<double>(bytes);
    // The shape of the line, not its height: a drive that became ten times slower must not count a
    // hundredth.
    const double flat = slope_ > 0 ? std::min(latency_ / slope_, kFlatMost) : kFlatMost;
    const double weight = 1 / ((x + flat) * (x + flat));
    for (double* sum : {&w_, &wx_, &wxx_, &wt_, &wxt_})
      *sum *= kKeep;
    w_ += weight;
    wx_ += weight * x;
    wxx_ += weight * x * x;
    wt_ += weight * seconds;
    wxt_ += weight * x * seconds;
    const double spread = w_ * wxx_ - wx_ * wx_;
    // Loads of one size tell no latency from speed.
    if (spread > kSpread * w_ * wxx_) {
      slope_ = (w_ * wxt_ - wx_ * wt_) / spread;
      latency_ = (wt_ - slope_ * wx_) / w_;
    }
    if (spread <= kSpread * w_ * wxx_ || latency_ < 0) {
      latency_ = 0;
      slope_ = wxt_ / wxx_;
    } else if (slope_ <= 0) {
      slope_ = 0;
      latency_ = wt_ / w_;
    }
  }

 private:
  static constexpr double kKeep = 31.0 / 32;  ///< the last 32 loads or so count
  static constexpr double kSpread = 1e-3;
  static constexpr double kFlatMost = 1e9;  ///< bytes: from here on latency is all there is

  double latency_ = 0;  ///< seconds
  double slope_ = 0;    ///< seconds a byte
  double w_ = 0, wx_ = 0, wxx_ = 0, wt_ = 0, wxt_ = 0;
};

}  // namespace statecached
