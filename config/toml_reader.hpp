#pragma once
// TOML text to a flat list of values. Private to this room; toml_reader.cpp alone knows the parser.

#include "config/field.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace statecached::config {

struct Entry {
  std::vector<std::string> path;  ///< "tenants", "a", "users"
  Value value;
  std::uint32_t line = 0;
};

/// In order of their lines. An empty table is an entry of its own. Errors are "file:line: what".
[[nodiscard]] Result<std::vector<Entry>> read_toml(std::string_view text, const std::string& file);

}  // namespace statecached::config
