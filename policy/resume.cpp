#include "policy/resume.hpp"

#include <algorithm>

namespace statecached {

void ResumeScan::renew(const Index& index,
                       std::span<const Group> groups,
                       std::span<const NodeIx> path,
                       Position position,
                       std::span<const Mark> marks,
                       std::uint32_t from) {
  index_ = &index;
  groups_ = groups;
  marks_ = marks;
  position_ = position;
  from_ = from;
  has_end_ = false;
  tracks_.resize(groups.size());
  for (Track& track : tracks_) {
    track.blocks.clear();
    track.covered = from;
  }
  for (NodeIx ix : path) {
    for (ObjectIx o : index.node(ix).objects) {
      const Object& object = index.object(o);
      if (object.state != ObjectState::visible) continue;
      Track& track = tracks_[object.group];
      if (object.need == Need::end) {
        if (object.end <= position.at) track.blocks.push_back(o);
      } else if (object.first < position.at) {
        if (object.need == Need::every) {
          if (object.first > track.covered || object.end <= track.covered) continue;
          track.covered = object.end;
        }
        track.blocks.push_back(o);
      }
    }
  }
  stored_ = position.at;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (groups[g].need == Need::end) has_end_ = true;
    if (groups[g].need != Need::every) continue;
    const std::uint32_t covered = shared(static_cast<std::uint16_t>(g));
    const std::uint32_t ahead = std::min(groups[g].lookahead, covered - from);
    stored_ = std::min(stored_, covered - ahead);
  }
}

std::uint32_t ResumeScan::shared(std::uint16_t group) const {
  const std::uint32_t covered = tracks_[group].covered;
  if (covered >= position_.at) return position_.at;
  const std::uint32_t cell = groups_[group].block_tokens;
  const std::uint32_t first = covered / cell * cell;
  std::uint32_t to = std::min(position_.at, first + cell);
  NodeIx node = index_->node_at(position_.node, to);
  while (to > covered) {
    if (index_->find_cover({node, to}, group, first, to, first + cell) != kNil) return to;
    to = index_->node(node).start;  // a branch leaves the path where a node of it ends
    node = index_->node_at(node, to);
  }
  return covered;
}

bool ResumeScan::inside_mark(std::uint32_t depth) const {
  return std::any_of(marks_.begin(), marks_.end(), [&](const Mark& mark) {
    return mark.atomic != 0 && mark.at < depth && depth - mark.at < mark.length;
  });
}

bool ResumeScan::need_every(std::uint16_t group,
                            std::uint32_t depth,
                            std::vector<Cover>& out) const {
  const Track& track = tracks_[group];
  const std::uint32_t cell = groups_[group].block_tokens;
  for (std::size_t i = 0; i < track.blocks.size(); ++i) {
    const Object& object = index_->object(track.blocks[i]);
    if (object.first >= depth) break;
    // A partial block is followed by the longer ones of its cell: take the first that reaches.
    if (object.end < depth && i + 1 < track.blocks.size() &&
        index_->object(track.blocks[i + 1]).first == object.first) {
      continue;
    }
    out.push_back({track.blocks[i], std::min(object.end, depth) - object.first});
    if (object.end >= depth) return true;
  }
  // The last cell may lie on another branch that shares its beginning.
  const std::uint32_t first = depth / cell * cell;
  if (first == depth) return track.covered >= depth;
  if (track.covered < first) return false;
  const ObjectIx other = index_->find_cover(
      {index_->node_at(position_.node, depth), depth}, group, first, depth, first + cell);
  if (other == kNil) return false;
  while (!out.empty() && index_->object(out.back().object).group == group &&
         index_->object(out.back().object).first == first) {
    out.pop_back();
  }
  out.push_back({other, depth - first});
  return true;
}

bool ResumeScan::need_last(std::uint16_t group,
                           std::uint32_t depth,
                           std::vector<Cover>& out) const {
  const Group& shape = groups_[group];
  const std::uint32_t cell = shape.block_tokens;
  const std::uint32_t from = std::max(depth > shape.window ? depth - shape.window : 0, from_);
  const auto& blocks = tracks_[group].blocks;
  for (std::uint32_t first = from / cell * cell; first < depth; first += cell) {
    const std::uint32_t to = std::min(depth, first + cell);
    ObjectIx found = kNil;
    const auto it = std::partition_point(
        blocks.begin(), blocks.end(), [&](ObjectIx o) { return index_->object(o).end < to; });
    if (it != blocks.end() && index_->object(*it).first == first) found = *it;
    if (found == kNil) {
      found = index_->find_cover(
          {index_->node_at(position_.node, to), to}, group, first, to, first + cell);
    }
    if (found == kNil) return false;
    out.push_back({found, to - first});
  }
  return true;
}

