#pragma once
// A trace through the daemon's own cache code, on a virtual clock, without moving a byte: the drive
// is a model of time, the catalog counts, copies are done at once.
//
// Closed loop (the default): requests run in the order of the trace, each finished and settled
// (nothing under way) before the next begins, so that what is hit depends on the policy alone.
// Virtual time advances by what loads and prefills take. One thread; the same settings and trace
// give the same results, wall time apart.

#include "base/result.hpp"
#include "base/spec.hpp"
#include "base/units.hpp"
#include "client/workload/trace.hpp"
#include "daemon/cache/cache.hpp"
#include "daemon/cache/write_budget.hpp"
#include "policy/clairvoyant.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

namespace statecached {

/// One request, when it is over.
struct SimRow {
  std::uint64_t index = 0;
  std::uint32_t input_tokens = 0, hit_tokens = 0;
  double ttft_ms = 0;
  std::array<std::uint64_t, kTiers> bytes{};  ///< in each tier now
};

/// What a trace asks of an engine without a cache.
struct TraceDemand {
  double prefill_seconds = 0;
  double seconds = 0;  ///< from its first request to its last
};

struct SimSettings {
  NamespaceSpec spec;
  PolicyOptions policy;
  std::uint64_t device_bytes = 0;  ///< 0: the tier is absent
  std::uint64_t host_bytes = 0;
  std::uint64_t nvme_bytes = 0;
  double host_bytes_per_second = 50e9;
  double nvme_bytes_per_second = 2e9;
  double engine_flops = 400e12;
  std::uint64_t write_budget_per_day = 0;  ///< as the daemon's setting; 0: unlimited
  std::uint64_t write_burst = 0;           ///< 0: 1/144 of the budget
  /// Counts as the paper's simulator does: a whole input may hit, loads are free, the deepest hit
  /// is taken.
  bool compat_reference = false;
  /// Requests come when the trace says (a turn not before the one before it is over), `stretch`
  /// times as slowly, to an engine that prefills one request at a time, first come first served
  /// among those whose state is loaded.
  bool open_loop = false;
  double stretch = 1;
  std::shared_ptr<Future> future;  ///< filled and sealed; for clairvoyant
  std::uint64_t seed = 1;
  std::function<void(const SimRow&)> each;  ///< called after each request
};

struct Percentiles {
  double p50 = 0, p95 = 0, p99 = 0;
};

struct SimResult {
  std::uint64_t requests = 0, input_tokens = 0, hit_tokens = 0;
  std::array<std::uint64_t, kTiers> hit_by_tier{};
  double flops = 0, flops_saved = 0;
  Percentiles ttft_ms;  ///< virtual: wait for loads, copy out of host memory, prefill of the rest
  std::array<std::uint64_t, kTiers> bytes_peak{};
  CacheCounters counters;
  std::optional<WriteBudgetStatus> budget;
  double cache_us_mean = 0, cache_us_p99 = 0;  ///< real time in cache calls, a request
  /// of it, in policy code (no hashing and copying of tokens)
  double policy_us_mean = 0, policy_us_p99 = 0;
  std::optional<double> alpha;  ///< marconi-paper: the one in force at the end
  double engine_busy = 0;       ///< open loop: share of the time
  double virtual_seconds = 0, wall_seconds = 0;
};

/// `progress(done)` after each request. Errors: those of the trace; a tier too small for one
/// object.
[[nodiscard]] Result<SimResult> simulate(const SimSettings& settings,
                                         TraceReader& trace,
                                         const std::function<void(std::uint64_t)>& progress = {});

/// First passes over a trace.
[[nodiscard]] Result<TraceDemand> measure(TraceReader& trace,
                                          const Cost& cost,
                                          double engine_flops);
[[nodiscard]] Result<> fill(Future& future, TraceReader& trace);

}  // namespace statecached
