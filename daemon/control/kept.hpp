#pragma once
// What the service manager passes to a starting daemon, and what it keeps for the next one
// (sd_listen_fds(3), FDSTORE in sd_notify(3)).

#include "base/result.hpp"
#include "base/unique_fd.hpp"

#include <string>
#include <utility>
#include <vector>

namespace statecached {

struct Inherited {
  UniqueFd socket;  ///< the one of socket activation; empty where there is none
  std::vector<std::pair<std::string, UniqueFd>> kept;  ///< by the names we gave them

  /// Takes the first of that name; empty when there is none.
  [[nodiscard]] UniqueFd take(const std::string& name);
};

/// Once a process: the variables are gone afterwards. Names of what we keep begin with
/// "statecached-"; all else is a socket, of which at most one is expected.
[[nodiscard]] Result<Inherited> inherited_fds();

/// Somebody would keep descriptors for us.
[[nodiscard]] bool has_service_manager() noexcept;

/// Errors: unsupported (no manager), io.
[[nodiscard]] Result<> keep_fd(const std::string& name, int fd);
/// Nothing of that name is passed on any more.
void forget_fd(const std::string& name) noexcept;

}  // namespace statecached
