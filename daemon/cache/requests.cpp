#include "daemon/cache/cache_impl.hpp"
#include "policy/admission.hpp"
#include "policy/clairvoyant.hpp"

#include <algorithm>
#include <bit>
#include <fmt/format.h>

namespace statecached {

Result<ClientIx> CacheImpl::attach(const NamespaceSpec& spec, MemberInfo member, Instant now) {
  static_cast<void>(now);
  SC_TRY(spec.validate());
  if (spec.addressing != Addressing::tokens) {
    return fail(Errc::unsupported, "keyed namespaces are not served by this version: open the namespace with token addressing");
  }
  const Tier top = present(Tier::device) ? Tier::device : Tier::host;
  for (const Group& group : spec.groups) {
    const std::uint64_t need = padded_bytes(group.max_bytes, group.shards);
    if (need > space_of(top).capacity()) {
      return fail(Errc::no_space, fmt::format("one object of group \"{}\" takes {}, the {} tier has {}: raise its capacity",
                                              group.name, format_size(need), to_string(top), format_size(space_of(top).capacity())));
    }
  }
  if (!member.shard.empty() && member.shard.size() != spec.groups.size()) {
    return fail(Errc::invalid_argument, fmt::format("{} shard numbers for {} groups", member.shard.size(), spec.groups.size()));
  }
  for (std::size_t g = 0; g < member.shard.size(); ++g) {
    if (member.shard[g] >= spec.groups[g].shards) {
      return fail(Errc::invalid_argument, fmt::format("shard {} of group \"{}\", which has {}", member.shard[g], spec.groups[g].name, spec.groups[g].shards));
    }
  }
  const Digest fingerprint = spec.fingerprint();
  NamespaceIx ix = 0;
  while (ix < spaces_.size() && (spaces_[ix].fingerprint != fingerprint || spaces_[ix].trust_domain != member.trust_domain)) ++ix;
  if (ix == spaces_.size()) {
    SpaceInfo& fresh = spaces_.emplace_back();
    fresh.fingerprint = fingerprint;
    fresh.trust_domain = member.trust_domain;
  }
  SpaceInfo& space = spaces_[ix];
  if (space.clients == 0) {  // the name and the cost are not part of the fingerprint: the newest engine's hold
    space.spec = spec;
    space.has_end = std::any_of(spec.groups.begin(), spec.groups.end(), [](const Group& g) { return g.need == Need::end; });
    space.speed = EngineSpeed(options_.engine_flops);
    space.speeds.engine_flops = options_.engine_flops;
    space.speeds.load = {1e12, options_.host_bytes_per_second, options_.nvme_bytes_per_second};
  }
  ++space.clients;
  space.removed = false;
  ClientInfo& client = clients_.emplace_back();
  client.attached = true;
  client.space = ix;
  client.member = std::move(member);
  if (client.member.world == 0) client.member.world = 1;
  return static_cast<ClientIx>(clients_.size() - 1);
}

Ticket* CacheImpl::find_ticket(const TicketName& name) {
  const auto it = tickets_.find(name);
  return it == tickets_.end() ? nullptr : &it->second;
}

Result<Ticket*> CacheImpl::ticket_of(ClientIx client, const TicketName& name) {
  Ticket* ticket = find_ticket(name);
  if (ticket == nullptr || !clients_.at(client).tickets.contains(name)) {
    return fail(Errc::not_found, "no such ticket: it was never begun, has ended, or is not this client's");
  }
  return ticket;
}

NodeIx CacheImpl::domain_root(NamespaceIx ns, const Domain& domain, std::uint32_t& number) {
  SpaceInfo& space = spaces_[ns];
  auto [it, fresh] = space.domains.try_emplace(domain);
  if (fresh) {
    it->second.number = space.next_domain++;
    it->second.root = index_.add_root(ns);
  }
  number = it->second.number;
  return it->second.root;
}

Result<const Answer*> CacheImpl::begin(ClientIx client, const TicketName& name, const BeginRequest& request, Instant now) {
  ClientInfo& who = clients_.at(client);
  if (name.is_zero()) return fail(Errc::invalid_argument, "a ticket's name must not be zero");
  if (tickets_.contains(name)) return fail(Errc::already_exists, "a ticket of this name exists: names are random and used once");
  Ticket fresh;
  if (!request.parent.is_zero()) {
    SC_ASSIGN(Ticket * parent, ticket_of(client, request.parent));
    if (request.parent_tokens > parent->tokens.size()) {
      return fail(Errc::invalid_argument, fmt::format("parent_tokens is {}, the parent has {} tokens", request.parent_tokens, parent->tokens.size()));
    }
    fresh.tokens.assign(parent->tokens.begin(), parent->tokens.begin() + request.parent_tokens);
    for (const Mark& mark : parent->marks) {
      if (mark.at < request.parent_tokens) fresh.marks.push_back(mark);
    }
  }
  if (fresh.tokens.size() + request.tokens.size() > kTokensMax) {
    return fail(Errc::invalid_argument, fmt::format("a sequence may have {} tokens at most", kTokensMax));
  }
  fresh.tokens.insert(fresh.tokens.end(), request.tokens.begin(), request.tokens.end());
  fresh.marks.insert(fresh.marks.end(), request.marks.begin(), request.marks.end());
  std::uint32_t after = 0;
  for (const Mark& mark : fresh.marks) {
    if (mark.at < after || mark.length == 0 || mark.at >= fresh.tokens.size() || mark.length > fresh.tokens.size() - mark.at) {
      return fail(Errc::invalid_argument, "marks must be sorted, not overlap, and lie within the tokens");
    }
    after = mark.at + mark.length;
  }
  fresh.name = name;
  fresh.space = who.space;
  fresh.generation = spaces_[who.space].generation;
  fresh.engine = who.member.engine;
  fresh.owner = client;
  fresh.domain = request.domain;
  fresh.prompt = static_cast<std::uint32_t>(fresh.tokens.size());
  fresh.computed = fresh.prompt;
  fresh.keep_back = std::max(request.keep_back, options_.keep_back);
  fresh.at_most = request.at_most;
  fresh.have = request.have;
  fresh.hold = request.hold;
  fresh.want_lease = request.hold == HoldKind::lease;
  fresh.read_class = request.hold == HoldKind::lease ? DiskClass::demand : DiskClass::prefetch;
  if (request.deadline.count() > 0) fresh.deadline = now + request.deadline;
  fresh.members = request.members == 0 ? who.member.world : request.members;
  fresh.joined.push_back(client);
  fresh.soft_until = now + options_.soft_hold_age;
  const NodeIx root = domain_root(who.space, request.domain, fresh.domain_number);
  fresh.anchor = {root, 0};
  index_.reference(root);
  Ticket& ticket = tickets_.emplace(name, std::move(fresh)).first->second;
  who.tickets.insert(name);
  ++counters_.requests;
  counters_.input_tokens += ticket.prompt;
  counters_.flops += spaces_[who.space].spec.cost.flops(0, ticket.prompt);
  tick();
  plan(ticket, ticket.at_most, false, true, now);
  return &ticket.answer;
}

Result<const Answer*> CacheImpl::refresh(ClientIx client, const TicketName& name, Instant now) {
  SC_ASSIGN(Ticket * ticket, ticket_of(client, name));
  if (!ticket->lease && !ticket->lost) {
    ticket->soft_until = now + options_.soft_hold_age;
    if (ticket->loading == 0) plan(*ticket, ticket->at_most, false, true, now);
  }
  return &ticket->answer;
}

void CacheImpl::touch(const std::vector<NodeIx>& path, NodeIx deepest, Instant now) {
  // Marconi refreshes what was used, and closure protects its ancestors; LRU refreshes the whole path.
  if (traits_.refresh_path) {
    for (NodeIx node : path) {
      stamp(node, now);
      requeue(node, now);
    }
    return;
  }
  if (deepest == kNil) return;
  stamp(deepest, now);
  ++index_.node(deepest).hits;
  requeue(deepest, now);
}

/// Matches the ticket's sequence, lists the depths it could resume from, chooses one and holds what it
/// needs (hold != none), loading what lies on NVMe when `load`.
void CacheImpl::plan(Ticket& ticket, std::uint32_t at_most, bool only_ready, bool load, Instant now) {
  let_go(ticket, now);
  const Focus focus(*this, ticket.space);
  const SpaceInfo& space = spaces_[ticket.space];
  std::uint32_t number = 0;
  const NodeIx root = domain_root(ticket.space, ticket.domain, number);
  std::vector<NodeIx> path;
  std::optional<PolicyTime> policy_time(std::in_place, *this);
  const Sequence sequence{ticket.tokens, ticket.marks, 0};
  const Position here = index_.match({root, 0}, sequence, &path);
  index_.reference(here.node);
  index_.unreference(ticket.anchor.node);
  ticket.anchor = here;

  const ResumeScan scan(index_, space.spec.groups, path, here, ticket.marks);
  const std::uint32_t size = ticket.prompt;
  const std::uint32_t limit = std::min(at_most, size - std::min(size, ticket.keep_back));
  const auto depths = scan.depths({limit, space.spec.resume_grid}, kPointsMax);
  Answer& answer = ticket.answer;
  ++answer.version;
  answer.points.clear();
  answer.best = 0;
  answer.usable = 0;
  answer.stored = scan.stored();
  answer.state = TicketState::ready;
  answer.wishes = wishes({size, here.at, depths.empty() ? 0 : depths.back(), space.spec.checkpoint_grid, ticket.keep_back, space.has_end, options_.policy.every_tokens}, options_.policy.admission);
  if (options_.policy.admission == Admission::future && space.has_end) answer.wishes = options_.policy.future->partings(limit, space.spec.checkpoint_grid);

  struct Choice {
    std::uint32_t depth = 0;
    double seconds = 0;
    std::vector<Cover> covers;
    std::vector<ObjectIx> to_load;
    std::uint64_t bytes = 0;
  };
  std::vector<Choice> choices;
  std::vector<Cover> covers;
  const double rate = space.speeds.engine_flops;
  for (std::uint32_t depth : depths) {
    if (!scan.needs(depth, covers)) continue;
    Choice choice;
    choice.depth = depth;
    Point point;
    point.tokens = depth;
    point.tier = Tier::device;
    double visible = 0;
    // What the engine has already is neither held nor loaded nor leased.
    std::erase_if(covers, [&](const Cover& cover) {
      const Object& object = index_.object(cover.object);
      return cover.valid > 0 ? object.first + cover.valid <= ticket.have.every : object.end == ticket.have.end;
    });
    for (const Cover& cover : covers) {
      const Object& object = index_.object(cover.object);
      const Tier tier = object.highest();
      point.tier = std::max(point.tier, tier);
      visible += static_cast<double>(object.bytes) / space.speeds.load[index(tier)];
      if (tier != Tier::nvme) continue;
      choice.to_load.push_back(cover.object);
      point.bytes += object.bytes;
    }
    if (covers.empty()) point.tier = Tier::none;
    // What is on its way already comes first.
    const std::uint64_t queued = point.bytes == 0 ? 0 : loading_bytes_;
    const double wait = static_cast<double>(point.bytes + queued) / space.speeds.load[index(Tier::nvme)];
    point.ready_in = from_seconds(wait);
    point.recompute = from_seconds(space.spec.cost.flops(0, depth) / rate);
    choice.seconds = options_.follow_verdict ? visible + space.spec.cost.flops(depth, size) / rate : -static_cast<double>(depth);
    choice.bytes = point.bytes;
    choice.covers = covers;
    if (point.bytes == 0) answer.usable = depth;
    answer.points.push_back(point);
    choices.push_back(std::move(choice));
  }
  const double from_zero = options_.follow_verdict ? space.spec.cost.flops(0, size) / rate : 0;
  std::sort(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) { return a.seconds < b.seconds; });
  touch(path, kNil, now);
  policy_time.reset();
  bool room_made = false;
  const auto still_there = [&](const Choice& choice) {
    std::size_t on_nvme = 0;
    for (const Cover& cover : choice.covers) {
      const Object& object = index_.object(cover.object);
      if (object.state != ObjectState::visible) return false;
      if (object.highest() == Tier::nvme) ++on_nvme;
    }
    return on_nvme == choice.to_load.size();  // none left memory since they were listed
  };
  for (const Choice& choice : choices) {
    if (choice.seconds >= from_zero && !only_ready) break;
    if (only_ready && choice.bytes > 0) continue;
    if (choice.bytes > 0 && (!load || ticket.hold == HoldKind::none)) {
      answer.best = choice.depth;
      answer.state = TicketState::pending;
      return;
    }
    // Making room for a deeper choice may have evicted what this one needs.
    if (room_made && !still_there(choice)) continue;
    for (const Cover& cover : choice.covers) hold(cover.object, now);
    const auto put_back = [&] {
      for (const Cover& cover : choice.covers) unhold(cover.object, now);
    };
    // Host space is claimed whole or not at all: each object that is not yet on its way gets its runs now.
    std::vector<ObjectIx> fresh;
    bool fits = true;
    for (ObjectIx o : choice.to_load) {
      if (loads_.contains(o)) continue;
      const bool contiguous = space.spec.groups[index_.object(o).group].contiguous;
      if (!allocate(Tier::host, index_.object(o).bytes, contiguous, residents_[o].runs[index(Tier::host)], now)) {
        fits = false;
        break;
      }
      fresh.push_back(o);
    }
    room_made = true;
    if (!fits) {
      for (ObjectIx o : fresh) {
        host_.free(residents_[o].runs[index(Tier::host)]);
        residents_[o].runs[index(Tier::host)].clear();
      }
      put_back();
      continue;
    }
    ticket.chosen = choice.depth;
    answer.best = choice.depth;
    ticket.held.clear();
    for (const Cover& cover : choice.covers) {
      ticket.held.push_back({cover.object, cover.valid, index_.object(cover.object).highest()});
    }
    if (choice.to_load.empty()) {
      if (ticket.hold == HoldKind::none) let_go(ticket, now);
    } else {
      ticket.loading = choice.to_load.size();
      ticket.loading_since = now;
      for (ObjectIx o : fresh) loading_bytes_ += index_.object(o).bytes;
      ticket.predicted = from_seconds(static_cast<double>(loading_bytes_) / space.speeds.load[index(Tier::nvme)]);
      answer.state = TicketState::loading;
      for (ObjectIx o : choice.to_load) loads_[o].waiters.push_back(ticket.name);
      start_loads(ticket, fresh, now);
    }
    if (ticket.chosen > 0 && !traits_.refresh_path) touch(path, index_.node_at(here.node, ticket.chosen), now);
    break;
  }
  if (ticket.want_lease && ticket.loading == 0) make_lease(ticket, now);
}

