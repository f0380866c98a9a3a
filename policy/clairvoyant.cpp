#include "policy/clairvoyant.hpp"

#include <algorithm>

namespace statecached {

Future::Future() : root_(tree_.add_root(0)) {}

void Future::add(std::span<const Token> tokens, std::uint32_t prompt) {
  Request request{root_, root_};
  if (!tokens.empty()) {
    const Position end = tree_.insert({root_, 0}, {tokens, {}, 0}, Instant{});
    request.all = tree_.split(end);
    request.prompt = request.all;
    // The node that was split keeps its name and its end; the one above it is new.
    if (prompt < tokens.size())
      request.prompt =
          prompt == 0 ? root_ : tree_.split({tree_.node_at(request.all, prompt), prompt});
  }
  requests_.push_back(request);
}

void Future::seal() {
  uses_.assign(tree_.node_slots(), {});
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    for (NodeIx n = requests_[i].prompt; n != kNil; n = tree_.node(n).parent)
      uses_[n].push_back(static_cast<std::uint32_t>(i));
  }
}

void Future::start(std::uint64_t request) {
  now_ = request;
  path_.clear();
  for (NodeIx n = requests_.at(request).all; n != kNil; n = tree_.node(n).parent)
    path_.push_back(n);
  std::reverse(path_.begin(), path_.end());
}

NodeIx Future::place(std::uint32_t depth) const {
  const auto it =
      std::lower_bound(path_.begin(), path_.end(), depth, [&](NodeIx n, std::uint32_t at) {
        return tree_.node(n).end < at;
      });
  return it == path_.end() ? kNil : *it;
}

std::uint64_t Future::next_use(NodeIx place, NodeIx but_not) const {
  if (place == kNil) return kNever;
  const auto& all = uses_[place];
  auto it = std::upper_bound(all.begin(), all.end(), now_);
  if (but_not == kNil || but_not == place) return it == all.end() ? kNever : *it;
  const auto& others = uses_[but_not];
  auto other = std::upper_bound(others.begin(), others.end(), now_);
  for (; it != all.end(); ++it) {
    while (other != others.end() && *other < *it)
      ++other;
    if (other == others.end() || *other != *it) return *it;
  }
  return kNever;
}

std::vector<std::uint32_t> Future::partings(std::uint32_t limit, std::uint32_t grid) const {
  std::vector<std::uint32_t> out;
  for (std::size_t i = 1; i < path_.size(); ++i) {
    const std::uint32_t end = tree_.node(path_[i]).end;
    if (end > limit) break;
    const NodeIx next = i + 1 < path_.size() ? path_[i + 1] : kNil;
    const bool parts =
        next == kNil ? next_use(path_[i], kNil) != kNever : next_use(path_[i], next) != kNever;
    const std::uint32_t at = end - end % grid;
    if (parts && at > 0 && (out.empty() || out.back() != at)) out.push_back(at);
  }
  return out;
}

void Clairvoyant::locate(NodeIx node) {
  if (node >= entries_.size()) entries_.resize(node + 1U);
  Entry& entry = entries_[node];
  const Node& known = index_->node(node);
  if (entry.serial == known.serial) return;
  erase(node);
  entry = Entry{};
  entry.serial = known.serial;
  entry.place = future_.place(known.end);
}

void Clairvoyant::passed(NodeIx node) {
  locate(node);
}

/// A checkpoint above another is used only by those who part between them.
std::uint64_t Clairvoyant::next_use(NodeIx ix) const {
  NodeIx below = kNil;
  for (NodeIx c = index_->node(ix).first_child; c != kNil; c = index_->node(c).next_sibling) {
    const Node& child = index_->node(c);
    if (c >= entries_.size() || entries_[c].serial != child.serial) continue;
    if (!child.has_state()) continue;
    below = entries_[c].place;
    break;
  }
  return future_.next_use(entries_[ix].place, below);
}

void Clairvoyant::put(const Candidate& candidate, Instant now) {
  static_cast<void>(now);
  locate(candidate.node);  // a node that is new is one of the current request's
  erase(candidate.node);
  Entry& entry = entries_[candidate.node];
  entry.efficiency = candidate.efficiency;
  entry.bytes = candidate.bytes;
  entry.lane = static_cast<std::uint8_t>(candidate.lane);
  entry.next = next_use(candidate.node);
  entry.present = true;
  queues_[entry.lane].insert(candidate.node);
  bytes_[entry.lane] += entry.bytes;
}

void Clairvoyant::erase(NodeIx node) {
  if (!contains(node)) return;
  Entry& entry = entries_[node];
  queues_[entry.lane].erase(node);
  bytes_[entry.lane] -= entry.bytes;
  entry.present = false;
}

NodeIx Clairvoyant::best(Lane lane, Instant now) {
  static_cast<void>(now);
  NodeIx choice = kNil;
  double least = 0;
  for (const NodeIx node : queues_[static_cast<std::size_t>(lane)]) {
    Entry& entry = entries_[node];
    if (entry.next != Future::kNever && entry.next <= future_.now()) entry.next = next_use(node);
    const double value = entry.next == Future::kNever
                             ? 0
                             : entry.efficiency / static_cast<double>(entry.next - future_.now());
    if (choice != kNil && value >= least) continue;
    choice = node;
    least = value;
    if (value <= 0) break;
  }
  return choice;
}

}  // namespace statecached
