#include "client/workload/turns.hpp"

#include "base/units.hpp"

#include <algorithm>

namespace statecached {

std::vector<TurnWant> turn_wants(const NamespaceSpec& spec,
                                 std::uint32_t hit,
                                 std::uint32_t total,
                                 std::span<const std::uint32_t> wishes) {
  std::vector<TurnWant> wants;
  if (total == 0) return wants;
  std::vector<std::uint32_t> depths;
  for (const std::uint32_t wish : wishes) {
    if (wish > hit && wish < total) depths.push_back(wish);
  }
  if (total > hit)
    depths.push_back(static_cast<std::uint32_t>(round_down(total, spec.checkpoint_grid)));
  std::sort(depths.begin(), depths.end());
  depths.erase(std::unique(depths.begin(), depths.end()), depths.end());

  for (std::size_t g = 0; g < spec.groups.size(); ++g) {
    const Group& group = spec.groups[g];
    const auto number = static_cast<std::uint16_t>(g);
    if (group.need == Need::end) {
      for (const std::uint32_t depth : depths) {
        if (depth > hit) wants.push_back({number, depth, depth});
      }
      continue;
    }
    const std::uint32_t cell = group.block_tokens;
    for (std::uint32_t first = hit - hit % cell; first < total && total > hit; first += cell) {
      wants.push_back({number, first, std::min(first + cell, total)});
    }
  }
  // Parents end at or before what hangs on them; at the same end, blocks go first.
  std::stable_sort(wants.begin(), wants.end(), [](const TurnWant& a, const TurnWant& b) {
    if (a.end != b.end) return a.end < b.end;
    return (a.first == a.end) < (b.first == b.end);
  });
  return wants;
}

}  // namespace statecached
