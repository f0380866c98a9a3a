#include "daemon/cache/cache_impl.hpp"
#include "policy/admission.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

namespace statecached {

Result<ClientIx> CacheImpl::attach(const NamespaceSpec& spec, MemberInfo member, Instant now) {
  static_cast<void>(now);
  SC_TRY(spec.validate());
  const Tier top = present(Tier::device) ? Tier::device : Tier::host;
  for (const Group& group : spec.groups) {
    const std::uint64_t need = padded_bytes(group.max_bytes, group.shards);
    if (need > space_of(top).capacity()) {
      return fail(
          Errc::no_space,
          fmt::format("one object of group \"{}\" takes {}, the {} tier has {}: raise its capacity",
                      group.name,
                      format_size(need),
                      to_string(top),
                      format_size(space_of(top).capacity())));
    }
  }
  if (!member.shard.empty() && member.shard.size() != spec.groups.size()) {
    return fail(
        Errc::invalid_argument,
        fmt::format("{} shard numbers for {} groups", member.shard.size(), spec.groups.size()));
  }
  for (std::size_t g = 0; g < member.shard.size(); ++g) {
    if (member.shard[g] >= spec.groups[g].shards) {
      return fail(Errc::invalid_argument,
                  fmt::format("shard {} of group \"{}\", which has {}",
                              member.shard[g],
                              spec.groups[g].name,
                              spec.groups[g].shards));
    }
  }
  const Digest fingerprint = spec.fingerprint();
  NamespaceIx ix = 0;
  while (ix < spaces_.size() && (spaces_[ix].fingerprint != fingerprint ||
                                 spaces_[ix].trust_domain != member.trust_domain))
    ++ix;
  if (ix == spaces_.size()) {
    SpaceInfo& fresh = spaces_.emplace_back();
    fresh.fingerprint = fingerprint;
    fresh.trust_domain = member.trust_domain;
  }
  SpaceInfo& space = spaces_[ix];
  // the name and the cost are not part of the fingerprint: the newest engine's hold
  if (space.clients == 0) {
    space.spec = spec;
    space.has_end = std::any_of(
        spec.groups.begin(), spec.groups.end(), [](const Group& g) { return g.need == Need::end; });
    space.speed = EngineSpeed(options_.engine_flops);
    space.speeds.engine_flops = options_.engine_flops;
    space.speeds.load = {1e12, options_.host_bytes_per_second, options_.nvme_bytes_per_second};
  }
  ++space.clients;
  space.removed = false;
  ClientInfo& client = clients_.emplace_back(&pool_);
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
    return fail(Errc::not_found,
                "no such ticket: it was never begun, has ended, or is not this client's");
  }
  return ticket;
}

NodeIx CacheImpl::domain_root(NamespaceIx ns, const Domain& domain, std::uint32_t& number) {
  SpaceInfo& space = spaces_[ns];
  auto [it, fresh] = space.domains.try_emplace(domain);
  if (fresh) {
    it->second.number = space.next_domain++;
    it->second.root = add_domain_root(ns, it->second.number);
  }
  number = it->second.number;
  return it->second.root;
}

NodeIx CacheImpl::add_domain_root(NamespaceIx ns, std::uint32_t number) {
  const NamespaceSpec& spec = spaces_[ns].spec;
  if (spec.addressing == Addressing::tokens) return index_.add_root(ns);
  return index_.add_root(
      ns,
      {spec.tokens_per_key, (spec.key_bytes + 3U) / 4U, std::uint64_t{ns + 1U} << 32U | number});
}

namespace {

constexpr std::size_t kSpareTokens = 1U << 17U;  ///< a longer sequence gives its memory back

}  // namespace

