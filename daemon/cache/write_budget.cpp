#include "daemon/cache/write_budget.hpp"

#include <algorithm>
#include <cmath>

namespace statecached {
namespace {

constexpr double kDay = 86'400;
constexpr double kReserve = 0.125;  ///< of the burst
constexpr double kSmoothing = 1.0 / 64;
constexpr double kMemory = 30;       ///< seconds of offers that count
constexpr double kPriceStep = 0.05;  ///< of the mean value

}  // namespace

WriteBudget::WriteBudget(const WriteBudgetOptions& options,
                         std::uint64_t tokens,
                         Instant now) noexcept
    : options_(options),
      refilled_(now),
      tokens_(static_cast<double>(std::min(tokens, options.burst))),
      offered_at_(now),
      shown_tokens_(static_cast<std::int64_t>(tokens_)) {}

void WriteBudget::refill(Instant now) noexcept {
  const double per_second = static_cast<double>(options_.bytes_per_day) / kDay;
  const double burst = static_cast<double>(options_.burst);
  if (now > refilled_) {
    tokens_ = std::min(burst, tokens_ + per_second * seconds(now - refilled_));
    refilled_ = now;
  }
  // The second look after a batch's end has certainly seen its bytes.
  const std::uint64_t looks = looks_.load();
  while (!settled_.empty() && looks >= settled_.front().look + 2) {
    reserved_ -= std::min(reserved_, settled_.front().bytes);
    settled_.pop_front();
  }
  const std::uint64_t observed = observed_.load();
  tokens_ -= static_cast<double>(observed - std::min(observed, seen_));
  seen_ = std::max(seen_, observed);
  shown_tokens_.store(static_cast<std::int64_t>(tokens_), std::memory_order_relaxed);
}

std::uint64_t WriteBudget::room(Instant now) noexcept {
  refill(now);
  const double free =
      tokens_ - static_cast<double>(reserved_) - kReserve * static_cast<double>(options_.burst);
  return free > 0 ? static_cast<std::uint64_t>(free) : 0;
}

bool WriteBudget::take(std::uint64_t bytes, Instant now) noexcept {
  if (room(now) < bytes) return false;
  reserved_ += bytes;
  return true;
}

void WriteBudget::settle(std::uint64_t bytes) noexcept {
  settled_.push_back({bytes, looks_.load()});
}

bool WriteBudget::worth(double value, std::uint64_t bytes, Instant now) noexcept {
  mean_ = mean_ > 0 ? mean_ + kSmoothing * (value - mean_) : value;
  const double passed = now > offered_at_ ? seconds(now - offered_at_) : 0;
  const double kept = std::exp(-passed / kMemory);
  offered_ = offered_ * kept + static_cast<double>(bytes);
  window_ = window_ * kept + passed;
  offered_at_ = now;
  const double usable = (1 - kReserve) * static_cast<double>(options_.burst);
  const double fill = std::min(1.0, static_cast<double>(room(now)) / usable);
  const double per_second = static_cast<double>(options_.bytes_per_day) / kDay;
  // fill / (1 - fill) x per_second / (offered / window), without a division by zero.
  const double may = fill * per_second * window_;
  const double wish = (1 - fill) * offered_;
  const double share = may >= wish ? 1 : may / wish;
  price_ += kPriceStep * mean_ * ((value > price_ ? 1.0 : 0.0) - share);
  price_ = std::max(price_, 0.0);
  shown_price_.store(share < 1 ? price_ : 0, std::memory_order_relaxed);
  return share >= 1 || value >= price_;
}

void WriteBudget::held_back(std::uint64_t bytes) noexcept {
  held_back_objects_.fetch_add(1, std::memory_order_relaxed);
  held_back_bytes_.fetch_add(bytes, std::memory_order_relaxed);
}

WriteBudgetStatus WriteBudget::status() const noexcept {
  constexpr auto kOrder = std::memory_order_relaxed;
  WriteBudgetStatus out;
  out.bytes_per_day = options_.bytes_per_day;
  out.burst = options_.burst;
  out.tokens = shown_tokens_.load(kOrder);
  out.written = observed_.load();
  out.held_back_objects = held_back_objects_.load(kOrder);
  out.held_back_bytes = held_back_bytes_.load(kOrder);
  out.price = shown_price_.load(kOrder);
  return out;
}

}  // namespace statecached
