#pragma once
// Where the daemon's log goes. spdlog is in the .cpp and nowhere else.

#include "base/log.hpp"

namespace statecached {

enum class LogFormat : std::uint8_t { text, json };

/// Standard error from now on, at this level and above. Once, before threads.
void start_log(LogFormat format, log::Level level);

}  // namespace statecached
