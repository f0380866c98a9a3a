#pragma once
// Prometheus' text format (version 0.0.4) of what the daemon counts. A pure function of a snapshot:
// the conductor copies, whoever serves the page writes.

#include "daemon/cache/write_budget.hpp"
#include "daemon/serving/conductor.hpp"

#include <optional>
#include <string>
#include <vector>

namespace statecached {

/// One drive path.
struct DriveSnapshot {
  std::string engine;
  std::uint64_t capacity = 0;
  DiskStats stats;
  std::string folder;  ///< empty: not there
  DiskHealth health = DiskHealth::good;
  std::uint64_t lifetime_written = 0;  ///< data, by this and earlier processes
};

/// Everything that status and metrics tell, at one moment.
struct Snapshot {
  std::string version;
  double uptime_s = 0;
  std::int64_t pid = 0;
  std::uint64_t epoch = 0;
  bool draining = false;
  std::array<TierStatus, kTiers> tiers{};
  CacheCounters cache;
  ServingStats serving;
  std::uint64_t clients = 0;
  std::uint64_t tickets = 0;
  double huge_page_share = 0;  ///< of the host arena, 0..1
  std::vector<DriveSnapshot> drives;
  std::uint64_t process_written = 0;  ///< by the kernel's accounts
  std::optional<WriteBudgetStatus> budget;
  CatalogStats catalog;
  bool has_catalog = false;
  std::uint64_t control_garbage = 0;  ///< connections closed because of what they sent
  std::uint64_t control_refused = 0;
  Histogram wait_error;               ///< thousandths of the predicted wait
  KeptStatus kept;                    ///< of an earlier daemon's host memory
  std::uint64_t earlier_clients = 0;  ///< that may still use it
};

[[nodiscard]] std::string prometheus_text(const Snapshot& snapshot);

}  // namespace statecached