void CacheImpl::let_go(Ticket& ticket, Instant now) {
  for (const Held& held : ticket.held) {
    const auto load = loads_.find(held.object);
    if (load != loads_.end()) std::erase(load->second.waiters, ticket.name);
  }
  const std::vector<Held> held = std::move(ticket.held);
  ticket.held.clear();
  ticket.loading = 0;
  ticket.chosen = 0;
  if (ticket.lease) {
    clients_[ticket.owner].leased_bytes -= std::min(clients_[ticket.owner].leased_bytes, ticket.leased_bytes);
    ticket.leased_bytes = 0;
    ticket.lease.reset();
  }
  for (auto it = held.rbegin(); it != held.rend(); ++it) unhold(it->object, now);
}

void CacheImpl::make_lease(Ticket& ticket, Instant now) {
  const SpaceInfo& space = spaces_[ticket.space];
  std::uint64_t bytes = 0;
  for (const Held& held : ticket.held) bytes += index_.object(held.object).bytes;
  ClientInfo& owner = clients_[ticket.owner];
  if (owner.leased_bytes + bytes > options_.lease_bytes_max) {
    ++counters_.refused[static_cast<std::size_t>(Reason::quota)];
    let_go(ticket, now);
    ticket.answer.best = 0;
    bytes = 0;
  }
  owner.leased_bytes += bytes;
  ticket.leased_bytes = bytes;
  ticket.answer.state = TicketState::ready;
  Lease lease;
  lease.tokens = ticket.chosen;
  std::uint16_t counted_group = UINT16_MAX;
  for (std::size_t g = 0; g < space.spec.groups.size() && counted_group == UINT16_MAX; ++g) {
    if (space.spec.groups[g].need == Need::every) counted_group = static_cast<std::uint16_t>(g);
  }
  for (const Held& held : ticket.held) {
    const Object& object = index_.object(held.object);
    Resident& resident = residents_[held.object];
    const Tier tier = object.highest();
    SC_ASSERT(tier == Tier::device || tier == Tier::host);
    const std::uint64_t padded = round_up(resident.payload, kPage);
    const Group& group = space.spec.groups[object.group];
    std::uint64_t payload = resident.payload;
    if (held.valid > 0 && group.token_major) payload = std::min(payload, space.spec.payload_bytes(object.group, held.valid));
    for (std::uint16_t shard = 0; shard < resident.shards; ++shard) {
      Piece piece;
      piece.group = object.group;
      piece.tier_at_begin = held.tier_at_begin;
      piece.arena = tier == Tier::device ? kDeviceArena : kHostArena;
      piece.first = object.first;
      piece.valid = held.valid;
      piece.shard = shard;
      piece.payload_bytes = payload;
      for (const MemoryRun& run : shard_runs(resident.runs[index(tier)], piece.arena, shard, padded, payload)) {
        piece.runs.push_back({run.at.offset, run.bytes});
      }
      lease.pieces.push_back(std::move(piece));
    }
    resident.prefetched = false;
    ++resident.hits;
    if (object.group == counted_group || (counted_group == UINT16_MAX && held.valid == 0)) {
      const std::uint32_t tokens = counted_group == UINT16_MAX ? ticket.chosen : held.valid;
      if (held.tier_at_begin != Tier::none) counters_.hit_tokens[index(held.tier_at_begin)] += tokens;
    }
  }
  counters_.flops_saved += space.spec.cost.flops(0, ticket.chosen);
  ++counters_.leases;
  ticket.lease = std::move(lease);
}

