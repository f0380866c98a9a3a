#pragma once
// Stands in for a service manager: takes what the daemon says on NOTIFY_SOCKET, holds the
// descriptors that it wants kept, and passes them to the next start as LISTEN_FDS. One thread.

#include "base/unique_fd.hpp"
#include "tests/support/daemon_process.hpp"

#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace statecached::test {

class ServiceManager {
 public:
  explicit ServiceManager(DaemonProcess& daemon) : path_(daemon.dir() + "/notify") {
    socket_ = UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(
        address.sun_path, path_.data(), std::min(path_.size(), sizeof address.sun_path - 1));
    if (::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
      ADD_FAILURE() << "binding " << path_;
    daemon.prepare = [this] { pass(); };
  }

  /// Takes everything that was said so far. To be called before the daemon is started again.
  void listen() {
    while (true) {
      std::array<char, 4096> text{};
      iovec part{text.data(), text.size()};
      alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 16)> control{};
      msghdr message{};
      message.msg_iov = &part;
      message.msg_iovlen = 1;
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      const ssize_t n = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
      if (n < 0) return;
      const std::string said(text.data(), static_cast<std::size_t>(n));
      const std::string name = field(said, "FDNAME=");
      if (said.find("FDSTOREREMOVE=1") != std::string::npos) {
        std::erase_if(kept_, [&](const auto& entry) { return entry.first == name; });
      } else if (said.find("FDSTORE=1") != std::string::npos) {
        for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
          int fd = -1;
          std::memcpy(&fd, CMSG_DATA(c), sizeof fd);
          kept_.emplace_back(name, UniqueFd(fd));
        }
      }
    }
  }

  [[nodiscard]] std::size_t kept() const { return kept_.size(); }

  /// The store is lost, as after a reboot of the manager.
  void forget() { kept_.clear(); }

 private:
  static std::string field(const std::string& said, const std::string& key) {
    const std::size_t at = said.find(key);
    if (at == std::string::npos) return {};
    const std::size_t from = at + key.size();
    return said.substr(from, said.find('\n', from) - from);
  }

  /// In the child: the kept descriptors become 3, 4, ...
  void pass() {
    ::setenv("NOTIFY_SOCKET", path_.c_str(), 1);
    if (kept_.empty()) return;
    std::string names;
    int next = 100;
    std::vector<int> high;
    for (const auto& [name, fd] : kept_) {
      high.push_back(::dup2(fd.get(), next++));
      names += (names.empty() ? "" : ":") + name;
    }
    for (std::size_t i = 0; i < high.size(); ++i)
      ::dup2(high[i], static_cast<int>(3 + i));
    for (const int fd : high)
      ::close(fd);
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    ::setenv("LISTEN_FDS", std::to_string(kept_.size()).c_str(), 1);
    ::setenv("LISTEN_FDNAMES", names.c_str(), 1);
  }

  std::string path_;
  UniqueFd socket_;
  std::vector<std::pair<std::string, UniqueFd>> kept_;
};

}  // namespace statecached::test
