#include "daemon/control/kept.hpp"

#include <fmt/format.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <cstdlib>

namespace statecached {
namespace {

constexpr std::string_view kOurs = "statecached-";

}  // namespace

UniqueFd Inherited::take(const std::string& name) {
  const auto found = std::ranges::find(kept, name, [](const auto& entry) { return entry.first; });
  if (found == kept.end()) return {};
  UniqueFd out = std::move(found->second);
  kept.erase(found);
  return out;
}

Result<Inherited> inherited_fds() {
  Inherited out;
  char** names = nullptr;
  const int count = ::sd_listen_fds_with_names(1, &names);
  if (count < 0) return fail_errno("taking over what the service manager passed", -count);
  std::size_t sockets = 0;
  for (int i = 0; i < count; ++i) {
    UniqueFd fd(SD_LISTEN_FDS_START + i);
    std::string name = names != nullptr && names[i] != nullptr ? names[i] : "";
    if (name.starts_with(kOurs)) {
      out.kept.emplace_back(std::move(name), std::move(fd));
    } else {
      ++sockets;
      out.socket = std::move(fd);
    }
  }
  for (int i = 0; i < count && names != nullptr; ++i)
    ::free(names[i]);
  ::free(names);
  if (sockets > 1) {
    return fail(Errc::invalid_argument,
                fmt::format("systemd passed {} sockets; one is expected", sockets));
  }
  return out;
}

bool has_service_manager() noexcept {
  const char* const socket = ::getenv("NOTIFY_SOCKET");
  return socket != nullptr && *socket != '\0';
}

Result<> keep_fd(const std::string& name, int fd) {
  // FDPOLL: a memory cannot hang up, and only this daemon says when it is of no use any more.
  const std::string state = fmt::format("FDSTORE=1\nFDNAME={}\nFDPOLL=0", name);
  const int sent = ::sd_pid_notify_with_fds(0, 0, state.c_str(), &fd, 1);
  if (sent == 0) return fail(Errc::unsupported, "there is no service manager");
  if (sent < 0) return fail_errno(fmt::format("handing {} to the service manager", name), -sent);
  return {};
}

void forget_fd(const std::string& name) noexcept {
  const std::string state = "FDSTOREREMOVE=1\nFDNAME=" + name;
  ::sd_notify(0, state.c_str());
}

}  // namespace statecached
