#include "policy/index.hpp"

#include <boost/container/small_vector.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <bit>

namespace statecached {
namespace {

/// Nodes looked at when a block may lie on another branch: what one request may cost.
constexpr int kCoverVisitsMax = 64;
/// What a remembered node itself takes, in tokens of 4 bytes: about.
constexpr std::uint64_t kNodeTokens = 128;

std::uint32_t common_tokens(const Token* a, const Token* b, std::uint32_t n) noexcept {
  std::uint32_t i = 0;
  constexpr std::uint32_t kPages = 1024;  // agreement is long or short, seldom in between
  while (i + kPages <= n && std::memcmp(a + i, b + i, kPages * sizeof(Token)) == 0)
    i += kPages;
  constexpr std::uint32_t kChunk = 64;
  while (i + kChunk <= n && std::memcmp(a + i, b + i, kChunk * sizeof(Token)) == 0)
    i += kChunk;
  while (i < n && a[i] == b[i])
    ++i;
  return i;
}

/// First position in [from, to) where the marks that begin there differ; `to` when none does.
std::uint32_t common_marks(std::span<const Mark> a,
                           std::span<const Mark> b,
                           std::uint32_t from,
                           std::uint32_t to) {
  const auto begins = [](const Mark& mark, std::uint32_t at) { return mark.at < at; };
  auto i = std::lower_bound(a.begin(), a.end(), from, begins);
  auto j = std::lower_bound(b.begin(), b.end(), from, begins);
  while (true) {
    const std::uint32_t at_a = i == a.end() ? to : std::min(i->at, to);
    const std::uint32_t at_b = j == b.end() ? to : std::min(j->at, to);
    if (at_a >= to && at_b >= to) return to;
    if (at_a != at_b) return std::min(at_a, at_b);
    if (!(*i == *j)) return at_a;
    ++i;
    ++j;
  }
}

std::uint64_t& bytes_of(Node& node, const Object& object, std::size_t tier) {
  return object.need == Need::end ? node.state_bytes[tier] : node.kv_bytes[tier];
}

}  // namespace

NodeIx Index::new_node() {
  if (!free_nodes_.empty()) {
    const NodeIx ix = free_nodes_.back();
    free_nodes_.pop_back();
    nodes_[ix] = Node{};
    nodes_[ix].alive = true;
    nodes_[ix].serial = next_serial_++;
    return ix;
  }
  nodes_.emplace_back().alive = true;
  nodes_.back().serial = next_serial_++;
  return static_cast<NodeIx>(nodes_.size() - 1);
}

NodeIx Index::add_root(std::uint32_t space, SymbolShape shape) {
  const NodeIx ix = new_node();
  nodes_[ix].space = space;
  nodes_[ix].shape = shape;
  nodes_[ix].references = 1;  // never pruned
  return ix;
}

void Index::link(NodeIx ix) {
  Node& node = nodes_[ix];
  Node& parent = nodes_[node.parent];
  node.previous_sibling = kNil;
  node.next_sibling = parent.first_child;
  if (parent.first_child != kNil) nodes_[parent.first_child].previous_sibling = ix;
  parent.first_child = ix;
  auto [slot, fresh] = edges_.try_emplace(edge_key(node.parent, *node.at(node.start)), ix);
  node.alike = kNil;
  if (!fresh) {
    node.alike = slot->second;
    slot->second = ix;
  }
}

void Index::unlink(NodeIx ix) {
  Node& node = nodes_[ix];
  if (node.previous_sibling != kNil) {
    nodes_[node.previous_sibling].next_sibling = node.next_sibling;
  } else {
    nodes_[node.parent].first_child = node.next_sibling;
  }
  if (node.next_sibling != kNil) nodes_[node.next_sibling].previous_sibling = node.previous_sibling;
  const auto slot = edges_.find(edge_key(node.parent, *node.at(node.start)));
  SC_ASSERT(slot != edges_.end());
  if (slot->second == ix) {
    if (node.alike == kNil) {
      edges_.erase(slot);
    } else {
      slot->second = node.alike;
    }
    return;
  }
  NodeIx before = slot->second;
  while (nodes_[before].alike != ix)
    before = nodes_[before].alike;
  nodes_[before].alike = node.alike;
}

std::uint32_t Index::agreement(const Node& node,
                               std::uint32_t from,
                               const Sequence& sequence) const {
  const std::uint32_t to = std::min(node.end, sequence.end());
  if (to <= from) return from;
  const SymbolShape& shape = node.shape;
  const std::uint32_t words = (to - from) / shape.tokens * shape.words;
  const std::uint32_t same =
      from + common_tokens(node.at(from), sequence.at(from), words) / shape.words * shape.tokens;
  if (node.marks.empty() && sequence.marks.empty()) return same;
  return common_marks(node.marks, sequence.marks, from, same);
}

NodeIx Index::child(NodeIx parent,
                    std::uint32_t at,
                    const Sequence& sequence,
                    std::uint32_t& agree) const {
  const auto slot = edges_.find(edge_key(parent, *sequence.at(at)));
  if (slot == edges_.end()) return kNil;
  for (NodeIx ix = slot->second; ix != kNil; ix = nodes_[ix].alike) {
    agree = agreement(nodes_[ix], at, sequence);
    if (agree > at) return ix;
  }
  return kNil;
}

Position Index::match(Position from, const Sequence& sequence, std::vector<NodeIx>* path) const {
  Position here = from;
  if (here.at < nodes_[here.node].end) {
    here.at = agreement(nodes_[here.node], here.at, sequence);
    if (here.at < nodes_[here.node].end) return here;
  }
  while (here.at < sequence.end()) {
    std::uint32_t agree = here.at;
    const NodeIx next = child(here.node, here.at, sequence, agree);
    if (next == kNil) return here;
    here = {next, agree};
    if (path != nullptr) path->push_back(next);
    if (agree < nodes_[next].end) return here;
  }
  return here;
}

Position Index::insert(Position from, const Sequence& sequence, Instant now) {
  Position here = match(from, sequence);
  if (here.at >= sequence.end()) return here;
  const NodeIx above = split(here);
  const NodeIx ix = new_node();
  Node& node = nodes_[ix];
  node.parent = above;
  node.space = nodes_[above].space;
  node.shape = nodes_[above].shape;
  node.start = here.at;
  node.end = sequence.end();
  const std::uint32_t count = (node.end - node.start) / node.shape.tokens * node.shape.words;
  auto copy = std::make_shared_for_overwrite<Token[]>(count);
  std::copy_n(sequence.at(node.start), count, copy.get());
  node.symbols = std::move(copy);
  for (const Mark& mark : sequence.marks) {
    if (mark.at >= node.start && mark.at < node.end) node.marks.push_back(mark);
  }
  node.last_use = now;
  link(ix);
  if (node.shape.scope != 0) register_pages(ix);
  const Position end{ix, nodes_[ix].end};
  keep_in_mind(ix);
  return end;
}

Position Index::grow(Position from, const Sequence& sequence, Instant now) {
  const Position here = match(from, sequence);
  if (here.at >= sequence.end()) return here;
  Node& node = nodes_[here.node];
  const bool open = here.at == node.end && node.parent != kNil && node.first_child == kNil &&
                    node.references == 0 && !node.chain &&
                    (node.objects.empty() || objects_[node.objects.back()].need != Need::end);
  if (!open) return insert(here, sequence, now);
  const std::uint32_t had = node.end - node.start;
  const std::uint32_t more = sequence.end() - node.end;
  const std::uint32_t need = node.symbols_offset + had + more;
  if (node.symbols.use_count() != 1 || node.symbols_room < need) {
    const std::uint32_t room = std::bit_ceil(had + more);
    auto copy = std::make_shared_for_overwrite<Token[]>(room);
    std::copy_n(node.at(node.start), had, copy.get());
    node.symbols = std::move(copy);
    node.symbols_offset = 0;
    node.symbols_room = room;
  }
  // Nobody else has the array, and no view of it goes beyond the old end.
  Token* tail = const_cast<Token*>(node.symbols.get()) + node.symbols_offset + had;
  std::copy_n(sequence.tokens.data() + (node.end - sequence.base), more, tail);
  for (const Mark& mark : sequence.marks) {
    if (mark.at >= node.end && mark.at < sequence.end()) node.marks.push_back(mark);
  }
  if (node.remembered != 0) remembered_tokens_ += more;
  node.end = sequence.end();
  node.last_use = std::max(node.last_use, now);
  return {here.node, node.end};
}

NodeIx Index::split(Position position) {
  if (position.at == nodes_[position.node].end) return position.node;
  SC_ASSERT(position.at > nodes_[position.node].start);
  const NodeIx upper_ix = new_node();
  Node& lower = nodes_[position.node];
  Node& upper = nodes_[upper_ix];
  unlink(position.node);
  upper.parent = lower.parent;
  upper.space = lower.space;
  upper.shape = lower.shape;
  upper.start = lower.start;
  upper.end = position.at;
  upper.symbols = lower.symbols;
  upper.symbols_offset = lower.symbols_offset;
  upper.last_use = lower.last_use;
  upper.used = lower.used;
  if (remember_tokens_ == 0) upper.hits = lower.hits;
  lower.symbols_offset += (position.at - lower.start) / lower.shape.tokens * lower.shape.words;
  lower.start = position.at;
  lower.parent = upper_ix;
  const auto mark_cut = std::find_if(lower.marks.begin(), lower.marks.end(), [&](const Mark& mark) {
    return mark.at >= position.at;
  });
  upper.marks.assign(lower.marks.begin(), mark_cut);
  lower.marks.erase(lower.marks.begin(), mark_cut);
  const auto cut = std::find_if(lower.objects.begin(), lower.objects.end(), [&](ObjectIx ix) {
    return objects_[ix].end > position.at;
  });
  upper.objects.assign(lower.objects.begin(), cut);
  lower.objects.erase(lower.objects.begin(), cut);
  for (ObjectIx ix : upper.objects) {
    Object& object = objects_[ix];
    object.node = upper_ix;
    for (std::size_t t = 0; t < kTiers; ++t) {
      if (!object.in(t)) continue;
      ++upper.in_tier[t];
      --lower.in_tier[t];
      bytes_of(upper, object, t) += object.bytes;
      bytes_of(lower, object, t) -= object.bytes;
    }
  }
  link(upper_ix);
  link(position.node);
  if (upper.shape.scope != 0) relist_pages(upper_ix, position.node);
  if (lower.remembered != 0) remembered_tokens_ -= upper.end - upper.start;
  if (upper.objects.empty()) keep_in_mind(upper_ix);
  if (lower.objects.empty()) keep_in_mind(position.node);
  return upper_ix;
}

NodeIx Index::node_at(NodeIx ix, std::uint32_t at) const {
  while (nodes_[ix].parent != kNil && nodes_[ix].start >= at)
    ix = nodes_[ix].parent;
  return ix;
}

void Index::unreference(NodeIx ix) {
  SC_ASSERT(nodes_[ix].references > 0);
  --nodes_[ix].references;
  if (remembered_tokens_ > remember_tokens_) forget_oldest();
  prune(ix);
}

void Index::keep_in_mind(NodeIx ix) {
  Node& node = nodes_[ix];
  // Runs of keys may move (graft), and a root that floats waits until nothing hangs on it.
  if (remember_tokens_ == 0 || node.remembered != 0 || node.parent == kNil || node.shape.scope != 0)
    return;
  node.remembered = next_remembered_++;
  remembered_tokens_ += kNodeTokens + (node.end - node.start);
  remembered_.emplace_back(ix, node.remembered);
}

void Index::forget_oldest() {
  while (remembered_tokens_ > remember_tokens_ && !remembered_.empty()) {
    const auto [ix, number] = remembered_.front();
    remembered_.pop_front();
    Node& node = nodes_[ix];
    if (!node.alive || node.remembered != number) continue;
    node.remembered = 0;
    remembered_tokens_ -= kNodeTokens + (node.end - node.start);
    prune(ix);
  }
}

void Index::prune(NodeIx ix) {
  while (ix != kNil) {
    Node& node = nodes_[ix];
    if (!node.alive || node.references > 0 || node.first_child != kNil || !node.objects.empty() ||
        (node.parent == kNil && !node.floating) || node.remembered != 0) {
      return;
    }
    const NodeIx parent = node.parent;
    if (parent == kNil) {
      forget_floating(ix);
    } else {
      unlink(ix);
      if (node.shape.scope != 0) relist_pages(ix, kNil);
    }
    node = Node{};
    free_nodes_.push_back(ix);
    ix = parent;
  }
}

ObjectIx Index::add_object(NodeIx node_ix, const Object& prototype) {
  ObjectIx ix = 0;
  if (!free_objects_.empty()) {
    ix = free_objects_.back();
    free_objects_.pop_back();
  } else {
    ix = static_cast<ObjectIx>(objects_.size());
    objects_.emplace_back();
  }
  Object& object = objects_[ix];
  object = prototype;
  object.node = node_ix;
  object.state = ObjectState::writing;
  object.tiers = 0;
  object.holds = 0;
  object.dependents = {};
  Node& node = nodes_[node_ix];
  SC_ASSERT(object.end <= node.end && (object.end > node.start));
  const auto place =
      std::upper_bound(node.objects.begin(), node.objects.end(), ix, [&](ObjectIx a, ObjectIx b) {
        return std::pair{objects_[a].end, objects_[a].first} <
               std::pair{objects_[b].end, objects_[b].first};
      });
  node.objects.insert(place, ix);
  if (node.remembered != 0) {
    node.remembered = 0;
    remembered_tokens_ -= kNodeTokens + (node.end - node.start);
  }
  ++objects_alive_;
  return ix;
}

void Index::remove_object(ObjectIx ix) {
  Object& object = objects_[ix];
  SC_ASSERT(object.state != ObjectState::free && object.tiers == 0 && object.holds == 0);
  Node& node = nodes_[object.node];
  const auto from = static_cast<std::ptrdiff_t>(first_ending(node, object.end));
  node.objects.erase(std::find(node.objects.begin() + from, node.objects.end(), ix));
  const NodeIx at = object.node;
  object = Object{};
  free_objects_.push_back(ix);
  --objects_alive_;
  if (node.objects.empty()) keep_in_mind(at);
  forget_oldest();
  prune(at);
}

void Index::shorten(ObjectIx ix, std::uint32_t end) {
  Object& object = objects_[ix];
  SC_ASSERT(object.tiers == 0 && end > object.first && end <= object.end);
  if (end == object.end) return;
  Node& old = nodes_[object.node];
  old.objects.erase(std::find(old.objects.begin(), old.objects.end(), ix));
  const NodeIx target = node_at(object.node, end);
  object.end = end;
  object.node = target;
  object.full = false;
  auto& list = nodes_[target].objects;
  const auto place = std::upper_bound(list.begin(), list.end(), ix, [&](ObjectIx a, ObjectIx b) {
    return std::pair{objects_[a].end, objects_[a].first} <
           std::pair{objects_[b].end, objects_[b].first};
  });
  list.insert(place, ix);
}

void Index::enter(ObjectIx ix, Tier tier) {
  Object& object = objects_[ix];
  SC_ASSERT(!object.in(tier));
  object.tiers = static_cast<std::uint8_t>(object.tiers | 1U << index(tier));
  ++nodes_[object.node].in_tier[index(tier)];
  bytes_of(nodes_[object.node], object, index(tier)) += object.bytes;
  for (ObjectIx parent : object.parents) {
    if (parent != kNil) ++objects_[parent].dependents[index(tier)];
  }
}

void Index::leave(ObjectIx ix, Tier tier) {
  Object& object = objects_[ix];
  SC_ASSERT(object.in(tier));
  object.tiers = static_cast<std::uint8_t>(object.tiers & ~(1U << index(tier)));
  --nodes_[object.node].in_tier[index(tier)];
  bytes_of(nodes_[object.node], object, index(tier)) -= object.bytes;
  for (ObjectIx parent : object.parents) {
    if (parent != kNil) --objects_[parent].dependents[index(tier)];
  }
}

bool Index::may_leave(const Object& object, Tier tier) const noexcept {
  if (tier == Tier::nvme && object.dependents[index(Tier::nvme)] != 0) return false;
  const std::uint8_t rest = static_cast<std::uint8_t>(object.tiers & ~(1U << index(tier)));
  for (std::size_t t = 0; t < kTiers; ++t) {
    if ((std::uint32_t{rest} >> t & 1U) != 0) return true;
    if (object.dependents[t] != 0) return false;
  }
  return true;
}

std::size_t Index::first_ending(const Node& node, std::uint32_t end) const noexcept {
  const auto it = std::lower_bound(
      node.objects.begin(), node.objects.end(), end, [&](ObjectIx ix, std::uint32_t value) {
        return objects_[ix].end < value;
      });
  return static_cast<std::size_t>(it - node.objects.begin());
}

ObjectIx Index::find(NodeIx node,
                     std::uint16_t group,
                     std::uint32_t first,
                     std::uint32_t end) const {
  const Node& home = nodes_[node_at(node, end)];
  auto it = std::lower_bound(
      home.objects.begin(), home.objects.end(), end, [&](ObjectIx ix, std::uint32_t value) {
        return objects_[ix].end < value;
      });
  for (; it != home.objects.end() && objects_[*it].end == end; ++it) {
    const Object& object = objects_[*it];
    if (object.group == group && object.first == first) return *it;
  }
  return kNil;
}

ObjectIx Index::find_cover(Position position,
                           std::uint16_t group,
                           std::uint32_t first,
                           std::uint32_t to,
                           std::uint32_t cell_end,
                           ObjectIx except) const {
  const NodeIx top = node_at(position.node, to);
  boost::container::small_vector<NodeIx, 16> stack{top};
  for (int visits = 0; !stack.empty() && visits < kCoverVisitsMax; ++visits) {
    const Node& here = nodes_[stack.back()];
    stack.pop_back();
    auto it = std::lower_bound(
        here.objects.begin(), here.objects.end(), to, [&](ObjectIx ix, std::uint32_t value) {
          return objects_[ix].end < value;
        });
    for (; it != here.objects.end() && objects_[*it].end <= cell_end; ++it) {
      const Object& object = objects_[*it];
      if (object.group == group && object.first == first && object.state == ObjectState::visible &&
          *it != except)
        return *it;
    }
    if (here.end >= cell_end) continue;
    for (NodeIx c = here.first_child; c != kNil; c = nodes_[c].next_sibling)
      stack.push_back(c);
  }
  return kNil;
}

std::string Index::check() const {
  std::vector<std::array<std::uint32_t, kTiers>> dependents(objects_.size());
  std::uint64_t alive = 0;
  for (ObjectIx ix = 0; ix < objects_.size(); ++ix) {
    const Object& object = objects_[ix];
    if (object.state == ObjectState::free) continue;
    ++alive;
    const Node& node = nodes_[object.node];
    if (!node.alive || object.end <= node.start || object.end > node.end) {
      return fmt::format("object {} is not in the node that contains its end", ix);
    }
    for (ObjectIx parent : object.parents) {
      if (parent == kNil) continue;
      const Object& above = objects_[parent];
      if (above.state == ObjectState::free || !above.full)
        return fmt::format("object {} hangs on nothing", ix);
      for (std::size_t t = 0; t < kTiers; ++t) {
        if (!object.in(t)) continue;
        ++dependents[parent][t];
        if (above.tiers == 0 || (t == index(Tier::nvme) && !above.in(Tier::nvme))) {
          return fmt::format(
              "object {} is in tier {} and its parent is nowhere it could be used from", ix, t);
        }
      }
    }
  }
  if (alive != objects_alive_) return "the number of objects does not add up";
  for (ObjectIx ix = 0; ix < objects_.size(); ++ix) {
    if (objects_[ix].state != ObjectState::free && dependents[ix] != objects_[ix].dependents) {
      return fmt::format("dependents of object {} do not add up", ix);
    }
  }
  for (NodeIx ix = 0; ix < nodes_.size(); ++ix) {
    const Node& node = nodes_[ix];
    if (!node.alive) continue;
    std::array<std::uint32_t, kTiers> in_tier{};
    for (ObjectIx o : node.objects) {
      if (objects_[o].node != ix)
        return fmt::format("object {} is listed in a node that is not its own", o);
      for (std::size_t t = 0; t < kTiers; ++t)
        in_tier[t] += objects_[o].in(t) ? 1U : 0U;
    }
    if (in_tier != node.in_tier) return fmt::format("node {} miscounts its tiers", ix);
    if (node.parent != kNil && nodes_[node.parent].end != node.start)
      return fmt::format("node {} floats", ix);
  }
  return check_pages();
}

}  // namespace statecached
