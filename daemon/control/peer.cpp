#include "daemon/control/peer.hpp"

#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <charconv>
#include <fstream>

namespace statecached {
namespace {

bool parse_number(const std::string& text, std::uint32_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size() && !text.empty();
}

}  // namespace

Result<Peer> peer_of(int socket) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
    return fail_errno("asking who connected");
  Peer out{credentials.pid, credentials.uid, credentials.gid, {}};
  std::vector<gid_t> groups(64);
  size = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
  int got = ::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size);
  if (got != 0 && errno == ERANGE) {
    groups.resize(size / sizeof(gid_t));
    got = ::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size);
  }
  // Without them the peer is judged by its first group alone.
  if (got == 0)
    out.groups.assign(groups.begin(),
                      groups.begin() + static_cast<std::ptrdiff_t>(size / sizeof(gid_t)));
  return out;
}

UniqueFd watch_process(std::int32_t pid) {
  if (pid <= 0) return UniqueFd();
  return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

std::uint64_t process_started(std::int32_t pid) {
  if (pid <= 0) return 0;
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text);
  // The second field is a name in parentheses and may hold anything, blanks and parentheses too.
  std::size_t at = text.rfind(')');
  for (int field = 2; field < 22 && at != std::string::npos; ++field)
    at = text.find(' ', at + 1);
  if (at == std::string::npos) return 0;
  std::uint64_t out = 0;
  std::from_chars(text.data() + at + 1, text.data() + text.size(), out);
  return out;
}

std::uint32_t trust_domain_number(const std::string& name) {
  if (name.empty()) return 0;
  std::uint64_t hash = 1469598103934665603ULL;  // FNV-1a
  for (const char c : name)
    hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  const auto out = static_cast<std::uint32_t>(hash ^ hash >> 32U);
  return out == 0 ? 1 : out;
}

std::uint32_t tenant_of(const Peer& peer, std::span<const Tenant> tenants) {
  for (std::uint32_t i = 0; i < tenants.size(); ++i) {
    if (std::ranges::find(tenants[i].uids, peer.uid) != tenants[i].uids.end()) return i;
  }
  for (std::uint32_t i = 0; i < tenants.size(); ++i) {
    const auto in = [&](std::uint32_t gid) {
      return std::ranges::find(tenants[i].gids, gid) != tenants[i].gids.end();
    };
    if (in(peer.gid) || std::ranges::any_of(peer.groups, in)) return i;
  }
  return kDefaultTenant;
}

Result<std::uint32_t> user_id(const std::string& name) {
  std::uint32_t number = 0;
  if (parse_number(name, number)) return number;
  const passwd* entry = ::getpwnam(name.c_str());
  if (entry == nullptr) return fail(Errc::not_found, fmt::format("there is no user {}", name));
  return entry->pw_uid;
}

Result<std::uint32_t> group_id(const std::string& name) {
  std::uint32_t number = 0;
  if (parse_number(name, number)) return number;
  const group* entry = ::getgrnam(name.c_str());
  if (entry == nullptr) return fail(Errc::not_found, fmt::format("there is no group {}", name));
  return entry->gr_gid;
}

}  // namespace statecached
