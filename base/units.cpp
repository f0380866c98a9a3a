#include "base/units.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>

namespace statecached {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

constexpr std::array<Unit, 9> kSizeUnits{{{"TiB", kTiB},
                                          {"GiB", kGiB},
                                          {"MiB", kMiB},
                                          {"KiB", kKiB},
                                          {"TB", 1'000'000'000'000},
                                          {"GB", 1'000'000'000},
                                          {"MB", 1'000'000},
                                          {"KB", 1'000},
                                          {"B", 1}}};

constexpr std::array<Unit, 6> kTimeUnits{{{"h", 3'600'000'000'000},
                                          {"m", 60'000'000'000},
                                          {"s", 1'000'000'000},
                                          {"ms", 1'000'000},
                                          {"us", 1'000},
                                          {"ns", 1}}};

std::string_view trim(std::string_view text) noexcept {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t'))
    text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t'))
    text.remove_suffix(1);
  return text;
}

struct Split {
  std::string_view number;
  std::string_view unit;
};

/// "1.5 GB" -> "1.5", "GB". The number may be empty.
Split split_unit(std::string_view text) noexcept {
  text = trim(text);
  std::size_t digits = 0;
  while (digits < text.size() &&
         ((text[digits] >= '0' && text[digits] <= '9') || text[digits] == '.'))
    ++digits;
  return {text.substr(0, digits), trim(text.substr(digits))};
}

/// number * factor, rounded; whole numbers are exact. False when it is no number or does not fit.
bool scale(std::string_view number,
           std::uint64_t factor,
           std::uint64_t limit,
           std::uint64_t& out) noexcept {
  const char* const end = number.data() + number.size();
  std::uint64_t whole = 0;
  if (auto [p, error] = std::from_chars(number.data(), end, whole);
      error == std::errc{} && p == end) {
    return !__builtin_mul_overflow(whole, factor, &out) && out <= limit;
  }
  double value = 0;
  const auto [p, error] = std::from_chars(number.data(), end, value, std::chars_format::fixed);
  if (error != std::errc{} || p != end || !std::isfinite(value)) return false;
  value = std::nearbyint(value * static_cast<double>(factor));
  if (value < 0 || value >= static_cast<double>(limit)) return false;
  out = static_cast<std::uint64_t>(value);
  return true;
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
  const Split split = split_unit(text);
  std::uint64_t factor = split.unit.empty() ? 1 : 0;
  for (const Unit& unit : kSizeUnits) {
    if (split.unit == unit.name) factor = unit.factor;
  }
  std::uint64_t out = 0;
  if (split.number.empty() || factor == 0 ||
      !scale(split.number, factor, std::uint64_t{1} << 62U, out)) {
    return fail(
        Errc::invalid_argument,
        fmt::format(
            "'{}' is no size; write a number below 4 EiB and KiB, MiB, GiB, TiB, KB, MB, GB, TB "
            "or B, such as 512MiB",
            text));
  }
  return out;
}

std::string format_size(std::uint64_t bytes) {
  for (std::size_t i = 0; i < 4 && bytes != 0; ++i) {
    const Unit& unit = kSizeUnits[i];
    if (bytes % unit.factor == 0) return fmt::format("{} {}", bytes / unit.factor, unit.name);
    if (bytes > unit.factor && bytes % (unit.factor / 2) == 0) {
      return fmt::format("{}.5 {}", bytes / unit.factor, unit.name);
    }
  }
  return fmt::format("{} B", bytes);
}

std::string format_bytes(std::uint64_t bytes) {
  for (std::size_t i = 0; i < 4; ++i) {
    const Unit& unit = kSizeUnits[i];
    if (bytes < unit.factor) continue;
    const double value = static_cast<double>(bytes) / static_cast<double>(unit.factor);
    if (bytes % unit.factor == 0 || value >= 1000)
      return fmt::format("{:.0f} {}", value, unit.name);
    return fmt::format("{:.1f} {}", value, unit.name);
  }
  return fmt::format("{} B", bytes);
}

Result<Nanos> parse_duration(std::string_view text) {
  const Split split = split_unit(text);
  std::uint64_t factor = split.unit.empty() && split.number == "0" ? 1 : 0;
  for (const Unit& unit : kTimeUnits) {
    if (split.unit == unit.name) factor = unit.factor;
  }
  std::uint64_t out = 0;
  if (split.number.empty() || factor == 0 ||
      !scale(split.number, factor, std::uint64_t{1} << 62U, out)) {
    return fail(
        Errc::invalid_argument,
        fmt::format("'{}' is no time; write a number and ns, us, ms, s, m or h, such as 50us",
                    text));
  }
  return Nanos{static_cast<std::int64_t>(out)};
}

std::string format_duration(Nanos d) {
  const bool negative = d.count() < 0;
  const std::uint64_t value =
      negative ? 0 - static_cast<std::uint64_t>(d.count()) : static_cast<std::uint64_t>(d.count());
  if (value == 0) return "0s";
  for (const Unit& unit : kTimeUnits) {
    if (value % unit.factor == 0)
      return fmt::format("{}{}{}", negative ? "-" : "", value / unit.factor, unit.name);
  }
  return "0s";
}

Result<double> parse_fraction(std::string_view text) {
  const auto number = [](std::string_view part, double& out) {
    part = trim(part);
    const char* const end = part.data() + part.size();
    const auto [p, error] = std::from_chars(part.data(), end, out, std::chars_format::general);
    return !part.empty() && error == std::errc{} && p == end && std::isfinite(out) && out > 0;
  };
  double above = 0;
  double below = 1;
  const std::size_t slash = text.find('/');
  const bool good = number(text.substr(0, slash), above) &&
                    (slash == std::string_view::npos || number(text.substr(slash + 1), below));
  if (!good || !std::isfinite(above / below) || above / below <= 0) {
    return fail(
        Errc::invalid_argument,
        fmt::format("'{}' is no positive number or fraction; write for example 0.5 or 1/256",
                    text));
  }
  return above / below;
}

}  // namespace statecached
