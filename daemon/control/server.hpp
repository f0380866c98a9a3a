#pragma once
// The control plane: a Unix stream socket on which processes attach and operators ask. One thread
// of its own; what concerns the Cache is sent to the conductor as commands.
//
// What comes in is judged before it is used: a frame of impossible length or no valid message
// closes that connection and is counted; the daemon goes on.
//
// The end of a client. When its socket ends its requests stop and its loads are cancelled. Memory
// that it leased or was writing comes back when its *process* is gone (a pidfd says so), since the
// process may still copy. A client that holds nothing is forgotten with its socket. Where the
// process cannot be watched (another pid namespace) the end of the socket counts as its death.

#include "daemon/control/admin.hpp"
#include "daemon/control/listen.hpp"
#include "daemon/control/peer.hpp"
#include "daemon/serving/conductor.hpp"

#include <memory>
#include <vector>

namespace statecached {

/// A memory that clients map. The fds are the owner's and outlive the server; numbers in pieces and
/// slots are indices into the list of those that the client got: of the host arenas only that of
/// its trust domain.
struct ArenaShare {
  wire::TierName tier = wire::TierName::host;
  std::uint64_t bytes = 0;
  int writable_fd = -1;
  int readable_fd = -1;
  std::uint32_t trust_domain = 0;
  std::uint64_t base = 0;  ///< where it begins in the host tier
};

struct ControlOptions {
  bool trust_own_user = true;  ///< false: nobody maps an arena writable
  std::vector<Tenant> tenants;
  std::uint32_t connections_max = 256;
  std::uint32_t cores = 1;
  std::uint64_t epoch = 0;
  std::vector<KeptClient> earlier;  ///< processes that may use what an earlier daemon left
};

class ControlServer {
 public:
  /// `conductor` and `admin` outlive it. Serves from start() to stop().
  static Result<std::unique_ptr<ControlServer>> create(ControlOptions options,
                                                       Conductor& conductor,
                                                       Admin& admin,
                                                       std::vector<ArenaShare> arenas,
                                                       Listener listener,
                                                       std::vector<Listener> metrics);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  void start();
  /// No new connections; the socket's name is gone. Any thread.
  void stop_accepting();
  /// Closes all connections and joins the thread.
  void stop();

 private:
  class Impl;
  explicit ControlServer(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace statecached
