#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace statecached {

/// The value below which a fraction q of the samples lies (nearest rank); 0 when there are none.
/// Reorders.
[[nodiscard]] inline double nearest_rank(std::vector<double>& samples, double q) {
  if (samples.empty()) return 0;
  const double rank = std::ceil(q * static_cast<double>(samples.size()));
  const std::size_t at =
      rank < 1 ? 0 : std::min(static_cast<std::size_t>(rank), samples.size()) - 1;
  std::nth_element(
      samples.begin(), samples.begin() + static_cast<std::ptrdiff_t>(at), samples.end());
  return samples[at];
}

}  // namespace statecached
