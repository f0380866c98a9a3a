#include "policy/admission.hpp"

#include <algorithm>

namespace statecached {

std::vector<std::uint32_t> wishes(const AdmissionInput& in, Admission admission) {
  std::vector<std::uint32_t> out;
  if (!in.has_end_groups || in.prompt == 0) return out;
  const auto on_grid = [&](std::uint32_t at) { return at - at % in.checkpoint_grid; };
  const std::uint32_t last = in.prompt - std::min(in.prompt, in.keep_back);
  // Where sequences part, a state serves every later one that parts there too. Where one merely
  // goes on, only its new end will be resumed from.
  const std::uint32_t branch = on_grid(std::min(in.matched, last));
  if (admission == Admission::every_tokens) {
    for (std::uint32_t at = in.every_tokens; in.every_tokens > 0 && at <= last;
         at += in.every_tokens) {
      if (at > in.resumable && on_grid(at) == at) out.push_back(at);
    }
    return out;
  }
  const bool parts = in.matched < in.prompt && (in.parts || admission != Admission::marconi);
  if (parts && branch > in.resumable) out.push_back(branch);
  if (admission != Admission::marconi || !in.prompt_end) return out;
  // For the same prompt asked again, and for engines that can save nothing later.
  const std::uint32_t end = on_grid(last);
  if (end > in.resumable && (out.empty() || out.back() != end)) out.push_back(end);
  return out;
}

}  // namespace statecached
