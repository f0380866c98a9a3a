// Where a ticket's sequence lies in the tree; and namespaces that are addressed by keys: the pages
// of a run, and what the catalog says of it. Positions of a ticket count from Ticket::origin; the
// tree may count from elsewhere, and changes its mind when a run that floats finds its predecessor
// (Index::match_run).

#include "daemon/cache/cache_impl.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace statecached {
namespace {

/// A row that begins a floating run carries one mark: at = the depth it floats at, content = the
/// key it waits for, atomic = 1 where there is one.
constexpr std::uint32_t kFloatingMark = 1;

}  // namespace

Result<> CacheImpl::add_keys(Ticket& ticket, std::span<const Digest> keys) const {
  const std::uint64_t size =
      std::uint64_t{ticket.end()} + std::uint64_t{keys.size()} * ticket.shape.tokens;
  if (size > kTokensMax)
    return fail(Errc::invalid_argument,
                fmt::format("a sequence may have {} tokens at most", kTokensMax));
  const std::size_t bytes = spaces_[ticket.space].spec.key_bytes;
  for (const Digest& key : keys) {
    const bool padded = std::all_of(key.bytes.begin() + static_cast<std::ptrdiff_t>(bytes),
                                    key.bytes.end(),
                                    [](std::byte b) { return b == std::byte{0}; });
    if (!padded)
      return fail(Errc::invalid_argument,
                  fmt::format("a key with bytes that are not zero after its {}", bytes));
    std::array<Token, sizeof(Digest) / sizeof(Token)> words{};
    std::memcpy(words.data(), key.bytes.data(), sizeof words);
    ticket.tokens.insert(ticket.tokens.end(),
                         words.begin(),
                         words.begin() + static_cast<std::ptrdiff_t>(ticket.shape.words));
  }
  return {};
}

Result<> CacheImpl::take_run(Ticket& ticket, const BeginRequest& request) {
  const NamespaceSpec& spec = spaces_[ticket.space].spec;
  ticket.origin_known = request.first_token != kUnknown;
  ticket.origin = ticket.origin_known ? request.first_token : 0;
  ticket.after = request.after;
  if (ticket.origin > kTokensMax || ticket.origin % spec.tokens_per_key != 0) {
    return fail(
        Errc::invalid_argument,
        fmt::format("first_token must be a multiple of tokens_per_key, {}", spec.tokens_per_key));
  }
  if (!ticket.origin_known) {
    for (const Group& group : spec.groups) {
      if (group.need == Need::end || group.block_tokens == spec.tokens_per_key) continue;
      return fail(Errc::invalid_argument,
                  fmt::format("blocks of group \"{}\" have several pages: a run of unknown depth "
                              "has no place for them",
                              group.name));
    }
  }
  SC_TRY(add_keys(ticket, request.keys));
  return {};
}

Result<> CacheImpl::append_keys(const TicketName& name,
                                ClientIx client,
                                std::span<const Digest> keys,
                                std::uint32_t computed) {
  SC_ASSIGN(Ticket * ticket, ticket_of(client, name));
  if (ticket->finished)
    return fail(Errc::invalid_argument, "the ticket is finished: its sequence grows no more");
  if (!ticket->keyed())
    return fail(Errc::invalid_argument, "this namespace is addressed by tokens");
  const std::uint64_t size =
      std::uint64_t{ticket->end()} + std::uint64_t{keys.size()} * ticket->shape.tokens;
  if (computed != kUnknown && computed > size)
    return fail(Errc::invalid_argument, "more tokens computed than there are");
  const std::size_t before = ticket->tokens.size();
  if (auto added = add_keys(*ticket, keys); !added) {
    ticket->tokens.resize(before);
    return added;
  }
  ticket->computed = computed == kUnknown ? ticket->end() : computed;
  return {};
}