Result<> CacheImpl::join(ClientIx client, const TicketName& name, Instant now) {
  static_cast<void>(now);
  Ticket* ticket = find_ticket(name);
  const ClientInfo& who = clients_.at(client);
  if (ticket == nullptr || ticket->engine != who.member.engine || ticket->space != who.space) {
    return fail(Errc::not_found, "no such ticket in this engine group");
  }
  if (!clients_[client].tickets.insert(name).second) return {};
  ticket->joined.push_back(client);
  return {};
}

Result<const Lease*> CacheImpl::acquire(ClientIx client, const TicketName& name, std::uint32_t at_most, Have have, Instant now) {
  SC_ASSIGN(Ticket * ticket, ticket_of(client, name));
  if (ticket->lease) {
    if (ticket->lease->tokens <= at_most) return &*ticket->lease;
    return fail(Errc::busy, "this ticket is leased deeper already: release it and begin anew");
  }
  if (ticket->lost) return fail(Errc::closed, "the ticket is lost: compute it");
  // What it had at begin is not held here: if it has lost some since, the depth is planned anew.
  const bool lost_some = have.every < ticket->have.every || have.end != ticket->have.end;
  ticket->have = have;
  ticket->want_lease = true;
  ticket->hold = HoldKind::lease;
  if (lost_some || ticket->chosen > at_most || ticket->loading > 0 || ticket->held.empty()) {
    plan(*ticket, std::min(at_most, ticket->at_most), true, false, now);
  } else {
    make_lease(*ticket, now);
  }
  SC_ASSERT(ticket->lease.has_value());
  return &*ticket->lease;
}

