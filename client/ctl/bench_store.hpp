#pragma once
// `statecachectl bench store` and `bench restore`: bytes between an engine's memory and the arena
// through the client library, beside the best plain copy of as many bytes in the same run.

#include "base/result.hpp"

#include <cstdint>
#include <string>

namespace statecached::ctl {

enum class StorePath : std::uint8_t { trusted, staged };

struct CopyPlan {
  bool restore = false;
  StorePath path = StorePath::trusted;
  std::uint64_t object_bytes = 1ULL << 20U;
  std::uint64_t round_bytes = 16ULL << 20U;    ///< in one prompt
  std::uint64_t engine_bytes = 512ULL << 20U;  ///< the engine's memory: rounds rotate through it
  std::uint32_t rounds = 160;
};

struct CopyReport {
  CopyPlan plan;
  double gb_per_s = 0;         ///< medians of the rounds, of 10^9 bytes
  double memcpy_gb_per_s = 0;  ///< plain copies between the same two kinds of memory
  double streaming_gb_per_s = 0;
  double hash_gb_per_s = 0;   ///< XXH3-128 alone, as computed later for what goes to NVMe
  double fused_gb_per_s = 0;  ///< staged: a bare loop that copies and hashes, as the daemon must

  /// What the path has to reach: the best plain copy; staged, the bare loop.
  [[nodiscard]] double ceiling() const noexcept;

  [[nodiscard]] double ratio() const noexcept { return ceiling() > 0 ? gb_per_s / ceiling() : 0; }
};

/// Starts a private statecached, measures in turns with the plain copies, and stops it. Errors: the
/// daemon did not start; it refused a request or granted no space.
[[nodiscard]] Result<CopyReport> bench_copies(const CopyPlan& plan);

[[nodiscard]] std::string to_json(const CopyReport& report);
[[nodiscard]] std::string to_text(const CopyReport& report);

}  // namespace statecached::ctl
