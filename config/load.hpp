#pragma once
// Settings from a TOML file and from --set. Reads files; no state, any thread. Every error is one
// line: where it was written ("file:line" or "--set"), the key, what is wrong, and for an unknown
// key the nearest one there is.

#include "base/result.hpp"
#include "config/settings.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace statecached::config {

inline constexpr std::string_view kDefaultFile = "/etc/statecached/statecached.toml";

struct LoadOptions {
  /// Must exist when given. Else kDefaultFile where there is one, else the defaults.
  std::optional<std::string> file;
  /// "section.key=value" each, applied after the file, in order. Lists are written a,b.
  std::span<const std::string> set;
  /// Memory tiers must be smaller than this; 0 leaves that unchecked.
  std::uint64_t machine_memory = 0;
};

[[nodiscard]] Result<Settings> load(const LoadOptions& options);

/// The same from text; `file` names it in errors.
[[nodiscard]] Result<Settings> parse(std::string_view toml,
                                     const std::string& file = "settings",
                                     std::span<const std::string> set = {},
                                     std::uint64_t machine_memory = 0);

/// All settings with their explanations: for defaults this is the shipped statecached.toml. parse()
/// gives the same settings back.
[[nodiscard]] std::string to_toml(const Settings& settings);

/// Physical memory of this machine, for LoadOptions.
[[nodiscard]] std::uint64_t machine_memory() noexcept;

}  // namespace statecached::config
