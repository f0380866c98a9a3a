#pragma once
// The log facade: rooms log through this; only the daemon knows the library behind it. Without a
// sink, warnings and errors go to standard error and the rest is dropped.

#include <fmt/format.h>

#include <cstdint>
#include <string_view>

namespace statecached::log {

enum class Level : std::uint8_t { debug, info, warn, error };
using Sink = void (*)(Level, std::string_view);

/// Set once at start, before threads; the sink must be callable from any thread.
void set_sink(Sink sink) noexcept;
void write(Level level, std::string_view text);

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::debug, fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::warn, fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::error, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace statecached::log
