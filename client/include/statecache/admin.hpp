#pragma once
// The operator's end of the control socket: what statecachectl sends. Any thread; each call makes
// its own connection. Replies are JSON text, the very objects that `statecachectl --json` prints.

#include "statecache/export.hpp"
#include "statecache/status.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace statecache {

/// Sends one command and returns its (last) reply. `timeout` is for the whole exchange.
/// Errors: not_found (no such socket, or what the daemon says does not exist), closed, timeout,
/// invalid_argument (unknown command), and whatever the daemon refuses with.
STATECACHE_API Result<std::string> admin(
    std::string_view socket_path,
    std::string_view command,
    std::span<const std::string> arguments = {},
    std::span<const std::uint32_t> tokens = {},
    std::chrono::milliseconds timeout = std::chrono::minutes(10)) noexcept;

/// As above for commands that answer more than once: `each` gets every reply in order and returns
/// false to stop listening (which is Ok); it must not throw. `idle` limits the time between two
/// replies.
STATECACHE_API Status
admin_stream(std::string_view socket_path,
             std::string_view command,
             std::span<const std::string> arguments,
             std::span<const std::uint32_t> tokens,
             const std::function<bool(std::string_view json)>& each,
             std::chrono::milliseconds idle = std::chrono::hours(24)) noexcept;

}  // namespace statecache
