#pragma once
// Which checkpoints a request should take: found by speculative insertion (marconi.md 1.3) before
// prefill.

#include "base/spec.hpp"
#include "policy/options.hpp"

#include <cstdint>
#include <vector>

namespace statecached {

struct AdmissionInput {
  std::uint32_t prompt = 0;     ///< tokens
  std::uint32_t matched = 0;    ///< tokens that agree with what is stored
  std::uint32_t resumable = 0;  ///< deepest depth that can be resumed from, in any tier
  std::uint32_t checkpoint_grid = 1;
  std::uint32_t keep_back = 1;
  bool has_end_groups = true;
  std::uint32_t every_tokens = 0;  ///< Admission::every_tokens
  bool prompt_end = true;  ///< the last grid point before the prompt's end may be wished for
  bool parts = true;       ///< another known sequence goes on differently from `matched`
};

/// Positions, most wanted first. The end of the sequence (generated tokens included) is always
/// welcome and not listed: its position is not known yet.
[[nodiscard]] std::vector<std::uint32_t> wishes(const AdmissionInput& in, Admission admission);

}  // namespace statecached