/// As new, but with the memory of one that ended.
CacheImpl::TicketMap::node_type CacheImpl::new_ticket() {
  if (spare_tickets_.empty()) {
    TicketMap nursery;
    return nursery.extract(nursery.try_emplace(TicketName{}).first);
  }
  TicketMap::node_type node = std::move(spare_tickets_.back());
  spare_tickets_.pop_back();
  Ticket& old = node.mapped();
  Ticket fresh;
  const auto keep = [](auto& to, auto& from) {
    from.clear();
    to.swap(from);
  };
  keep(fresh.tokens, old.tokens);
  keep(fresh.marks, old.marks);
  keep(fresh.held, old.held);
  keep(fresh.joined, old.joined);
  keep(fresh.released_by, old.released_by);
  keep(fresh.answer.points, old.answer.points);
  keep(fresh.answer.wishes, old.answer.wishes);
  keep(fresh.wish_worth, old.wish_worth);
  old = std::move(fresh);
  return node;
}

Result<const Answer*> CacheImpl::begin(ClientIx client,
                                       const TicketName& name,
                                       const BeginRequest& request,
                                       Instant now) {
  ClientInfo& who = clients_.at(client);
  if (name.is_zero()) return fail(Errc::invalid_argument, "a ticket's name must not be zero");
  if (tickets_.contains(name))
    return fail(Errc::already_exists,
                "a ticket of this name exists: names are random and used once");
  TicketMap::node_type node = new_ticket();
  Ticket& fresh = node.mapped();
  fresh.space = who.space;
  fresh.domain = request.domain;
  const NodeIx root = domain_root(who.space, request.domain, fresh.domain_number);
  fresh.shape = index_.node(root).shape;
  fresh.root = root;
  if (fresh.keyed()) SC_TRY(take_run(fresh, request));
  if (!request.parent.is_zero()) {
    SC_ASSIGN(Ticket * parent, ticket_of(client, request.parent));
    if (request.parent_tokens > parent->tokens.size()) {
      return fail(Errc::invalid_argument,
                  fmt::format("parent_tokens is {}, the parent has {} tokens",
                              request.parent_tokens,
                              parent->tokens.size()));
    }
    fresh.tokens.assign(parent->tokens.begin(), parent->tokens.begin() + request.parent_tokens);
    for (const Mark& mark : parent->marks) {
      if (mark.at < request.parent_tokens) fresh.marks.push_back(mark);
    }
  }
  if (fresh.tokens.size() + request.tokens.size() > kTokensMax) {
    return fail(Errc::invalid_argument,
                fmt::format("a sequence may have {} tokens at most", kTokensMax));
  }
  fresh.tokens.insert(fresh.tokens.end(), request.tokens.begin(), request.tokens.end());
  fresh.marks.insert(fresh.marks.end(), request.marks.begin(), request.marks.end());
  std::uint32_t after = 0;
  for (const Mark& mark : fresh.marks) {
    if (mark.at < after || mark.length == 0 || mark.at >= fresh.tokens.size() ||
        mark.length > fresh.tokens.size() - mark.at) {
      return fail(Errc::invalid_argument,
                  "marks must be sorted, not overlap, and lie within the tokens");
    }
    after = mark.at + mark.length;
  }
  fresh.name = name;
  fresh.generation = spaces_[who.space].generation;
  fresh.engine = who.member.engine;
  fresh.owner = client;
  fresh.prompt = fresh.end();
  fresh.computed = fresh.prompt;
  // Keys name whole pages of a prompt that goes on.
  fresh.keep_back = fresh.keyed() ? 0 : std::max(request.keep_back, options_.keep_back);
  fresh.at_most = request.at_most;
  fresh.have = request.have;
  fresh.hold = request.hold;
  fresh.want_lease = request.hold == HoldKind::lease;
  fresh.read_class = request.hold == HoldKind::lease ? DiskClass::demand : DiskClass::prefetch;
  if (request.deadline.count() > 0) fresh.deadline = now + request.deadline;
  fresh.members = request.members == 0 ? who.member.world : request.members;
  fresh.joined.push_back(client);
  fresh.soft_until = now + options_.soft_hold_age;
  fresh.anchor = {root, 0};
  index_.reference(root);
  node.key() = name;
  Ticket& ticket = tickets_.insert(std::move(node)).position->second;
  who.tickets.insert(name);
  ++counters_.requests;
  counters_.input_tokens += ticket.prompt - ticket.origin;
  counters_.flops += spaces_[who.space].spec.cost.flops(ticket.origin, ticket.prompt);
  tick();
  trim_queues(now);
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

Result<const Lease*> CacheImpl::acquire(ClientIx client,
                                        const TicketName& name,
                                        std::uint32_t at_most,
                                        Have have,
                                        Instant now) {
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

Result<> CacheImpl::append(const TicketName& name,
                           ClientIx client,
                           std::span<const Token> tokens,
                           std::span<const Mark> marks,
                           std::uint32_t computed) {
  SC_ASSIGN(Ticket * ticket, ticket_of(client, name));
  if (ticket->finished)
    return fail(Errc::invalid_argument, "the ticket is finished: its sequence grows no more");
  if (ticket->keyed()) return fail(Errc::invalid_argument, "this namespace is addressed by keys");
  if (ticket->tokens.size() + tokens.size() > kTokensMax) {
    return fail(Errc::invalid_argument,
                fmt::format("a sequence may have {} tokens at most", kTokensMax));
  }
  const std::uint64_t size = ticket->tokens.size() + tokens.size();
  std::uint64_t after = ticket->tokens.size();
  for (const Mark& mark : marks) {
    if (mark.at < after || mark.length == 0 || mark.at >= size || mark.length > size - mark.at) {
      return fail(Errc::invalid_argument,
                  "marks must be sorted, not overlap, and lie within the tokens appended");
    }
    after = std::uint64_t{mark.at} + mark.length;
  }
  if (computed != kUnknown && computed > size)
    return fail(Errc::invalid_argument, "more tokens computed than there are");
  ticket->tokens.insert(ticket->tokens.end(), tokens.begin(), tokens.end());
  ticket->marks.insert(ticket->marks.end(), marks.begin(), marks.end());
  ticket->computed = computed == kUnknown ? static_cast<std::uint32_t>(size) : computed;
  return {};
}

Reason CacheImpl::check_want(const Ticket& ticket,
                             const SpaceInfo& space,
                             const WantItem& want) const {
  if (want.group >= space.spec.groups.size()) return Reason::bad_range;
  const Group& group = space.spec.groups[want.group];
  if (want.end == 0 || want.end > ticket.computed || want.end > ticket.end())
    return Reason::bad_range;
  if (ticket.keyed()) {
    const bool pages = (want.first - ticket.origin) % ticket.shape.tokens == 0 &&
                       (want.end - ticket.origin) % ticket.shape.tokens == 0;
    if (!pages || want.first < ticket.origin || want.end == ticket.origin) return Reason::bad_range;
  }
  if (group.need == Need::end) {
    if (want.first != want.end || want.end <= group.lookahead ||
        (want.end - group.lookahead) % space.spec.checkpoint_grid != 0)
      return Reason::bad_range;
  } else if (want.first % group.block_tokens != 0 || want.end <= want.first ||
             want.end - want.first > group.block_tokens) {
    return Reason::bad_range;
  }
  if (want.bytes > group.max_bytes) return Reason::too_large;
  if (ticket.tainted) return Reason::tainted;
  if (draining_) return Reason::not_worth_it;
  if (ticket.generation != space.generation || ticket.lost) return Reason::invalidated;
  if (group.need == Need::end && want.end == ticket.branch_gone) return Reason::not_worth_it;
  if (group.need == Need::end && want.end < ticket.prompt) {
    const auto& wanted = ticket.answer.wishes;
    const bool wished =
        std::find(wanted.begin(), wanted.end(), want.end - group.lookahead) != wanted.end();
    // Not asked for, but an engine may only be able to save where its chunks end: welcome while
    // there is room.
    const Regions& top = options_.device_bytes > 0 ? device_ : host_;
    const double room = options_.policy.clean_share * static_cast<double>(top.capacity());
    if (!wished && static_cast<double>(top.available()) < room) return Reason::not_worth_it;
  }
  return Reason::none;
}

bool CacheImpl::find_parents(const SpaceInfo& space,
                             NodeIx node,
                             const WantItem& want,
                             std::uint32_t base,
                             Object& object) const {
  // What lies before a run of keys is in the engine; whether it is here too does not matter.
  const Group& group = space.spec.groups[want.group];
  std::size_t count = 0;
  if (group.need == Need::every) {
    if (want.first == 0) return true;
    const ObjectIx parent =
        want.first < group.block_tokens
            ? kNil
            : index_.find(node, want.group, want.first - group.block_tokens, want.first);
    const bool there = parent != kNil && index_.object(parent).state != ObjectState::dead;
    if (there) object.parents[0] = parent;
    return there || want.first <= base;
  }
  for (std::size_t g = 0; g < space.spec.groups.size(); ++g) {
    const Group& other = space.spec.groups[g];
    if (other.need != Need::every) continue;
    const std::uint32_t end = want.end / other.block_tokens * other.block_tokens;
    if (end == 0) continue;
    const ObjectIx parent =
        index_.find(node, static_cast<std::uint16_t>(g), end - other.block_tokens, end);
    if (parent == kNil || index_.object(parent).state == ObjectState::dead) {
      if (end <= base) continue;
      return false;
    }
    object.parents[count++] = parent;
  }
  return true;
}

SlotGrant CacheImpl::reserve_one(Ticket& ticket,
                                 ClientIx client,
                                 const WantItem& asked,
                                 Instant now,
                                 std::vector<SlotGrant>& out) {
  SpaceInfo& space = spaces_[ticket.space];
  SlotGrant answer;
  answer.group = asked.group;
  answer.first = asked.first;
  answer.end = asked.end;
  const auto refuse = [&](GrantKind grant, Reason reason) {
    ++counters_.refused[static_cast<std::size_t>(reason)];
    CacheEvent news;
    news.kind = EventKind::refused;
    news.reason = reason;
    news.ns = ticket.space;
    news.group = asked.group;
    news.first = asked.first;
    news.end = asked.end;
    if (listener_ != nullptr) listener_->on_event(news);
    answer.grant = grant;
    return answer;
  };
  if (const Reason reason = check_want(ticket, space, asked); reason != Reason::none)
    return refuse(GrantKind::declined, reason);
  const MemberInfo& member = clients_[client].member;
  if (!member.may_write && !member.staged) return refuse(GrantKind::declined, Reason::read_only);
  const Group& group = space.spec.groups[asked.group];
  if (group.need == Need::end && asked.end > ticket.prompt) ticket.saved_end = true;

  // The whole sequence goes into the tree at once; a checkpoint makes a node end at its position.
  if (!insert_ticket(ticket, now)) return refuse(GrantKind::declined, Reason::bad_range);
  WantItem want = asked;  // as the tree counts
  want.first += ticket.offset();
  want.end += ticket.offset();
  const std::uint32_t cell_end =
      group.need == Need::end ? want.end : want.first + group.block_tokens;
  Object object;
  object.space = ticket.space;
  object.group = want.group;
  object.need = group.need;
  object.first = want.first;
  object.end = want.end;
  object.full = group.need == Need::every && want.end == cell_end;
  const ObjectIx same = index_.find(ticket.anchor.node, want.group, want.first, want.end);
  if (group.need != Need::end &&
      index_.find_cover(
          {ticket.anchor.node, want.end}, want.group, want.first, want.end, cell_end) != kNil) {
    answer.grant = GrantKind::exists;  // on this branch, or on one that shares these tokens
    if (object.full && same != kNil) hold_tail(ticket, same, now);
    if (!object.full || (same != kNil && index_.object(same).state == ObjectState::visible))
      return answer;
  }
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
  if (!find_parents(space, ticket.anchor.node, want, ticket.base, object))
    return refuse(GrantKind::declined, Reason::parents_missing);

  const std::uint64_t payload =
      want.bytes != 0 ? want.bytes : space.spec.payload_bytes(want.group, want.end - want.first);
  object.bytes = padded_bytes(payload, group.shards);
  const double worth = worth_of(ticket, asked);
  PageRuns runs;
  const std::uint64_t evictions = counters_.evictions;
  // Staged bytes are copied by a thread of ours, which writes host memory.
  Tier home =
      present(Tier::device) && !(member.staged && present(Tier::host)) ? Tier::device : Tier::host;
  const auto over_quota = [&] {
    ++tenants_[member.tenant].refused;
    return refuse(GrantKind::no_space, Reason::quota);
  };
  if (!make_quota_room(member.tenant, home, object.bytes, now)) return over_quota();
  if (!allocate(home, object.bytes, group.contiguous, runs, now, worth)) {
    if (home == Tier::host || !present(Tier::host))
      return refuse(GrantKind::no_space, Reason::capacity);
    home = Tier::host;
    if (!make_quota_room(member.tenant, home, object.bytes, now)) return over_quota();
    if (!allocate(home, object.bytes, group.contiguous, runs, now))
      return refuse(GrantKind::no_space, Reason::capacity);
  }
  if (counters_.evictions != evictions) {  // what this hangs on may be gone
    object.parents.fill(kNil);
    if (!find_parents(space, ticket.anchor.node, want, ticket.base, object)) {
      space_of(home).free(runs);
      return refuse(GrantKind::declined, Reason::parents_missing);
    }
  }
  NodeIx node = index_.node_at(ticket.anchor.node, want.end);
  if (group.need == Need::end) {
    const bool inside = want.end < index_.node(node).end;
    node = index_.split({node, want.end});
    if (inside && traits_.learns) {
      stamp(node, now);
      reuse_.born(index_, node);
    }
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
  resident.id = id_of(ticket, want.group, want.first, want.end);
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
    add_runs(runs, answer.arena, shard, padded, padded, answer.runs);
    if (shard + 1 < group.shards) out.push_back(answer);
  }
  ++counters_.grants;
  return answer;
}

Result<> CacheImpl::reserve(ClientIx client,
                            const TicketName& name,
                            std::span<const WantItem> wants,
                            Instant now,
                            std::vector<SlotGrant>& out) {
  SC_ASSIGN(Ticket * ticket, ticket_of(client, name));
  const Focus focus(*this, ticket->space);
  if (traits_.whole_nodes) prepare_insert(*ticket, wants, now);
  for (const WantItem& want : wants) {
    ++counters_.reservations;
    SlotGrant last = reserve_one(*ticket, client, want, now, out);
    out.push_back(std::move(last));
  }
  return {};
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
  const bool known = s < slots_.size() && slots_[s].open && !slots_[s].copying &&
                     slots_[s].generation == filled.slot >> 32U;
  if (!known || clients_[slots_[s].client].member.engine != who.member.engine ||
      clients_[slots_[s].client].space != who.space) {
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
  const bool partial =
      filled.valid != 0 && object.need != Need::end && filled.valid < object.end - object.first;
  if (partial && resident.shards_in == 0 && resident.shards == 1) {
    // Fewer tokens than reserved: another object, with another id; its space stays as granted.
    Ticket* ticket = find_ticket(slot.ticket);
    if (ticket == nullptr || filled.valid % ticket->shape.tokens != 0) {
      ++counters_.commits_refused;
      return abandon(client, filled.slot, now) && false;
    }
    index_.shorten(slot.object, object.first + filled.valid);
    resident.id = id_of(*ticket, object.group, object.first, object.end);
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
    // some were written in place
    if (resident.hashed_in != resident.shards_in) resident.sums.clear();
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
  boost::container::small_vector<ObjectIx, 16> ready{o};
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
    for (std::size_t i = index_.first_ending(home, object.end);
         i < home.objects.size() && !superseded;
         ++i) {
      const Object& that = index_.object(home.objects[i]);
      if (that.end != object.end) break;
      superseded = home.objects[i] != ix && that.group == object.group &&
                   that.first == object.first && that.state == ObjectState::visible;
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
    if (object.need == Need::end && traits_.terms == PolicyTraits::Terms::paper)
      requeue_heirs(object.node);
    const std::array<ObjectIx, kEveryGroupsMax> parents = object.parents;
    for (ObjectIx parent : parents) {
      if (parent != kNil) unhold(parent, now);
    }
    requeue(object.node);
    if (object.need == Need::end) requeue_around(object.node);
    // shorter blocks of the same cell on this path are no longer needed
    if (object.need != Need::end) {
      std::vector<ObjectIx> shorter;
      for (NodeIx n = object.node;; n = index_.node(n).parent) {
        const Node& here = index_.node(n);
        for (std::size_t i = index_.first_ending(here, object.first + 1); i < here.objects.size();
             ++i) {
          const ObjectIx other = here.objects[i];
          const Object& that = index_.object(other);
          if (that.end >= object.end) break;
          if (other != ix && that.group == object.group && that.first == object.first &&
              that.end < object.end && that.state == ObjectState::visible && that.holds == 0)
            shorter.push_back(other);
        }
        if (index_.node(n).start <= object.first || index_.node(n).parent == kNil) break;
      }
      for (ObjectIx other : shorter)
        drop_everywhere(other, Reason::replaced, now);
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
  if (s >= slots_.size() || !slots_[s].open || slots_[s].copying ||
      slots_[s].generation != id >> 32U)
    return false;
  if (slots_[s].client != client &&
      clients_[slots_[s].client].member.engine != clients_.at(client).member.engine)
    return false;
  if (end_condemned(s)) return true;
  const TicketName name = slots_[s].ticket;
  const ObjectIx object = slots_[s].object;
  close_slot(s);
  discard_unborn(object, now);
  if (Ticket* ticket = find_ticket(name); ticket != nullptr) maybe_end(*ticket, now);
  return true;
}

Result<> CacheImpl::finish(ClientIx client,
                           const TicketName& name,
                           std::uint32_t prefilled,
                           Nanos prefill,
                           Instant now) {
  SC_ASSIGN(Ticket * ticket, ticket_of(client, name));
  ticket->finished = true;
  let_go_tails(*ticket, now);
  SpaceInfo& space = spaces_[ticket->space];
  if (ticket->end() > ticket->prompt)
    space.saves_ends += ((ticket->saved_end ? 1 : 0) - space.saves_ends) / 16;
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
  if (std::find(ticket->released_by.begin(), ticket->released_by.end(), client) ==
      ticket->released_by.end()) {
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
  if (ticket.finished && ticket.open_slots == 0 && ticket.held.empty() &&
      (ticket.released >= ticket.members || !ticket.lease)) {
    end_ticket(ticket.name, now);
  }
}

void CacheImpl::end_ticket(const TicketName& name, Instant now) {
  Ticket* ticket = find_ticket(name);
  if (ticket == nullptr) return;
  let_go(*ticket, now);
  let_go_tails(*ticket, now);
  for (ClientIx client : ticket->joined)
    clients_[client].tickets.erase(name);
  for (std::uint32_t s = 0; ticket->open_slots > 0 && s < slots_.size(); ++s) {
    if (slots_[s].open && !slots_[s].copying && slots_[s].object != kNil &&
        slots_[s].ticket == name)
      discard_unborn(slots_[s].object, now);
  }
  const NodeIx anchor = ticket->anchor.node;
  if (tuner_ && ticket->finished && !ticket->lost) tell_tuner(*ticket);
  if (traits_.wants_paths) {
    for (const auto& victims : victims_) {
      for (NodeIx n = anchor; n != kNil; n = index_.node(n).parent)
        victims->passed(n);
    }
  }
  TicketMap::node_type node = tickets_.extract(name);
  if (spare_tickets_.size() < kSpareTickets && node.mapped().tokens.capacity() <= kSpareTokens)
    spare_tickets_.push_back(std::move(node));
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
    if (!ticket.lease && !ticket.held.empty() && ticket.hold == HoldKind::soft &&
        ticket.loading == 0 && now > ticket.soft_until)
      stale.push_back(name);
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
