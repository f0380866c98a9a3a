#include "policy/admission.hpp"

#include <algorithm>

namespace statecached {

std::vector<std::uint32_t> wishes(const AdmissionInput& in, Admission admission) {
  std::vector<std::uint32_t> out;
  if (!in.has_end_groups || in.prompt == 0) return out;
  const std::uint32_t last = in.prompt - std::min(in.prompt, in.keep_back);
  const auto on_grid = [&](std::uint32_t at) { return at - at % in.checkpoint_grid; };
  const std::uint32_t branch = on_grid(std::min(in.matched, last));
  if (admission == Admission::every_tokens) {
    for (std::uint32_t at = in.every_tokens; in.every_tokens > 0 && at <= last; at += in.every_tokens) {
      if (at > in.resumable && on_grid(at) == at) out.push_back(at);
    }
    return out;
  }
  // The sequences part at `matched`: a state there serves every later one that parts there too.
  if (branch > in.resumable && in.matched < in.prompt) out.push_back(branch);
  if (admission == Admission::marconi) {
    const std::uint32_t end = on_grid(last);
    if (end > in.resumable && end != branch) out.push_back(end);
    if (end > in.resumable && end == branch && out.empty()) out.push_back(end);
  }
  return out;
}

}  // namespace statecached
