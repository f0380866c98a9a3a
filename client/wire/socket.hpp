#pragma once
// Blocking helpers for the client's end of the control socket: frames with file descriptors. Any
// thread; one thread at a time for each descriptor. Errors: closed (the other side went), timeout,
// corrupt (no frame of ours), else what the system call said.

#include "base/result.hpp"
#include "base/time.hpp"
#include "base/unique_fd.hpp"

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

namespace statecached::wire {

/// Connects to a listening Unix stream socket.
[[nodiscard]] Result<UniqueFd> connect_unix(std::string_view path);

/// Sends a whole frame (prefix included); the descriptors travel with its first byte and stay the
/// caller's.
[[nodiscard]] Result<> send_frame(int fd,
                                  std::span<const std::byte> frame,
                                  std::span<const int> fds,
                                  Nanos timeout);

struct Frame {
  std::vector<std::byte> body;  ///< what follows the prefix
  std::vector<UniqueFd> fds;    ///< close-on-exec
};

/// Receives one frame. A timeout in the middle of one leaves the stream unusable.
[[nodiscard]] Result<Frame> receive_frame(int fd, Nanos timeout);

/// The other side has closed or reset the connection. Does not block.
[[nodiscard]] bool hung_up(int fd) noexcept;

}  // namespace statecached::wire
