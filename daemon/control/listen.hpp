#pragma once
// Listening sockets: bound by us, or handed over by systemd.

#include "base/result.hpp"
#include "base/unique_fd.hpp"

#include <string>

namespace statecached {

/// A listening, non-blocking socket. One that we bound as a path is removed with remove_path().
struct Listener {
  UniqueFd fd;
  UniqueFd lock;     ///< of `path` + ".lock", held as long as we serve it
  std::string path;  ///< empty: inherited, or not a path

  /// Takes the socket's name away, so that nobody connects to it any more.
  void remove_path() noexcept;
};

/// Binds `path`, after removing what a killed daemon left there. Error busy: somebody answers
/// there. `mode` of the socket; `group` by name or number, empty: unchanged.
[[nodiscard]] Result<Listener> listen_unix(const std::string& path,
                                           unsigned mode,
                                           const std::string& group);

/// A socket that systemd activation passed; an empty fd stays one.
[[nodiscard]] Result<Listener> inherited_listener(UniqueFd fd);

/// "127.0.0.1:9400", "[::1]:9400" or a path. Only loopback addresses: the page has no access
/// control.
[[nodiscard]] Result<Listener> listen_metrics(const std::string& where);

}  // namespace statecached
