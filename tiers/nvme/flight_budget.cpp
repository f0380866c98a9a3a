#include "tiers/nvme/flight_budget.hpp"

#include <algorithm>

namespace statecached {
namespace {

constexpr std::uint64_t kWindowBytes = 16 * kMiB;
constexpr Nanos kWindowTime = std::chrono::milliseconds(4);
constexpr std::size_t kTrialWindows = 12;
constexpr std::size_t kUpPairs = 4;
constexpr std::size_t kDownPairs = 5;
constexpr std::size_t kRestWindows = 256;
constexpr double kGain = 1.05;
constexpr double kLoss = 0.97;
constexpr double kFading = 0.995;  ///< a window
constexpr double kWaitSeconds = 4e-3;
constexpr double kSmoothing = 0.25;

}  // namespace

void FlightBudget::ended(std::uint64_t bytes, bool held_back, bool alone, Instant now) noexcept {
  if (!held_back || !alone) {
    open_ = false;
    return;
  }
  if (!open_) {
    open_ = true;
    settling_ = limit();  // what was in flight before belongs to another regime
    bytes_ = 0;
  }
  if (settling_ > 0) {
    settling_ -= std::min(settling_, bytes);
    start_ = now;
    return;
  }
  bytes_ += bytes;
  if (bytes_ < kWindowBytes || now - start_ < kWindowTime) return;
  open_ = false;
  end_window(static_cast<double>(bytes_) / seconds(now - start_));
}

void FlightBudget::end_window(double rate) noexcept {
  rate_ = rate_ > 0 ? rate_ + kSmoothing * (rate - rate_) : rate;
  best_ = std::max(rate, best_ * kFading);
  if (fixed_) return;
  const auto cap =
      std::max(kLeast, round_down(static_cast<std::uint64_t>(best_ * kWaitSeconds), kLeast));
  if (limit_ > cap) {
    limit_ = cap;
    next_trial(Direction::up);
    return;
  }
  ++windows_;
  if (resting_) {
    if (windows_ >= kRestWindows) next_trial(Direction::up);
    return;
  }
  if (candidate_ == 0) {
    next_trial(Direction::up);
    return;
  }
  if (trial_) {
    const double gain = rate / base_;
    if (gain >= (direction_ == Direction::up ? kGain : kLoss)) ++kept_;
  } else {
    base_ = rate;
  }
  trial_ = !trial_;
  if (windows_ >= kTrialWindows) judge();
  if (trial_ && candidate_ > cap) next_trial(Direction::down);
}

void FlightBudget::judge() noexcept {
  const bool up = direction_ == Direction::up;
  if (kept_ >= (up ? kUpPairs : kDownPairs)) {
    limit_ = candidate_;
    next_trial(direction_);
  } else if (up) {
    next_trial(Direction::down);
  } else {
    resting_ = true;
    trial_ = false;
    windows_ = 0;
  }
}

void FlightBudget::next_trial(Direction direction) noexcept {
  direction_ = direction;
  candidate_ =
      direction == Direction::up ? std::min(limit_ * 2, kMost) : std::max(limit_ / 2, kLeast);
  kept_ = 0;
  windows_ = 0;
  trial_ = false;
  resting_ = candidate_ == limit_;  // at an end of the range
}

}  // namespace statecached
