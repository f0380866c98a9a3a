#pragma once
// How one setting is read and printed. Private to this room.

#include "base/result.hpp"
#include "config/settings.hpp"

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace statecached::config {

/// A value as it was written: in TOML with its type, or as the bare text after '=' of --set.
struct Value {
  enum class Kind : std::uint8_t { bare, string, integer, real, boolean, list, table, other };
  Kind kind = Kind::other;
  std::string text;  ///< bare, string
  std::int64_t integer = 0;
  double real = 0;
  bool boolean = false;
  std::vector<std::string> list;

  [[nodiscard]] bool is_text() const noexcept { return kind == Kind::bare || kind == Kind::string; }
};

/// Bound to one member of one Settings. read() leaves the member alone when it fails.
struct Field {
  std::function<Result<>(const Value&)> read;
  std::function<std::string()> print;  ///< as TOML
};

using Choices = std::span<const std::string_view>;

Field text_field(std::string& member);
Field list_field(std::vector<std::string>& member);
Field bool_field(bool& member);
Field number_field(std::uint32_t& member, std::uint32_t least, std::uint32_t most);
Field mode_field(std::uint32_t& member);
Field node_field(std::int32_t& member);
Field duration_field(Nanos& member, Nanos least, Nanos most);
Field positive_field(double& member);
Field optional_real_field(std::optional<double>& member);
/// 0, or least to most bytes. `word` (may be empty) stands for `special`.
Field size_field(std::uint64_t& member,
                 std::uint64_t least,
                 std::uint64_t most,
                 std::string_view word = {},
                 std::uint64_t special = 0);
Field choice_field(std::function<std::size_t()> get,
                   std::function<void(std::size_t)> set,
                   Choices choices);

template <class E>
Field choice_field(E& member, Choices choices) {
  return choice_field([&member] { return static_cast<std::size_t>(member); },
                      [&member](std::size_t i) { member = static_cast<E>(i); },
                      choices);
}

[[nodiscard]] std::string quote(std::string_view text);

}  // namespace statecached::config
