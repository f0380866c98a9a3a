#include "daemon/control/listen.hpp"

#include "daemon/control/peer.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

namespace statecached {
namespace {

Result<UniqueFd> stream_socket(int family) {
  UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno("making a socket");
  return fd;
}

template <class Address>
const sockaddr* generic(const Address& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

Result<sockaddr_un> unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail(Errc::invalid_argument,
                fmt::format("a socket path has 1 to {} bytes, not {}: {}",
                            sizeof address.sun_path - 1,
                            path.size(),
                            path));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

/// Two daemons that start at once both find nobody answering: the lock says who goes on.
Result<UniqueFd> lock_beside(const std::string& path) {
  const std::string name = path + ".lock";
  UniqueFd lock(::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock) return fail_errno(fmt::format("opening {}", name));
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK)
      return fail(Errc::busy, fmt::format("another statecached already serves {}", path));
    return fail_errno(fmt::format("locking {}", name));
  }
  return lock;
}

Result<> remove_stale(const std::string& path, const sockaddr_un& address) {
  struct stat info {};

  if (::lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return {};
    return fail_errno(fmt::format("looking at {}", path));
  }
  if (!S_ISSOCK(info.st_mode))
    return fail(Errc::already_exists, fmt::format("{} exists and is not a socket", path));
  SC_ASSIGN(const UniqueFd probe, stream_socket(AF_UNIX));
  if (::connect(probe.get(), generic(address), sizeof address) == 0 || errno == EAGAIN) {
    return fail(Errc::busy, fmt::format("another process already serves {}", path));
  }
  if (errno != ECONNREFUSED)
    return fail_errno(fmt::format("trying whether somebody serves {}", path));
  if (::unlink(path.c_str()) != 0)
    return fail_errno(fmt::format("removing the stale socket {}", path));
  return {};
}

Result<> start_listening(int fd, const std::string& where) {
  if (::listen(fd, 128) != 0) return fail_errno(fmt::format("listening on {}", where));
  return {};
}

Result<Listener> listen_loopback(const std::string& where, std::size_t colon) {
  std::uint16_t port = 0;
  const char* end = where.data() + where.size();
  const auto [stop, error] = std::from_chars(where.data() + colon + 1, end, port);
  if (error != std::errc{} || stop != end) {
    return fail(Errc::invalid_argument,
                fmt::format("{}: the part after the last colon is a port", where));
  }
  const std::string host = where.substr(0, colon);
  const int on = 1;
  Listener out;
  if (host == "127.0.0.1" || host == "localhost") {
    SC_ASSIGN(out.fd, stream_socket(AF_INET));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    static_cast<void>(::setsockopt(out.fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    if (::bind(out.fd.get(), generic(address), sizeof address) != 0)
      return fail_errno(fmt::format("binding {}", where));
  } else if (host == "[::1]") {
    SC_ASSIGN(out.fd, stream_socket(AF_INET6));
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port);
    address.sin6_addr = in6addr_loopback;
    static_cast<void>(::setsockopt(out.fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    if (::bind(out.fd.get(), generic(address), sizeof address) != 0)
      return fail_errno(fmt::format("binding {}", where));
  } else {
    return fail(Errc::invalid_argument,
                fmt::format("metrics.listen = {}: 127.0.0.1:PORT, [::1]:PORT or a path", where));
  }
  SC_TRY(start_listening(out.fd.get(), where));
  return out;
}

}  // namespace

void Listener::remove_path() noexcept {
  if (!path.empty()) ::unlink(path.c_str());
  path.clear();
}

Result<Listener> listen_unix(const std::string& path, unsigned mode, const std::string& group) {
  SC_ASSIGN(const sockaddr_un address, unix_address(path));
  if (const auto parent = std::filesystem::path(path).parent_path(); !parent.empty()) {
    std::error_code error;
    std::filesystem::create_directories(parent, error);
    if (error) return fail(Errc::io, fmt::format("making {}", parent.string()), error.value());
  }
  Listener out;
  SC_ASSIGN(out.lock, lock_beside(path));
  SC_TRY(remove_stale(path, address));
  SC_ASSIGN(out.fd, stream_socket(AF_UNIX));
  // Nobody may connect before the mode and group are right.
  const mode_t before = ::umask(0177);
  const int bound = ::bind(out.fd.get(), generic(address), sizeof address);
  const int bind_error = errno;
  ::umask(before);
  if (bound != 0) return fail_errno(fmt::format("binding {}", path), bind_error);
  out.path = path;
  if (!group.empty()) {
    SC_ASSIGN(const std::uint32_t gid, group_id(group));
    if (::chown(path.c_str(), static_cast<uid_t>(-1), gid) != 0) {
      return fail_errno(fmt::format("giving {} to the group {}", path, group));
    }
  }
  if (::chmod(path.c_str(), mode) != 0)
    return fail_errno(fmt::format("setting the mode of {}", path));
  SC_TRY(start_listening(out.fd.get(), path));
  return out;
}

Result<Listener> inherited_listener(UniqueFd fd) {
  Listener out;
  if (!fd) return out;
  out.fd = std::move(fd);
  if (::sd_is_socket_unix(out.fd.get(), SOCK_STREAM, 1, nullptr, 0) <= 0) {
    return fail(Errc::invalid_argument, "what systemd passed is no listening Unix stream socket");
  }
  const int flags = ::fcntl(out.fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(out.fd.get(), F_SETFL, flags | O_NONBLOCK) != 0)
    return fail_errno("preparing systemd's socket");
  return out;
}

Result<Listener> listen_metrics(const std::string& where) {
  const std::size_t colon = where.rfind(':');
  if (where.find('/') == std::string::npos && colon != std::string::npos)
    return listen_loopback(where, colon);
  return listen_unix(where, 0666, {});
}

}  // namespace statecached