Result<> CacheImpl::append(const TicketName& name, ClientIx client, std::span<const Token> tokens, std::span<const Mark> marks, std::uint32_t computed) {
  SC_ASSIGN(Ticket * ticket, ticket_of(client, name));
  if (ticket->finished) return fail(Errc::invalid_argument, "the ticket is finished: its sequence grows no more");
  if (ticket->tokens.size() + tokens.size() > kTokensMax) {
    return fail(Errc::invalid_argument, fmt::format("a sequence may have {} tokens at most", kTokensMax));
  }
  const std::uint64_t size = ticket->tokens.size() + tokens.size();
  std::uint64_t after = ticket->tokens.size();
  for (const Mark& mark : marks) {
    if (mark.at < after || mark.length == 0 || mark.at >= size || mark.length > size - mark.at) {
      return fail(Errc::invalid_argument, "marks must be sorted, not overlap, and lie within the tokens appended");
    }
    after = std::uint64_t{mark.at} + mark.length;
  }
  if (computed != kUnknown && computed > size) return fail(Errc::invalid_argument, "more tokens computed than there are");
  ticket->tokens.insert(ticket->tokens.end(), tokens.begin(), tokens.end());
  ticket->marks.insert(ticket->marks.end(), marks.begin(), marks.end());
  ticket->computed = computed == kUnknown ? static_cast<std::uint32_t>(size) : computed;
  return {};
}