/// Where the run begins in the tree: at its first key where that is known, else behind the key
/// before it, else on a floating root of its own.
Position CacheImpl::find_start(Ticket& ticket) {
  const auto name = [&](const Token* words) {
    PageName out{ticket.shape.scope, {}};
    std::memcpy(out.key.bytes.data(), words, ticket.shape.words * sizeof(Token));
    return out;
  };
  Position start;
  if (ticket.origin_known && ticket.origin == 0) {
    std::uint32_t number = 0;
    start = {domain_root(ticket.space, ticket.domain, number), 0};
  } else {
    if (!ticket.tokens.empty()) start = index_.find_page(name(ticket.tokens.data()));
    if (start.node == kNil && ticket.after)
      start = index_.find_after({ticket.shape.scope, *ticket.after});
    const bool anchored = ticket.anchor.node != kNil &&
                          index_.root_of(ticket.anchor.node) == ticket.root &&
                          index_.node(ticket.root).floating;
    if (start.node == kNil && anchored) start = {ticket.root, ticket.base};
    if (start.node == kNil) {
      const NodeIx root =
          index_.add_floating_root(ticket.space, ticket.shape, ticket.origin, ticket.after);
      start = {root, ticket.origin};
    }
  }
  ticket.base = start.at;
  ticket.root = index_.root_of(start.node);
  return start;
}

/// Where the sequence leaves the tree; the ticket is anchored there.
Position CacheImpl::match_ticket(Ticket& ticket, std::vector<NodeIx>& path) {
  Position here;
  if (ticket.keyed()) {
    const Position start = find_start(ticket);  // before sequence(), which begins there
    here = index_.match_run(start, ticket.sequence(), &path);
  } else {
    here = index_.match({ticket.root, 0}, ticket.sequence(), &path);
  }
  index_.reference(here.node);
  index_.unreference(ticket.anchor.node);
  ticket.anchor = here;
  follow_moves();
  return here;
}

/// False: it would lie deeper than positions go.
bool CacheImpl::insert_ticket(Ticket& ticket, Instant now) {
  if (ticket.anchor.at == ticket.end() + ticket.offset()) return true;
  const Node& old = index_.node(ticket.anchor.node);
  const bool parts = ticket.anchor.at < old.end;
  const std::uint32_t turns = !parts && old.ends ? old.turns + 1 : 0;
  Position leaf;
  if (ticket.keyed()) {
    const Position start = find_start(ticket);
    if (start.at > kPositionMax - (ticket.end() - ticket.origin)) return false;
    leaf = index_.insert_run(start, ticket.sequence(), now);
  } else {
    const NodeIx from = index_.node_at(ticket.anchor.node, std::max(ticket.anchor.at, 1U));
    leaf = index_.insert({ticket.anchor.at == 0 ? ticket.anchor.node : from, ticket.anchor.at},
                         ticket.sequence(),
                         now);
  }
  index_.reference(leaf.node);
  index_.unreference(ticket.anchor.node);
  ticket.anchor = leaf;
  follow_moves();
  if (traits_.learns) born(ticket, turns, parts, now);
  return true;
}

/// The id of a ticket's object that covers [first, end) of the tree. Keys are chained digests
/// already, and their depth may be unknown (design.md 4).
ObjectId CacheImpl::id_of(Ticket& ticket,
                          std::uint16_t group,
                          std::uint32_t first,
                          std::uint32_t end) {
  const SpaceInfo& space = spaces_[ticket.space];
  ObjectName name{
      space.fingerprint, space.generation, space.trust_domain, ticket.domain, group, first, end};
  if (ticket.keyed()) {
    name.first = name.end = end - first;
    return object_id(name, key_at(ticket, end));
  }
  if (ticket.chain.position() > end) ticket.chain = IdChain();
  ticket.chain.advance(ticket.tokens, ticket.marks, end);
  return object_id(name, ticket.chain.at(ticket.tokens, ticket.marks, end));
}

/// Runs that floated have found their place: tickets in them move along.
void CacheImpl::follow_moves() {
  for (const Index::Moved& moved : index_.take_moved()) {
    const NodeIx root = index_.root_of(moved.to);
    for (auto& [name, ticket] : tickets_) {
      if (!ticket.keyed() || ticket.root != moved.root) continue;
      ticket.root = root;
      ticket.base += moved.shift;
      ticket.anchor.at += moved.shift;
      if (ticket.anchor.node != moved.root) continue;
      index_.reference(moved.to);
      ticket.anchor.node = moved.to;
      index_.unreference(moved.root);
    }
    if (index_.node(moved.root).floating) index_.prune(moved.root);
  }
}

Digest CacheImpl::key_at(const Ticket& ticket, std::uint32_t end) const {
  const std::size_t page = (end - ticket.base) / ticket.shape.tokens;
  SC_ASSERT(page > 0 && page * ticket.shape.words <= ticket.tokens.size());
  Digest out;
  std::memcpy(out.bytes.data(),
              ticket.tokens.data() + (page - 1) * ticket.shape.words,
              ticket.shape.words * sizeof(Token));
  return out;
}

