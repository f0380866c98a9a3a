// Keyed scopes: the table of pages, and runs whose place in the tree is found later.

#include "policy/index.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace statecached {

PageName Index::page_name(const SymbolShape& shape, const Token* words) noexcept {
  PageName out;
  out.scope = shape.scope;
  std::memcpy(out.key.bytes.data(),
              words,
              std::min<std::size_t>(shape.words * sizeof(Token), out.key.bytes.size()));
  return out;
}

void Index::register_pages(NodeIx ix) {
  const Node& node = nodes_[ix];
  for (std::uint32_t at = node.start; at < node.end; at += node.shape.tokens) {
    const Token* words = node.at(at);
    // A key that is there already was given two predecessors by its engine: the first one holds.
    pages_.try_emplace(page_name(node.shape, words),
                       PageAt{ix, static_cast<std::uint32_t>(words - node.symbols.get())});
  }
}

void Index::relist_pages(NodeIx ix, NodeIx from) {
  const Node& node = nodes_[ix];
  for (std::uint32_t at = node.start; at < node.end; at += node.shape.tokens) {
    const auto it = pages_.find(page_name(node.shape, node.at(at)));
    if (it == pages_.end() || it->second.node != (from == kNil ? ix : from)) continue;
    if (from == kNil) {
      pages_.erase(it);
    } else {
      it->second.node = ix;
    }
  }
}

Position Index::find_page(const PageName& name) const {
  const auto it = pages_.find(name);
  if (it == pages_.end()) return {};
  const Node& node = nodes_[it->second.node];
  const std::uint32_t at = page_position(node, it->second.word);
  return {at == node.start ? node.parent : it->second.node, at};
}

Position Index::find_after(const PageName& name) const {
  if (const auto it = pages_.find(name); it != pages_.end()) {
    const Node& node = nodes_[it->second.node];
    return {it->second.node, page_position(node, it->second.word) + node.shape.tokens};
  }
  const auto it = waiting_.find(name);
  return it == waiting_.end() ? Position{} : Position{it->second, nodes_[it->second].end};
}

NodeIx Index::add_floating_root(std::uint32_t space,
                                SymbolShape shape,
                                std::uint32_t depth,
                                const std::optional<Digest>& after) {
  const NodeIx ix = new_node();
  Node& root = nodes_[ix];
  root.space = space;
  root.shape = shape;
  root.start = root.end = depth;
  root.floating = true;
  floating_.emplace(ix, after);
  if (after) waiting_.emplace(PageName{shape.scope, *after}, ix);
  return ix;
}

void Index::forget_floating(NodeIx ix) {
  const auto it = floating_.find(ix);
  if (it == floating_.end()) return;
  if (it->second) {
    const auto waits = waiting_.find(PageName{nodes_[ix].shape.scope, *it->second});
    if (waits != waiting_.end() && waits->second == ix) waiting_.erase(waits);
  }
  floating_.erase(it);
}

NodeIx Index::root_of(NodeIx ix) const {
  while (nodes_[ix].parent != kNil)
    ix = nodes_[ix].parent;
  return ix;
}

std::optional<Digest> Index::waits_for(NodeIx root) const {
  const auto it = floating_.find(root);
  return it == floating_.end() ? std::nullopt : it->second;
}

NodeIx Index::floating_head(const PageName& name) const {
  const auto it = pages_.find(name);
  if (it == pages_.end()) return kNil;
  const Node& node = nodes_[it->second.node];
  if (page_position(node, it->second.word) != node.start || !nodes_[node.parent].floating)
    return kNil;
  return node.parent;
}