Reason CacheImpl::check_want(const Ticket& ticket, const SpaceInfo& space, const WantItem& want) const {
  if (want.group >= space.spec.groups.size()) return Reason::bad_range;
  const Group& group = space.spec.groups[want.group];
  if (want.end == 0 || want.end > ticket.computed) return Reason::bad_range;
  if (group.need == Need::end) {
    if (want.first != want.end || want.end % space.spec.checkpoint_grid != 0) return Reason::bad_range;
  } else if (want.first % group.block_tokens != 0 || want.end <= want.first || want.end - want.first > group.block_tokens) {
    return Reason::bad_range;
  }
  if (want.bytes > group.max_bytes) return Reason::too_large;
  if (ticket.tainted) return Reason::tainted;
  if (draining_) return Reason::not_worth_it;
  if (ticket.generation != space.generation || ticket.lost) return Reason::invalidated;
  if (group.need == Need::end && want.end == ticket.branch_gone) return Reason::not_worth_it;
  if (group.need == Need::end && want.end < ticket.prompt) {
    const auto& wanted = ticket.answer.wishes;
    const bool wished = std::find(wanted.begin(), wanted.end(), want.end) != wanted.end();
    // Not asked for, but an engine may only be able to save where its chunks end: welcome while there is room.
    const Regions& top = options_.device_bytes > 0 ? device_ : host_;
    const double room = options_.policy.clean_share * static_cast<double>(top.capacity());
    if (!wished && static_cast<double>(top.available()) < room) return Reason::not_worth_it;
  }
  return Reason::none;
}

bool CacheImpl::find_parents(const SpaceInfo& space, NodeIx node, const WantItem& want, Object& object) const {
  const Group& group = space.spec.groups[want.group];
  std::size_t count = 0;
  if (group.need == Need::every) {
    if (want.first == 0) return true;
    object.parents[0] = index_.find(node, want.group, want.first - group.block_tokens, want.first);
    return object.parents[0] != kNil && index_.object(object.parents[0]).state != ObjectState::dead;
  }
  for (std::size_t g = 0; g < space.spec.groups.size(); ++g) {
    const Group& other = space.spec.groups[g];
    if (other.need != Need::every) continue;
    const std::uint32_t end = want.end / other.block_tokens * other.block_tokens;
    if (end == 0) continue;
    const ObjectIx parent = index_.find(node, static_cast<std::uint16_t>(g), end - other.block_tokens, end);
    if (parent == kNil || index_.object(parent).state == ObjectState::dead) return false;
    object.parents[count++] = parent;
  }
  return true;
}

