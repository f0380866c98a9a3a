#pragma once
// Who is at the other end of a Unix socket, and what that allows.

#include "base/result.hpp"
#include "base/unique_fd.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace statecached {

struct Peer {
  std::int32_t pid = 0;  ///< 0: in a pid namespace that we do not see
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::vector<std::uint32_t> groups;  ///< supplementary
};

/// From SO_PEERCRED and SO_PEERGROUPS: what the kernel noted when the peer connected.
[[nodiscard]] Result<Peer> peer_of(int socket);

/// Becomes readable when that process is gone. Empty where the process cannot be named.
[[nodiscard]] UniqueFd watch_process(std::int32_t pid);

/// When the process began, in clock ticks since the machine did (field 22 of /proc/PID/stat); 0
/// when it cannot be told. With the number it names a process for good.
[[nodiscard]] std::uint64_t process_started(std::int32_t pid);

struct Tenant {
  std::string name;
  std::vector<std::uint32_t> uids;
  std::vector<std::uint32_t> gids;
  std::uint32_t trust_domain = 0;
  bool trusted = false;
  std::uint64_t quota = UINT64_MAX;
};

/// A trust domain's number, the same for a name on every machine and after every change of
/// settings; 0 for the empty name, which all share that name none.
[[nodiscard]] std::uint32_t trust_domain_number(const std::string& name);

/// Index into `tenants` of the first that names the peer's user or, failing that, one of its
/// groups; kDefaultTenant where none does.
inline constexpr std::uint32_t kDefaultTenant = 0xffffffff;
[[nodiscard]] std::uint32_t tenant_of(const Peer& peer, std::span<const Tenant> tenants);

/// Numbers of users and groups given by name or number.
[[nodiscard]] Result<std::uint32_t> user_id(const std::string& name);
[[nodiscard]] Result<std::uint32_t> group_id(const std::string& name);

}  // namespace statecached
