#include "client/wire/socket.hpp"

#include "client/wire/control.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>

namespace statecached::wire {
namespace {

using Deadline = std::chrono::steady_clock::time_point;

Deadline deadline_of(Nanos timeout) {
  const auto now = std::chrono::steady_clock::now();
  return timeout > Deadline::max() - now ? Deadline::max() : now + timeout;
}

/// Until `events` or an end of the connection. A poll(2) wait is cut into hours, so any deadline
/// fits an int.
Result<> wait_for(int fd, short events, Deadline deadline) {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    const auto ms = std::clamp<std::int64_t>(left.count(), 0, 3'600'000);
    pollfd p{.fd = fd, .events = events, .revents = 0};
    const int n = ::poll(&p, 1, static_cast<int>(ms));
    if (n > 0) return {};
    if (n < 0 && errno != EINTR) return fail_errno("control: poll");
    if (n == 0 && std::chrono::steady_clock::now() >= deadline) {
      return fail(Errc::timeout, "control: the daemon did not answer in time");
    }
  }
}

tl::unexpected<Error> fail_socket(const char* what) {
  if (errno == EPIPE || errno == ECONNRESET)
    return fail(Errc::closed, "control: the daemon has gone");
  return fail_errno(what);
}

constexpr std::size_t kControlBytes = CMSG_SPACE(kFrameFdsMax * sizeof(int));

/// Takes every descriptor out of a received message, so that none leaks whatever is said about it
/// later.
void take_fds(msghdr& message, std::vector<UniqueFd>& out) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      out.emplace_back(fd);
    }
  }
}

Result<> receive_exactly(int fd,
                         std::span<std::byte> into,
                         std::vector<UniqueFd>& fds,
                         Deadline deadline) {
  while (!into.empty()) {
    SC_TRY(wait_for(fd, POLLIN, deadline));
    alignas(cmsghdr) std::array<char, kControlBytes> control{};
    iovec part{.iov_base = into.data(), .iov_len = into.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t n = ::recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      return fail_socket("control: recvmsg");
    }
    take_fds(message, fds);
    if ((message.msg_flags & MSG_CTRUNC) != 0 || fds.size() > kFrameFdsMax) {
      return fail(Errc::corrupt, "control: more file descriptors than a frame may carry");
    }
    if (n == 0) return fail(Errc::closed, "control: the daemon has gone");
    into = into.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace

Result<UniqueFd> connect_unix(std::string_view path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail(Errc::invalid_argument, "control: the socket's path must have 1 to 107 bytes");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno("control: socket");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno("cannot connect to statecached at " + std::string(path));
  }
  return fd;
}

Result<> send_frame(int fd,
                    std::span<const std::byte> frame,
                    std::span<const int> fds,
                    Nanos timeout) {
  if (frame.size() > kFramePrefix + kFrameMax)
    return fail(Errc::invalid_argument, "control: message too large");
  if (fds.size() > kFrameFdsMax)
    return fail(Errc::invalid_argument, "control: too many file descriptors");
  const Deadline deadline = deadline_of(timeout);
  while (!frame.empty()) {
    SC_TRY(wait_for(fd, POLLOUT, deadline));
    alignas(cmsghdr) std::array<char, kControlBytes> control{};
    iovec part{.iov_base = const_cast<std::byte*>(frame.data()), .iov_len = frame.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!fds.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(fds.size_bytes());
      cmsghdr* c = CMSG_FIRSTHDR(&message);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(fds.size_bytes());
      std::memcpy(CMSG_DATA(c), fds.data(), fds.size_bytes());
    }
    const ssize_t n = ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      return fail_socket("control: sendmsg");
    }
    frame = frame.subspan(static_cast<std::size_t>(n));
    fds = {};
  }
  return {};
}

Result<Frame> receive_frame(int fd, Nanos timeout) {
  const Deadline deadline = deadline_of(timeout);
  Frame out;
  std::array<std::byte, kFramePrefix> prefix{};
  SC_TRY(receive_exactly(fd, prefix, out.fds, deadline));
  SC_ASSIGN(const std::size_t length, frame_length(prefix));
  out.body.resize(length);
  SC_TRY(receive_exactly(fd, out.body, out.fds, deadline));
  return out;
}

bool hung_up(int fd) noexcept {
  pollfd p{.fd = fd, .events = POLLRDHUP, .revents = 0};
  return ::poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0;
}

}  // namespace statecached::wire
