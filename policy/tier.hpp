#pragma once

#include <cstddef>
#include <cstdint>

namespace statecached {

/// 0 is nearest to the engine. The numbers travel on the wire (wire::TierName).
enum class Tier : std::uint8_t { device = 0, host = 1, nvme = 2, none = 255 };
inline constexpr std::size_t kTiers = 3;

[[nodiscard]] constexpr std::size_t index(Tier tier) noexcept {
  return static_cast<std::size_t>(tier);
}

[[nodiscard]] constexpr const char* to_string(Tier tier) noexcept {
  switch (tier) {
    case Tier::device:
      return "device";
    case Tier::host:
      return "host";
    case Tier::nvme:
      return "nvme";
    case Tier::none:
      return "none";
  }
  return "none";
}

}  // namespace statecached
