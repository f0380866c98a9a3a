#pragma once
// The answers as people read them. JSON in, text out; pure functions.

#include "base/result.hpp"

#include <cstdint>
#include <string>

namespace statecached::ctl {

/// `command` as sent to the daemon. Error: corrupt, when the text is not what that command answers.
[[nodiscard]] Result<std::string> show(const std::string& command, const std::string& json);
/// The number of the newest event in an answer of `events`; 0 when it has none.
[[nodiscard]] std::uint64_t last_event(const std::string& json);
/// True when verify found bad objects or flush could not write some.
[[nodiscard]] bool reports_failure(const std::string& command, const std::string& json);

}  // namespace statecached::ctl
