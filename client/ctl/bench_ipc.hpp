#pragma once
// `statecachectl bench ipc`: what a leased prefix costs beside a bare hand-over of as many bytes
// between the same two processors.

#include "base/result.hpp"

#include <cstdint>
#include <string>

namespace statecached::ctl {

struct IpcTimes {
  double rtt_p50 = 0, rtt_p99 = 0;      ///< microseconds: begin, lease, release
  double floor_p50 = 0, floor_p99 = 0;  ///< awake: two rings; idle: two futexes

  [[nodiscard]] double ratio() const noexcept { return floor_p50 > 0 ? rtt_p50 / floor_p50 : 0; }

  [[nodiscard]] double ratio_p99() const noexcept {
    return floor_p99 > 0 ? rtt_p99 / floor_p99 : 0;
  }
};

struct IpcReport {
  IpcTimes awake;  ///< both sides spin
  IpcTimes idle;   ///< both sides sleep: the floor is a futex there and a futex back
  std::uint32_t rounds = 0;
  std::uint32_t idle_rounds = 0;
  std::uint32_t prompts = 0;       ///< cycled over, 8,192 tokens each
  std::uint64_t objects = 0;       ///< in the tree
  std::uint32_t pieces = 0;        ///< of each lease
  double idle_daemon_percent = 0;  ///< of one core, over `idle_daemon_s` without requests
  double idle_daemon_s = 0;
};

struct IpcPlan {
  std::uint32_t rounds = 20'000;
  std::uint32_t idle_rounds = 500;
  std::uint32_t prompts = 256;  ///< that requests cycle over
  std::uint32_t tree_objects = 100'000;
  double idle_seconds = 2;
};

/// Starts a private statecached (the program beside this one) in a temporary folder, fills its
/// tree, measures in turns with the floor, and stops it. Errors: the daemon did not start; it
/// refused a request; a prompt was not a full hit.
[[nodiscard]] Result<IpcReport> bench_ipc(const IpcPlan& plan);

[[nodiscard]] std::string to_json(const IpcReport& report);
[[nodiscard]] std::string to_text(const IpcReport& report);

}  // namespace statecached::ctl
