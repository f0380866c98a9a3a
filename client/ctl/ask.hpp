#pragma once
// One admin command over the control socket.

#include "base/result.hpp"
#include "base/time.hpp"
#include "client/wire/control.hpp"

#include <string>

namespace statecached::ctl {

/// Connects, asks, and returns the JSON text of the answer. Errors: what the daemon refused with,
/// or what went wrong on the way. Blocks; verify and flush may take minutes.
[[nodiscard]] Result<std::string> ask(const std::string& socket,
                                      const wire::AdminMessage& message,
                                      Nanos timeout = std::chrono::hours(1));

}  // namespace statecached::ctl