/// Moves all that hangs on a floating root below `here`. False: `here` lies in that very run,
/// nothing hangs there, or it would become too deep.
bool Index::graft(NodeIx root, Position here) {
  if (nodes_[root].first_child == kNil || root_of(here.node) == root) return false;
  std::uint32_t deepest = nodes_[root].end;
  std::vector<NodeIx> looked_at{root};
  while (!looked_at.empty()) {
    const Node& node = nodes_[looked_at.back()];
    looked_at.pop_back();
    deepest = std::max(deepest, node.end);
    for (NodeIx child = node.first_child; child != kNil; child = nodes_[child].next_sibling)
      looked_at.push_back(child);
  }
  if (here.at > kPositionMax - (deepest - nodes_[root].end)) return false;
  const NodeIx above = split(here);
  const std::uint32_t shift = here.at - nodes_[root].end;
  std::vector<NodeIx> stack;
  while (nodes_[root].first_child != kNil) {
    const NodeIx child = nodes_[root].first_child;
    unlink(child);
    nodes_[child].parent = above;
    link(child);
    stack.push_back(child);
  }
  while (!stack.empty()) {
    Node& node = nodes_[stack.back()];
    stack.pop_back();
    node.start += shift;
    node.end += shift;
    for (ObjectIx o : node.objects) {
      objects_[o].first += shift;
      objects_[o].end += shift;
    }
    for (NodeIx child = node.first_child; child != kNil; child = nodes_[child].next_sibling)
      stack.push_back(child);
  }
  forget_floating(root);
  moved_.push_back({root, above, shift});
  return true;
}

std::string Index::check_pages() const {
  for (const auto& [name, at] : pages_) {
    const Node& node = nodes_[at.node];
    if (!node.alive || node.shape.scope != name.scope)
      return "a page is listed under a node that is not there";
    const std::uint32_t position = page_position(node, at.word);
    if (position < node.start || position >= node.end)
      return fmt::format("a page is listed under node {}, which does not hold it", at.node);
    if (page_name(node.shape, node.at(position)) != name)
      return fmt::format("node {} holds another page than the table says", at.node);
  }
  for (NodeIx ix = 0; ix < nodes_.size(); ++ix) {
    const Node& node = nodes_[ix];
    if (!node.alive) continue;
    if (node.floating != floating_.contains(ix) && node.first_child != kNil)
      return fmt::format("floating root {} is not listed", ix);
    if (node.shape.scope == 0 || node.parent == kNil) continue;
    for (std::uint32_t at = node.start; at < node.end; at += node.shape.tokens) {
      if (!pages_.contains(page_name(node.shape, node.at(at))))
        return fmt::format("a page of node {} is not listed", ix);
    }
  }
  for (const auto& [name, root] : waiting_) {
    const auto it = floating_.find(root);
    if (it == floating_.end() || it->second != name.key)
      return "a key is waited for by a root that is not there";
  }
  return {};
}

Position Index::match_run(Position from, const Sequence& run, std::vector<NodeIx>* path) {
  while (true) {
    from.node = node_at(from.node, from.at);
    if (path != nullptr) {
      path->clear();
      if (from.at < nodes_[from.node].end) path->push_back(from.node);
    }
    const Position here = match(from, run, path);
    if (here.at >= run.end() || floating_.empty()) return here;
    const SymbolShape shape = nodes_[here.node].shape;
    const NodeIx root = floating_head(page_name(shape, run.at(here.at)));
    if (root == kNil || !graft(root, here)) return here;
  }
}

Position Index::insert_run(Position from, const Sequence& run, Instant now) {
  const SymbolShape shape = nodes_[from.node].shape;
  Position here = match_run(from, run, nullptr);
  const auto insert_up_to = [&](std::uint32_t end) {
    Sequence part = run;
    part.tokens = run.tokens.first((end - run.base) / shape.tokens * shape.words);
    from.node = node_at(from.node, from.at);
    here = insert(from, part, now);
  };
  // Where a run that floats goes on inside this one, this one ends for now.
  for (std::uint32_t at = here.at; at < run.end() && !floating_.empty(); at += shape.tokens) {
    const PageName name = page_name(shape, run.at(at));
    if (at > here.at && floating_head(name) != kNil) {
      insert_up_to(at);
      here = match_run(from, run, nullptr);
      if (here.at > at) {
        at = here.at - shape.tokens;
        continue;
      }
    }
    const auto waits = waiting_.find(name);
    if (waits == waiting_.end()) continue;
    const NodeIx root = waits->second;
    insert_up_to(at + shape.tokens);
    if (nodes_[root].first_child != kNil) static_cast<void>(graft(root, here));
    here = match_run(from, run, nullptr);
    at = std::max(at, here.at - shape.tokens);
  }
  if (here.at < run.end()) insert_up_to(run.end());
  return here;
}

}  // namespace statecached