/// What the row says of its tokens: those from the end of its deepest parent to its own.
void CacheImpl::symbols_row(const Object& object, ObjectRow& row) const {
  std::uint32_t from = 0;
  for (ObjectIx parent : object.parents) {
    if (parent != kNil) from = std::max(from, index_.object(parent).end);
  }
  row.symbols.resize(object.end - from);
  for (NodeIx n = object.node; n != kNil && index_.node(n).end > from; n = index_.node(n).parent) {
    const Node& node = index_.node(n);
    const std::uint32_t lo = std::max(from, node.start);
    const std::uint32_t hi = std::min(object.end, node.end);
    std::copy(node.at(lo), node.at(lo) + (hi - lo), row.symbols.begin() + (lo - from));
    for (const Mark& mark : node.marks) {
      if (mark.at >= lo && mark.at < hi) row.marks.push_back(mark);
    }
  }
  std::sort(
      row.marks.begin(), row.marks.end(), [](const Mark& a, const Mark& b) { return a.at < b.at; });
}

/// The keys from the end of the deepest parent, or from the root of its tree, to its own end.
void CacheImpl::key_row(const Object& object, ObjectRow& row) const {
  const NodeIx root = index_.root_of(object.node);
  const SymbolShape& shape = index_.node(root).shape;
  std::uint32_t from = index_.node(root).end;
  for (ObjectIx parent : object.parents) {
    if (parent != kNil) from = std::max(from, index_.object(parent).end);
  }
  const auto words = [&](std::uint32_t tokens) { return tokens / shape.tokens * shape.words; };
  row.symbols.resize(words(object.end - from));
  for (NodeIx n = object.node; n != root && index_.node(n).end > from; n = index_.node(n).parent) {
    const Node& node = index_.node(n);
    const std::uint32_t lo = std::max(from, node.start);
    const std::uint32_t hi = std::min(object.end, node.end);
    std::copy_n(node.at(lo),
                words(hi - lo),
                row.symbols.begin() + static_cast<std::ptrdiff_t>(words(lo - from)));
  }
  if (!row.parents.empty() || !index_.node(root).floating) return;
  const std::optional<Digest> after = index_.waits_for(root);
  Mark mark;
  mark.at = from;
  mark.length = kFloatingMark;
  if (after) mark.content = *after;
  mark.atomic = after ? 1 : 0;
  row.marks.push_back(mark);
}

/// The positions that a recovered object has now: in the row they are those of when it was written.
/// `from` is the end of its deepest parent, or its domain's root. False: the row does not add up.
bool CacheImpl::place_run(const ObjectRow& row, Position& from, Object& object) {
  const SymbolShape shape = index_.node(index_.root_of(from.node)).shape;
  // A checkpoint at the end of its parent has none of its own.
  const bool whole = (!row.symbols.empty() || !row.parents.empty()) &&
                     row.symbols.size() % shape.words == 0 && row.end >= row.first;
  if (!whole || (row.end - row.first) % shape.tokens != 0 ||
      row.symbols.size() / shape.words >
          (kPositionMax - std::min(from.at, kPositionMax)) / shape.tokens)
    return false;
  if (row.parents.empty() && !row.marks.empty()) {
    const Mark& mark = row.marks.front();
    PageName head{shape.scope, {}};
    std::memcpy(head.key.bytes.data(), row.symbols.data(), shape.words * sizeof(Token));
    const auto after = mark.atomic != 0 ? std::optional(mark.content) : std::nullopt;
    Position start = index_.find_page(head);
    if (start.node == kNil && after) start = index_.find_after({shape.scope, *after});
    if (start.node == kNil && mark.at > kTokensMax) return false;
    if (start.node == kNil)
      start = {index_.add_floating_root(row.ns - 1, shape, mark.at, after), mark.at};
    from = start;
  }
  object.end =
      from.at + static_cast<std::uint32_t>(row.symbols.size()) / shape.words * shape.tokens;
  if (object.end > kPositionMax || row.end - row.first > object.end) return false;
  object.first = object.end - (row.end - row.first);
  return true;
}

Position CacheImpl::insert_recovered_run(const ObjectRow& row, Position from, Instant used) {
  const SymbolShape shape = index_.node(index_.root_of(from.node)).shape;
  const Position at =
      index_.insert_run(from, {row.symbols, {}, from.at, shape.tokens, shape.words}, used);
  follow_moves();
  return at;
}

}  // namespace statecached