bool ResumeScan::needs(std::uint32_t depth, std::vector<Cover>& out) const {
  out.clear();
  if (depth > position_.at) return false;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const auto group = static_cast<std::uint16_t>(g);
    // What an object that ends at e holds of a group that looks ahead serves depth e - lookahead.
    const std::uint32_t reach = depth + groups_[g].lookahead;
    if (reach < depth || reach > position_.at) return false;
    if (groups_[g].need == Need::every && !need_every(group, reach, out)) return false;
    if (groups_[g].need == Need::last && !need_last(group, reach, out)) return false;
    if (groups_[g].need != Need::end) continue;
    const auto& list = tracks_[g].blocks;
    const auto it = std::find_if(
        list.begin(), list.end(), [&](ObjectIx o) { return index_->object(o).end == reach; });
    if (it == list.end()) return false;
    out.push_back({*it, 0});
  }
  return true;
}

std::uint32_t ResumeScan::allowed(std::uint32_t depth, const ResumeLimits& limits) const {
  while (depth > from_) {
    const std::uint32_t over = (depth - limits.grid_from) % limits.grid;
    if (over > depth) return 0;
    depth -= over;
    const auto inside = std::find_if(marks_.begin(), marks_.end(), [&](const Mark& mark) {
      return mark.atomic != 0 && mark.at < depth && depth - mark.at < mark.length;
    });
    if (inside == marks_.end()) return depth;
    depth = inside->at;
  }
  return 0;
}

bool ResumeScan::windows(std::uint32_t depth, std::uint32_t& below) const {
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const Group& shape = groups_[g];
    if (shape.need != Need::last) continue;
    std::uint32_t missing = position_.at + 1;
    if (depth + shape.lookahead <= position_.at) {
      scratch_.clear();
      const std::uint32_t reach = depth + shape.lookahead;
      if (need_last(static_cast<std::uint16_t>(g), reach, scratch_)) continue;
      // Named were the cells before the first that is missing.
      const std::uint32_t from = std::max(reach > shape.window ? reach - shape.window : 0, from_);
      const auto cells =
          from / shape.block_tokens + static_cast<std::uint32_t>(scratch_.size()) + 1;
      missing = std::min(reach, cells * shape.block_tokens);
    }
    below = missing - std::min(missing, shape.lookahead);
    return false;
  }
  return true;
}

std::uint32_t ResumeScan::break_below(std::uint32_t depth) const {
  std::uint32_t best = 0;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const std::uint32_t ahead = groups_[g].lookahead;
    const std::uint32_t reach = std::min(depth + ahead, position_.at);
    const auto offer = [&](std::uint32_t end) {
      if (end > ahead && end - ahead < depth) best = std::max(best, end - ahead);
    };
    offer(index_->node(index_->node_at(position_.node, reach)).start);
    offer(tracks_[g].covered);
    offer(position_.at);
    if (groups_[g].need != Need::last) continue;
    const auto& blocks = tracks_[g].blocks;
    const auto it = std::partition_point(
        blocks.begin(), blocks.end(), [&](ObjectIx o) { return index_->object(o).end < reach; });
    if (it != blocks.begin()) offer(index_->object(*std::prev(it)).end);
  }
  return best;
}

std::uint32_t ResumeScan::deepest(const ResumeLimits& limits) const {
  std::uint32_t depth = allowed(std::min(stored_, limits.at_most), limits);
  while (depth > from_) {
    std::uint32_t below = depth;
    if (windows(depth, below) && needs(depth, scratch_)) return depth;
    depth = allowed(break_below(std::min(depth, below)), limits);
  }
  return 0;
}

std::size_t ResumeScan::depths(const ResumeLimits& limits,
                               std::size_t max_count,
                               std::vector<Usable>& out) const {
  std::size_t count = 0;
  const auto add = [&](std::uint32_t depth) {
    if (count == out.size()) out.emplace_back();
    out[count].depth = depth;
    out[count].covers.swap(scratch_);
    ++count;
  };
  if (!has_end_) {
    if (const std::uint32_t depth = deepest(limits); depth > from_) add(depth);
    return count;
  }
  const auto consider = [&](std::uint32_t depth) {
    if (depth <= from_ || depth > limits.at_most || (depth - limits.grid_from) % limits.grid != 0)
      return;
    if (count > 0 && out[count - 1].depth == depth) return;
    if (!inside_mark(depth) && needs(depth, scratch_)) add(depth);
  };
  const auto ends = std::find_if(
      groups_.begin(), groups_.end(), [](const Group& g) { return g.need == Need::end; });
  const auto& states = tracks_[static_cast<std::size_t>(ends - groups_.begin())].blocks;
  for (auto it = states.rbegin(); it != states.rend() && count < max_count; ++it) {
    const std::uint32_t end = index_->object(*it).end;
    if (end > ends->lookahead) consider(end - ends->lookahead);
  }
  std::reverse(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(count));
  return count;
}

}  // namespace statecached
