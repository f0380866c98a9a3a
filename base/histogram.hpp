#pragma once
// A log-linear histogram of non-negative integers: 16 buckets an octave (error below 6.3 %), fixed
// size, no allocation. One writer; merge() copies to read elsewhere.

#include <array>
#include <cstdint>

namespace statecached {

class Histogram {
 public:
  void record(std::uint64_t value) noexcept;
  void merge(const Histogram& other) noexcept;

  void clear() noexcept { *this = Histogram{}; }

  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }

  [[nodiscard]] double mean() const noexcept;

  [[nodiscard]] std::uint64_t max() const noexcept { return max_; }

  [[nodiscard]] std::uint64_t sum() const noexcept { return sum_; }

  /// The value below which a fraction q of the samples lie (upper edge of its bucket); 0 when
  /// empty.
  [[nodiscard]] std::uint64_t quantile(double q) const noexcept;
  /// Samples with value <= bound (by bucket), for Prometheus' cumulative buckets.
  [[nodiscard]] std::uint64_t count_up_to(std::uint64_t bound) const noexcept;

 private:
  static constexpr unsigned kSubBits = 4;
  static constexpr unsigned kBuckets = (64 - kSubBits + 1) << kSubBits;
  [[nodiscard]] static unsigned bucket(std::uint64_t value) noexcept;
  [[nodiscard]] static std::uint64_t upper_edge(unsigned bucket) noexcept;

  std::array<std::uint64_t, kBuckets> buckets_{};
  std::uint64_t count_ = 0;
  std::uint64_t sum_ = 0;
  std::uint64_t max_ = 0;
};

}  // namespace statecached
