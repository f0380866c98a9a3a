#pragma once
// What the environment changes about a test.

#include <cstdint>
#include <cstdlib>

namespace statecached::test {

/// The number in this variable of the environment, or `otherwise` where it is not set.
inline std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

}  // namespace statecached::test
