#pragma once
// Sizes and times as people write them, and the 4 KiB page everything is aligned to.

#include "base/result.hpp"
#include "base/time.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace statecached {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;
inline constexpr std::uint64_t kTiB = 1024 * kGiB;

/// Granularity of every extent in every tier: what O_DIRECT needs on any drive in use.
inline constexpr std::uint64_t kPage = 4096;

[[nodiscard]] constexpr std::uint64_t div_ceil(std::uint64_t a, std::uint64_t b) noexcept {
  return a / b + (a % b != 0 ? 1 : 0);
}

[[nodiscard]] constexpr std::uint64_t round_up(std::uint64_t a, std::uint64_t to) noexcept {
  return div_ceil(a, to) * to;
}

[[nodiscard]] constexpr std::uint64_t round_down(std::uint64_t a, std::uint64_t to) noexcept {
  return a - a % to;
}

/// "512MiB", "1.5 GB", "4096": KiB MiB GiB TiB, KB MB GB TB, B or nothing. Errors say what is
/// accepted.
[[nodiscard]] Result<std::uint64_t> parse_size(std::string_view text);
/// Exact, so that parse_size() gives it back: "512 MiB", "1.5 GiB", "1000 B".
[[nodiscard]] std::string format_size(std::uint64_t bytes);
/// For people, rounded to one decimal of the largest unit: "25.5 MiB".
[[nodiscard]] std::string format_bytes(std::uint64_t bytes);
/// "50us", "2 ms", "1.5s", "3m", "1h"; a unit is required except for 0. format_duration() is exact.
[[nodiscard]] Result<Nanos> parse_duration(std::string_view text);
[[nodiscard]] std::string format_duration(Nanos d);
/// A positive number or a fraction: "0.5", "1/256".
[[nodiscard]] Result<double> parse_fraction(std::string_view text);

}  // namespace statecached
