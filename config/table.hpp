#pragma once
// The one list of settings: key, meaning, how to read and print. Private to this room.

#include "config/field.hpp"

#include <span>
#include <string_view>

namespace statecached::config {

struct Setting {
  std::string_view section;
  std::string_view key;
  std::string_view doc;  ///< for the shipped file; lines without '#'
  Field (*bind)(Settings&);
};

struct TenantSetting {
  std::string_view key;
  std::string_view doc;
  Field (*bind)(Tenant&);
};

[[nodiscard]] std::span<const Setting> settings_table() noexcept;
[[nodiscard]] std::span<const TenantSetting> tenant_table() noexcept;

}  // namespace statecached::config