SlotGrant CacheImpl::reserve_one(Ticket& ticket, ClientIx client, const WantItem& want, Instant now, std::vector<SlotGrant>& out) {
  SpaceInfo& space = spaces_[ticket.space];
  SlotGrant answer;
  answer.group = want.group;
  answer.first = want.first;
  answer.end = want.end;
  const auto refuse = [&](GrantKind grant, Reason reason) {
    ++counters_.refused[static_cast<std::size_t>(reason)];
    CacheEvent news;
    news.kind = EventKind::refused;
    news.reason = reason;
    news.ns = ticket.space;
    news.group = want.group;
    news.first = want.first;
    news.end = want.end;
    if (listener_ != nullptr) listener_->on_event(news);
    answer.grant = grant;
    return answer;
  };
  if (const Reason reason = check_want(ticket, space, want); reason != Reason::none) return refuse(GrantKind::declined, reason);
  const MemberInfo& member = clients_[client].member;
  if (!member.may_write && !member.staged) return refuse(GrantKind::declined, Reason::read_only);
  const Group& group = space.spec.groups[want.group];

  // The whole sequence goes into the tree at once; a checkpoint makes a node end at its position.
  if (ticket.anchor.at < ticket.tokens.size()) {
    const NodeIx from = index_.node_at(ticket.anchor.node, std::max(ticket.anchor.at, 1U));
    const Position leaf = index_.insert({ticket.anchor.at == 0 ? ticket.anchor.node : from, ticket.anchor.at}, {ticket.tokens, ticket.marks, 0}, now);
    index_.reference(leaf.node);
    index_.unreference(ticket.anchor.node);
    ticket.anchor = leaf;
  }
  NodeIx node = index_.node_at(ticket.anchor.node, want.end);
  const std::uint32_t cell_end = group.need == Need::end ? want.end : want.first + group.block_tokens;
  Object object;
  object.space = ticket.space;
  object.group = want.group;
  object.need = group.need;
  object.first = want.first;
  object.end = want.end;
  object.full = group.need == Need::every && want.end == cell_end;
  if (group.need != Need::end && index_.find_cover({node, want.end}, want.group, want.first, want.end, cell_end) != kNil) {
    answer.grant = GrantKind::exists;  // on this branch, or on one that shares these tokens
    const ObjectIx same = index_.find(ticket.anchor.node, want.group, want.first, want.end);
    if (object.full && same != kNil) hold_tail(ticket, same, now);
    if (!object.full || (same != kNil && index_.object(same).state == ObjectState::visible)) return answer;
  }
  const ObjectIx same = index_.find(ticket.anchor.node, want.group, want.first, want.end);
  if (same != kNil && index_.object(same).state != ObjectState::dead) {
    if (index_.object(same).state == ObjectState::visible) {
      answer.grant = GrantKind::exists;
      return answer;
    }
    if (now - residents_[same].reserved < options_.reservation_age) {
      answer.grant = GrantKind::in_flight;
      return answer;
    }
  }
  if (!find_parents(space, ticket.anchor.node, want, object)) return refuse(GrantKind::declined, Reason::parents_missing);

  const std::uint64_t payload = want.bytes != 0 ? want.bytes : space.spec.payload_bytes(want.group, want.end - want.first);
  object.bytes = padded_bytes(payload, group.shards);
  PageRuns runs;
  if (!make_quota_room(member.tenant, present(Tier::device) ? Tier::device : Tier::host, object.bytes, now)) {
    ++tenants_[member.tenant].refused;
    return refuse(GrantKind::no_space, Reason::quota);
  }
  // Staged bytes are copied by a thread of ours, which writes host memory.
  Tier home = present(Tier::device) && !(member.staged && present(Tier::host)) ? Tier::device : Tier::host;
  if (!allocate(home, object.bytes, group.contiguous, runs, now)) {
    if (home == Tier::host || !present(Tier::host)) return refuse(GrantKind::no_space, Reason::capacity);
    home = Tier::host;
    if (!allocate(home, object.bytes, group.contiguous, runs, now)) return refuse(GrantKind::no_space, Reason::capacity);
  }
  // Allocation may have evicted: what this hangs on may be gone.
  object.parents.fill(kNil);
  if (!find_parents(space, ticket.anchor.node, want, object)) {
    space_of(home).free(runs);
    return refuse(GrantKind::declined, Reason::parents_missing);
  }
  node = index_.node_at(ticket.anchor.node, want.end);
  if (group.need == Need::end) {
    node = index_.split({node, want.end});
    if (ticket.anchor.at == want.end) {
      index_.reference(node);
      index_.unreference(ticket.anchor.node);
      ticket.anchor.node = node;
    }
  }
  const ObjectIx o = index_.add_object(node, object);
  if (o >= residents_.size()) residents_.resize(o + 1U);
  residents_[o] = Resident{};
  Resident& resident = residents_[o];
  resident.runs[index(home)] = runs;
  resident.payload = payload;
  resident.shards = group.shards;
  resident.home = home;
  resident.tenant = member.tenant;
  tenants_[member.tenant].writing += object.bytes;
  resident.domain = ticket.domain_number;
  resident.reserved = now;
  if (ticket.chain.position() > want.end) ticket.chain = IdChain();
  ticket.chain.advance(ticket.tokens, ticket.marks, want.end);
  resident.id = object_id({space.fingerprint, space.generation, space.trust_domain, ticket.domain, want.group, want.first, want.end},
                          ticket.chain.at(ticket.tokens, ticket.marks, want.end));
  for (ObjectIx parent : object.parents) {
    if (parent != kNil) hold(parent, now);  // until this one is visible or gone
  }
  const std::uint64_t padded = round_up(payload, kPage);
  for (std::uint16_t shard = 0; shard < group.shards; ++shard) {
    std::uint32_t s = 0;
    if (free_slots_.empty()) {
      s = static_cast<std::uint32_t>(slots_.size());
      slots_.emplace_back().generation = options_.slot_base;
    } else {
      s = free_slots_.back();
      free_slots_.pop_back();
    }
    Slot& slot = slots_[s];
    slot.object = o;
    slot.shard = shard;
    slot.client = client;
    slot.ticket = ticket.name;
    ++slot.generation;
    slot.open = true;
    resident.slots.push_back(s);
    ++ticket.open_slots;
    answer.slot = std::uint64_t{slot.generation} << 32U | s;
    clients_[client].slots.insert(answer.slot);
    answer.grant = GrantKind::granted;
    answer.shard = shard;
    answer.arena = home == Tier::device ? kDeviceArena : kHostArena;
    answer.payload_bytes = payload;
    answer.runs.clear();
    for (const MemoryRun& run : shard_runs(runs, answer.arena, shard, padded, padded)) answer.runs.push_back({run.at.offset, run.bytes});
    if (shard + 1 < group.shards) out.push_back(answer);
  }
  ++counters_.grants;
  return answer;
}

Result<std::vector<SlotGrant>> CacheImpl::reserve(ClientIx client, const TicketName& name, std::span<const WantItem> wants, Instant now) {
  SC_ASSIGN(Ticket * ticket, ticket_of(client, name));
  const Focus focus(*this, ticket->space);
  std::vector<SlotGrant> out;
  out.reserve(wants.size());
  if (traits_.whole_nodes) prepare_insert(*ticket, wants, now);
  for (const WantItem& want : wants) {
    ++counters_.reservations;
    SlotGrant last = reserve_one(*ticket, client, want, now, out);
    out.push_back(std::move(last));
  }
  return out;
}

void CacheImpl::close_slot(std::uint32_t s) {
  Slot& slot = slots_[s];
  slot.open = false;
  slot.copying = false;
  auto& of_object = residents_[slot.object].slots;
  of_object.erase(std::find(of_object.begin(), of_object.end(), s));
  clients_[slot.client].slots.erase(std::uint64_t{slot.generation} << 32U | s);
  if (Ticket* ticket = find_ticket(slot.ticket); ticket != nullptr) --ticket->open_slots;
  free_slots_.push_back(s);
}

