#pragma once
// Drives a live daemon over shared memory as an engine does: for each request of a trace begin,
// wait, read, append, reserve, write, commit, finish, release. Payloads are a function of namespace
// and tokens (client/workload/payload.hpp), so that every restored byte is checked; a hit token is
// one that was restored and, unless that is turned off, verified.
//
// Threads: replay() makes `concurrency` workers that share `sessions` Sessions. A request that is
// the next turn of another starts when that one is over, as its user would.

#include "base/result.hpp"
#include "base/spec.hpp"
#include "client/workload/trace.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace statecached {

struct ReplaySettings {
  std::string socket;
  NamespaceSpec spec;
  double engine_flops = 400e12;
  std::uint32_t concurrency = 1;
  std::uint32_t sessions = 1;  ///< connections; worker i uses number i % sessions
  double speed = 0;            ///< of the trace's clock; 0: as fast as it goes
  bool verify = true;
  double wait_seconds = 60;  ///< for any one answer of the daemon; then it is an error
};

inline constexpr std::size_t kReplayTiers = 3;  ///< device, host, nvme

struct ReplayTotals {
  std::uint64_t requests = 0, input_tokens = 0, hit_tokens = 0;
  std::array<std::uint64_t, kReplayTiers> hit_by_tier{};
  std::uint64_t bytes_stored = 0, bytes_restored = 0, bytes_verified = 0, bytes_mismatched = 0;
  std::uint64_t reservations = 0, granted = 0, existing = 0, refused_reservations = 0;
  std::uint64_t errors = 0;
  double restore_seconds = 0;  ///< summed over workers
  /// modelled: without a cache, and with it
  double prefill_seconds_cold = 0, prefill_seconds = 0;
  std::vector<double> begin_us, wait_us;
  std::string first_error;
  void add(const ReplayTotals& other);
};

struct ReplayResult {
  ReplayTotals totals;
  std::uint64_t refused_commits = 0;
  double wall_seconds = 0;
};

/// How far it is; called from one thread a few times a second.
struct ReplayProgress {
  std::uint64_t requests = 0, input_tokens = 0, hit_tokens = 0;
};

/// Errors: cannot attach; the trace is damaged; the daemon went away.
[[nodiscard]] Result<ReplayResult> replay(
    const ReplaySettings& settings,
    TraceReader& trace,
    const std::function<void(const ReplayProgress&)>& progress);

}  // namespace statecached
