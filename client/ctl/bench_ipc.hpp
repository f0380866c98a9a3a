#pragma once
// `statecachectl bench ipc`: what a request costs beside a bare hand-over between two processes.

#include "base/result.hpp"

#include <cstdint>
#include <string>

namespace statecached::ctl {

struct IpcTimes {
  double rtt_p50 = 0, rtt_p99 = 0;      ///< microseconds: begin until the lease is there
  double floor_p50 = 0, floor_p99 = 0;  ///< one word there and one back

  [[nodiscard]] double ratio() const noexcept { return floor_p50 > 0 ? rtt_p50 / floor_p50 : 0; }
};

struct IpcReport {
  IpcTimes awake;  ///< both sides spin
  IpcTimes idle;   ///< both sides sleep: an eventfd there, a futex back
  std::uint32_t rounds = 0;
  std::uint32_t idle_rounds = 0;
};

/// Starts a private statecached (the program beside this one) in a temporary folder, measures in
/// turns with the floor, and stops it. Errors: the daemon did not start; it refused a request.
[[nodiscard]] Result<IpcReport> bench_ipc(std::uint32_t rounds, std::uint32_t idle_rounds);

[[nodiscard]] std::string to_json(const IpcReport& report);
[[nodiscard]] std::string to_text(const IpcReport& report);

}  // namespace statecached::ctl
