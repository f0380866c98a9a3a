#pragma once
// One stream of requests of a replay: what an engine does for each.

#include "client/replay/replay.hpp"
#include "client/workload/payload.hpp"
#include "client/workload/turns.hpp"

#include <statecache/client.hpp>

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace statecached {

/// One thread. The session may be shared and outlives the worker.
class ReplayWorker {
 public:
  ReplayWorker(const ReplaySettings& settings, statecache::Session& session);

  /// False: the daemon has gone. Anything else that fails is counted and the request is computed.
  bool run(const TraceRequest& request);

  [[nodiscard]] const ReplayTotals& totals() const noexcept { return totals_; }

 private:
  [[nodiscard]] PayloadShape shape(std::uint16_t group,
                                   std::uint32_t first,
                                   std::uint32_t end) const;
  [[nodiscard]] std::optional<statecache::Lease> restore(
      statecache::TicketId ticket,
      std::chrono::steady_clock::time_point begun);
  [[nodiscard]] std::uint32_t check(const statecache::Lease& lease);
  [[nodiscard]] bool check(const statecache::Piece& piece);
  void save(statecache::TicketId ticket, std::span<const TurnWant> wants);
  /// Counts what is not ok. Returns whether it was.
  bool ok(const statecache::Status& status, const char* what);

  const ReplaySettings& settings_;
  statecache::Session& session_;
  statecache::Micros patience_;
  Payload payload_;
  std::optional<std::uint16_t> counted_group_;  ///< the group whose tier a hit token counts for
  std::vector<std::byte> scratch_;              ///< where a restore without verification copies to
  ReplayTotals totals_;
};

}  // namespace statecached