bool CacheImpl::commit(ClientIx client, const Filled& filled, Instant now) {
  const auto s = static_cast<std::uint32_t>(filled.slot);
  const ClientInfo& who = clients_.at(client);
  const bool known = s < slots_.size() && slots_[s].open && !slots_[s].copying && slots_[s].generation == filled.slot >> 32U;
  if (!known || clients_[slots_[s].client].member.engine != who.member.engine || clients_[slots_[s].client].space != who.space) {
    ++counters_.commits_refused;
    return false;
  }
  if (end_condemned(s)) {
    ++counters_.commits_refused;
    return false;
  }
  const Slot slot = slots_[s];
  Object& object = index_.object(slot.object);
  Resident& resident = residents_[slot.object];
  const bool partial = filled.valid != 0 && object.need != Need::end && filled.valid < object.end - object.first;
  if (partial && resident.shards_in == 0 && resident.shards == 1) {
    // Fewer tokens than reserved: another object, with another id; its space stays as granted.
    const Ticket* ticket = find_ticket(slot.ticket);
    if (ticket == nullptr) {
      ++counters_.commits_refused;
      return abandon(client, filled.slot, now) && false;
    }
    index_.shorten(slot.object, object.first + filled.valid);
    const SpaceInfo& space = spaces_[object.space];
    IdChain chain;
    chain.advance(ticket->tokens, ticket->marks, object.end);
    resident.id = object_id({space.fingerprint, space.generation, space.trust_domain, ticket->domain, object.group, object.first, object.end},
                            chain.at(ticket->tokens, ticket->marks, object.end));
  } else if (filled.valid > object.end - object.first && object.need != Need::end) {
    ++counters_.commits_refused;
    return false;
  }
  const TicketName ticket_name = slot.ticket;
  if (partial) {
    resident.sums.clear();  // of other bytes, under another id
    resident.hashed_in = 0;
  }
  close_slot(s);
  resident.shards_in |= std::uint64_t{1} << slot.shard;
  ++counters_.commits;
  if (static_cast<std::uint16_t>(std::popcount(resident.shards_in)) == resident.shards) {
    object.state = ObjectState::committed;
    if (resident.hashed_in != resident.shards_in) resident.sums.clear();  // some were written in place
    appear(slot.object, now);
  }
  if (Ticket* ticket = find_ticket(ticket_name); ticket != nullptr) {
    hold_tail(*ticket, slot.object, now);
    maybe_end(*ticket, now);
  }
  return true;
}

/// A committed object becomes visible when what it hangs on is; so may those that waited for it.
void CacheImpl::appear(ObjectIx o, Instant now) {
  std::vector<ObjectIx> ready{o};
  while (!ready.empty()) {
    const ObjectIx ix = ready.back();
    ready.pop_back();
    Object& object = index_.object(ix);
    if (object.state != ObjectState::committed) continue;
    const bool hangs = std::any_of(object.parents.begin(), object.parents.end(), [&](ObjectIx p) {
      return p != kNil && index_.object(p).state != ObjectState::visible;
    });
    if (hangs) continue;
    const Node& home = index_.node(object.node);
    bool superseded = false;
    for (std::size_t i = index_.first_ending(home, object.end); i < home.objects.size() && !superseded; ++i) {
      const Object& that = index_.object(home.objects[i]);
      if (that.end != object.end) break;
      superseded = home.objects[i] != ix && that.group == object.group && that.first == object.first && that.state == ObjectState::visible;
    }
    if (superseded) {
      discard_unborn(ix, now);
      continue;
    }
    object.state = ObjectState::visible;
    Resident& resident = residents_[ix];
    tenants_[resident.tenant].writing -= object.bytes;
    entered(ix, resident.home, now);
    stamp(object.node, now);
    counters_.bytes_stored += object.bytes;
    event(EventKind::stored, Reason::none, resident.home, ix);
    if (object.need == Need::end && traits_.terms == PolicyTraits::Terms::paper) requeue_heirs(object.node, now);
    const std::array<ObjectIx, kEveryGroupsMax> parents = object.parents;
    for (ObjectIx parent : parents) {
      if (parent != kNil) unhold(parent, now);
    }
    requeue(object.node, now);
    if (object.need != Need::end) {  // shorter blocks of the same cell on this path are no longer needed
      std::vector<ObjectIx> shorter;
      for (NodeIx n = object.node;; n = index_.node(n).parent) {
        const Node& here = index_.node(n);
        for (std::size_t i = index_.first_ending(here, object.first + 1); i < here.objects.size(); ++i) {
          const ObjectIx other = here.objects[i];
          const Object& that = index_.object(other);
          if (that.end >= object.end) break;
          if (other != ix && that.group == object.group && that.first == object.first && that.end < object.end && that.state == ObjectState::visible && that.holds == 0) shorter.push_back(other);
        }
        if (index_.node(n).start <= object.first || index_.node(n).parent == kNil) break;
      }
      for (ObjectIx other : shorter) drop_everywhere(other, Reason::replaced, now);
    }
    if (!object.full) continue;
    for (ObjectIx child : children_of(ix)) {
      if (index_.object(child).state == ObjectState::committed) ready.push_back(child);
    }
  }
}

/// Takes back an object that never became visible, and what waited for it.
void CacheImpl::discard_unborn(ObjectIx o, Instant now) {
  Resident& resident = residents_[o];
  Object& object = index_.object(o);
  SC_ASSERT(object.state == ObjectState::writing || object.state == ObjectState::committed);
  tenants_[resident.tenant].writing -= object.bytes;
  condemn(o);
  // What hangs on it was never visible either.
  const std::vector<ObjectIx> waiting = object.holds > 0 ? children_of(o) : std::vector<ObjectIx>{};
  for (ObjectIx child : waiting) {
    if (index_.object(child).state != ObjectState::free) discard_unborn(child, now);
  }
  for (ObjectIx parent : index_.object(o).parents) {
    if (parent != kNil) unhold(parent, now);
  }
  residents_[o] = Resident{};
  index_.remove_object(o);
}

bool CacheImpl::abandon(ClientIx client, SlotId id, Instant now) {
  const auto s = static_cast<std::uint32_t>(id);
  if (s >= slots_.size() || !slots_[s].open || slots_[s].copying || slots_[s].generation != id >> 32U) return false;
  if (slots_[s].client != client && clients_[slots_[s].client].member.engine != clients_.at(client).member.engine) return false;
  if (end_condemned(s)) return true;
  const TicketName name = slots_[s].ticket;
  const ObjectIx object = slots_[s].object;
  close_slot(s);
  discard_unborn(object, now);
  if (Ticket* ticket = find_ticket(name); ticket != nullptr) maybe_end(*ticket, now);
  return true;
}

Result<> CacheImpl::finish(ClientIx client, const TicketName& name, std::uint32_t prefilled, Nanos prefill, Instant now) {
  SC_ASSIGN(Ticket * ticket, ticket_of(client, name));
  ticket->finished = true;
  let_go_tails(*ticket, now);
  SpaceInfo& space = spaces_[ticket->space];
  if (prefilled > 0 && prefilled <= ticket->prompt && prefill.count() > 0) {
    const double flops = space.spec.cost.flops(ticket->prompt - prefilled, ticket->prompt);
    space.speed.add(flops, seconds(prefill));
    space.speeds.engine_flops = space.speed.rate();
  }
  maybe_end(*ticket, now);
  return {};
}

Result<> CacheImpl::release(ClientIx client, const TicketName& name, bool cancelled, Instant now) {
  SC_ASSIGN(Ticket * ticket, ticket_of(client, name));
  if (cancelled) {
    ticket->finished = true;
    let_go(*ticket, now);
    let_go_tails(*ticket, now);
  }
  // Once a member, however often it says so.
  if (std::find(ticket->released_by.begin(), ticket->released_by.end(), client) == ticket->released_by.end()) {
    ticket->released_by.push_back(client);
    ++ticket->released;
  }
  if (ticket->released >= std::max<std::size_t>(ticket->members, 1) || cancelled) {
    ticket->want_lease = false;
    let_go(*ticket, now);
  }
  maybe_end(*ticket, now);
  return {};
}

void CacheImpl::maybe_end(Ticket& ticket, Instant now) {
  if (ticket.finished && ticket.open_slots == 0 && ticket.held.empty() && (ticket.released >= ticket.members || !ticket.lease)) {
    end_ticket(ticket.name, now);
  }
}

void CacheImpl::end_ticket(const TicketName& name, Instant now) {
  Ticket* ticket = find_ticket(name);
  if (ticket == nullptr) return;
  let_go(*ticket, now);
  let_go_tails(*ticket, now);
  for (ClientIx client : ticket->joined) clients_[client].tickets.erase(name);
  for (std::uint32_t s = 0; ticket->open_slots > 0 && s < slots_.size(); ++s) {
    if (slots_[s].open && !slots_[s].copying && slots_[s].object != kNil && slots_[s].ticket == name) discard_unborn(slots_[s].object, now);
  }
  const NodeIx anchor = ticket->anchor.node;
  if (traits_.wants_paths) {
    for (const auto& victims : victims_) {
      for (NodeIx n = anchor; n != kNil; n = index_.node(n).parent) victims->passed(n);
    }
  }
  tickets_.erase(name);
  index_.unreference(anchor);
}

void CacheImpl::lose(Ticket& ticket, Instant now) {
  ticket.lost = true;
  ticket.want_lease = false;
  let_go(ticket, now);
  let_go_tails(ticket, now);
  ++ticket.answer.version;
  ticket.answer.state = TicketState::lost;
  ticket.answer.best = 0;
  ticket.answer.usable = 0;
  ticket.answer.points.clear();
  if (listener_ != nullptr) listener_->on_answer(ticket.name);
}

void CacheImpl::expire(Instant now) {
  if (now - expired_at_ < std::chrono::milliseconds(100)) return;
  expired_at_ = now;
  std::vector<TicketName> stale;
  for (auto& [name, ticket] : tickets_) {
    if (!ticket.lease && !ticket.held.empty() && ticket.hold == HoldKind::soft && ticket.loading == 0 && now > ticket.soft_until) stale.push_back(name);
  }
  for (const TicketName& name : stale) {
    if (Ticket* ticket = find_ticket(name); ticket != nullptr) let_go(*ticket, now);
  }
}

Result<> CacheImpl::invalidate(ClientIx client, Instant now) {
  const NamespaceIx ns = clients_.at(client).space;
  ++spaces_[ns].generation;
  static_cast<void>(drop_namespace_objects(ns, Reason::invalidated, now));
  return {};
}

void CacheImpl::event(EventKind kind, Reason reason, Tier tier, ObjectIx o) {
  if (listener_ == nullptr) return;
  const Object& object = index_.object(o);
  CacheEvent news;
  news.kind = kind;
  news.reason = reason;
  news.tier = tier;
  news.ns = object.space;
  news.id = residents_[o].id;
  news.group = object.group;
  news.first = object.first;
  news.end = object.end;
  news.bytes = object.bytes;
  listener_->on_event(news);
}

}  // namespace statecached
