// What a request gets: its depths, the one that is chosen, what that holds, and the lease.

#include "daemon/cache/cache_impl.hpp"

#include <algorithm>

namespace statecached {
namespace {

constexpr std::size_t kAhead = 6;  ///< objects asked for before they are looked at

/// What a lease looks at.
void prefetch(const Resident& resident) noexcept {
  const auto* bytes = reinterpret_cast<const char*>(&resident);
  __builtin_prefetch(bytes, 1);
  __builtin_prefetch(bytes + 64, 1);
}

}  // namespace

/// The depths that the ticket could resume from, into its answer and, with what each needs, into
/// choices_, in the same order.
void CacheImpl::list_choices(Ticket& ticket, std::span<Usable> depths) {
  const SpaceInfo& space = spaces_[ticket.space];
  Answer& answer = ticket.answer;
  const double rate = space.speeds.engine_flops;
  // Depths in the tree; what the ticket and its client see counts from ticket.origin.
  const std::uint32_t offset = ticket.offset();
  const std::uint32_t base = ticket.base;
  const std::uint32_t size = ticket.prompt + offset;
  if (choices_.size() < depths.size()) choices_.resize(depths.size());
  for (std::size_t i = 0; i < depths.size(); ++i) {
    const std::uint32_t depth = depths[i].depth;
    std::vector<Cover>& covers = depths[i].covers;
    Choice& choice = choices_[i];
    choice.depth = depth;
    choice.to_load.clear();
    Point point;
    point.tokens = depth - offset;
    point.tier = Tier::device;
    double visible = 0;
    // What the engine has already is neither held nor loaded nor leased.
    std::erase_if(covers, [&](const Cover& cover) {
      const Object& object = index_.object(cover.object);
      // Of a group that looks ahead the engine holds as much as it can resume with.
      const std::uint32_t ahead = space.spec.groups[object.group].lookahead + offset;
      return cover.valid > 0
                 ? ticket.have.every != 0 && object.first + cover.valid - ahead <= ticket.have.every
                 : object.end - ahead == ticket.have.end;
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
    point.ready_in =
        point.bytes == 0 ? Nanos{} : from_seconds(load_time_.seconds(point.bytes + queued));
    point.recompute = from_seconds(space.spec.cost.flops(base, depth) / rate);
    choice.seconds = options_.follow_verdict ? visible + space.spec.cost.flops(depth, size) / rate
                                             : -static_cast<double>(depth);
    choice.bytes = point.bytes;
    choice.covers.swap(covers);
    if (point.bytes == 0) answer.usable = depth - offset;
    answer.points.push_back(point);
  }
}

/// When the last of what the chosen depth loads is there. What is on its way already, for others,
/// may be nearly there.
void CacheImpl::predict(Ticket& ticket,
                        std::span<const ObjectIx> to_load,
                        std::span<const ObjectIx> fresh,
                        Instant now) {
  for (ObjectIx o : fresh) {
    loading_bytes_ += index_.object(o).bytes;
    queued_to_ += index_.object(o).bytes;
    loads_[o].queued_to = queued_to_;
  }
  std::uint64_t last = 0;
  for (ObjectIx o : to_load)
    last = std::max(last, loads_.at(o).queued_to);
  const std::uint64_t ended = queued_to_ - loading_bytes_;
  ticket.waits_for = last > ended ? last - ended : 1;
  ticket.loading_since = now;
  ticket.predicted = from_seconds(load_time_.seconds(ticket.waits_for));
  for (Point& point : ticket.answer.points) {
    if (point.tokens == ticket.chosen) point.ready_in = ticket.predicted;
  }
}

/// Matches the ticket's sequence, lists the depths it could resume from, chooses one and holds what
/// it needs (hold != none), loading what lies on NVMe when `load`.
void CacheImpl::plan(Ticket& ticket,
                     std::uint32_t at_most,
                     bool only_ready,
                     bool load,
                     Instant now) {
  let_go(ticket, now);
  const Focus focus(*this, ticket.space);
  const SpaceInfo& space = spaces_[ticket.space];
  path_.clear();
  const std::vector<NodeIx>& path = path_;
  std::optional<PolicyTime> policy_time(std::in_place, *this);
  const Position here = match_ticket(ticket, path_);
  // Depths in the tree; what the ticket and its client see counts from ticket.origin.
  const std::uint32_t offset = ticket.offset();
  const std::uint32_t base = ticket.base;
  scan_.renew(index_, space.spec.groups, path, here, ticket.marks, base);
  const std::uint32_t size = ticket.prompt + offset;
  const std::uint32_t limit =
      std::max(ticket.origin,
               std::min(at_most, ticket.prompt - std::min(ticket.prompt, ticket.keep_back))) +
      offset;
  const std::size_t found =
      scan_.depths({limit, space.spec.resume_grid, offset}, kPointsMax, usable_);
  const std::span<Usable> depths = std::span(usable_).first(found);
  Answer& answer = ticket.answer;
  ++answer.version;
  answer.points.clear();
  answer.best = 0;
  answer.usable = 0;
  answer.stored = scan_.stored() - offset;
  answer.state = TicketState::ready;
  wished(
      ticket, here, depths.empty() ? ticket.origin : depths.back().depth - offset, limit - offset);
  list_choices(ticket, depths);
  const std::span<Choice> choices = std::span(choices_).first(depths.size());
  const double rate = space.speeds.engine_flops;
  const double from_zero = options_.follow_verdict ? space.spec.cost.flops(base, size) / rate : 0;
  std::sort(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) {
    return a.seconds < b.seconds;
  });
  ticket.again = here.at >= size;
  const NodeIx could = traits_.learns ? could_resume(ticket, path, now) : kNil;
  if (traits_.refresh_path) touch(path, kNil, now);
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
      answer.best = choice.depth - offset;
      answer.state = TicketState::pending;
      return;
    }
    if (ticket.hold == HoldKind::none) {  // only asked
      answer.best = choice.depth - offset;
      break;
    }
    if (choice.bytes > 0 && !in_time(ticket, choice.to_load, now)) {
      ++counters_.prefetch_refused;
      continue;
    }
    // Making room for a deeper choice may have evicted what this one needs.
    if (room_made && !still_there(choice)) continue;
    for (const Cover& cover : choice.covers)
      hold(cover.object, now);
    const auto put_back = [&] {
      for (const Cover& cover : choice.covers)
        unhold(cover.object, now);
    };
    // Host space is claimed whole or not at all: each object that is not yet on its way gets its
    // runs now.
    std::vector<ObjectIx>& fresh = fresh_;
    fresh.clear();
    bool fits = true;
    for (ObjectIx o : choice.to_load) {
      if (loads_.contains(o)) continue;
      const bool contiguous = space.spec.groups[index_.object(o).group].contiguous;
      if (!allocate(Tier::host,
                    index_.object(o).bytes,
                    contiguous,
                    residents_[o].runs[index(Tier::host)],
                    now)) {
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
    ticket.chosen = choice.depth - offset;
    answer.best = ticket.chosen;
    ticket.held.clear();
    for (const Cover& cover : choice.covers) {
      ticket.held.push_back({cover.object, cover.valid, index_.object(cover.object).highest()});
    }
    if (!choice.to_load.empty()) {
      ticket.loading = choice.to_load.size();
      predict(ticket, choice.to_load, fresh, now);
      answer.state = TicketState::loading;
      for (ObjectIx o : choice.to_load)
        loads_[o].waiters.push_back(ticket.name);
      start_loads(ticket, fresh, now);
    }
    if (ticket.chosen > 0 && !traits_.refresh_path && !(traits_.learns && ticket.resumed_at)) {
      const NodeIx from = index_.node_at(here.node, choice.depth);
      if (from != could) touch(path, from, now);
      ticket.resumed_at = true;
    }
    break;
  }
  if (ticket.want_lease && ticket.loading == 0) make_lease(ticket, now);
}

void CacheImpl::let_go(Ticket& ticket, Instant now) {
  if (!loads_.empty()) {
    for (const Held& held : ticket.held) {
      const auto load = loads_.find(held.object);
      if (load == loads_.end()) continue;
      std::erase(load->second.waiters, ticket.name);
      orphans_ = orphans_ || load->second.waiters.empty();
    }
  }
  letting_go_.clear();
  letting_go_.swap(ticket.held);
  ticket.loading = 0;
  ticket.chosen = 0;
  if (ticket.lease) {
    clients_[ticket.owner].leased_bytes -=
        std::min(clients_[ticket.owner].leased_bytes, ticket.leased_bytes);
    ticket.leased_bytes = 0;
    spare_pieces_.push_back(std::move(ticket.lease->pieces));
    if (spare_pieces_.size() > kSpareTickets) spare_pieces_.pop_back();
    ticket.lease.reset();
  }
  unhold_all(letting_go_, now);
  letting_go_.swap(ticket.held);
  ticket.held.clear();
}

/// As unhold() for each, deepest first, but a node is queued once for all of its objects.
void CacheImpl::unhold_all(std::span<const Held> held, Instant now) {
  NodeIx touched = kNil;
  for (std::size_t i = held.size(); i-- > 0;) {
    if (i >= kAhead) __builtin_prefetch(&index_.object(held[i - kAhead].object), 1);
    const ObjectIx o = held[i].object;
    Object& object = index_.object(o);
    SC_ASSERT(object.holds > 0);
    if (--object.holds > 0) continue;
    for (std::size_t t = 0; t < kTiers; ++t) {
      if (object.in(t)) held_bytes_[t] -= object.bytes;
    }
    const NodeIx node = object.node;
    if (touched != kNil && touched != node) {
      requeue(touched);
      touched = kNil;
    }
    if (object.state == ObjectState::dead) {
      bury(o, Reason::invalidated, now);
    } else if (object.state == ObjectState::visible) {
      touched = node;
    }
  }
  if (touched != kNil) requeue(touched);
}

/// Where [0, bytes) of a shard lies; `padded`: what each shard takes.
void CacheImpl::add_runs(const PageRuns& runs,
                         std::uint32_t arena,
                         std::uint16_t shard,
                         std::uint64_t padded,
                         std::uint64_t bytes,
                         ExtentList& out) const {
  if (runs.size() == 1) {
    out.push_back({runs.front().at * kPage + padded * shard, bytes});
    return;
  }
  for (const MemoryRun& run : shard_runs(runs, arena, shard, padded, bytes))
    out.push_back({run.at.offset, run.bytes});
}

void CacheImpl::make_lease(Ticket& ticket, Instant now) {
  const SpaceInfo& space = spaces_[ticket.space];
  std::uint64_t bytes = 0;
  for (const Held& held : ticket.held)
    bytes += index_.object(held.object).bytes;
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
  if (!spare_pieces_.empty()) {
    lease.pieces = std::move(spare_pieces_.back());
    spare_pieces_.pop_back();
    lease.pieces.clear();
  }
  std::uint16_t counted_group = UINT16_MAX;
  for (std::size_t g = 0; g < space.spec.groups.size() && counted_group == UINT16_MAX; ++g) {
    if (space.spec.groups[g].need == Need::every) counted_group = static_cast<std::uint16_t>(g);
  }
  for (std::size_t i = 0; i < ticket.held.size(); ++i) {
    const Held& held = ticket.held[i];
    if (i + kAhead < ticket.held.size()) prefetch(residents_[ticket.held[i + kAhead].object]);
    const Object& object = index_.object(held.object);
    Resident& resident = residents_[held.object];
    const Tier tier = object.highest();
    SC_ASSERT(tier == Tier::device || tier == Tier::host);
    const std::uint64_t padded = round_up(resident.payload, kPage);
    const Group& group = space.spec.groups[object.group];
    std::uint64_t payload = resident.payload;
    if (held.valid > 0 && group.token_major)
      payload = std::min(payload, space.spec.payload_bytes(object.group, held.valid));
    for (std::uint16_t shard = 0; shard < resident.shards; ++shard) {
      Piece& piece = lease.pieces.emplace_back();
      piece.group = object.group;
      piece.tier_at_begin = held.tier_at_begin;
      piece.arena = tier == Tier::device ? kDeviceArena : kHostArena;
      piece.first = object.first - ticket.offset();
      piece.valid = held.valid;
      piece.shard = shard;
      piece.payload_bytes = payload;
      add_runs(resident.runs[index(tier)], piece.arena, shard, padded, payload, piece.runs);
    }
    resident.prefetched = false;
    ++resident.hits;
    if (object.group == counted_group || (counted_group == UINT16_MAX && held.valid == 0)) {
      const std::uint32_t tokens =
          counted_group == UINT16_MAX ? ticket.chosen - ticket.origin : held.valid;
      if (held.tier_at_begin != Tier::none)
        counters_.hit_tokens[index(held.tier_at_begin)] += tokens;
    }
  }
  counters_.flops_saved += space.spec.cost.flops(ticket.origin, ticket.chosen);
  ++counters_.leases;
  ticket.resumed = ticket.chosen;
  ticket.lease = std::move(lease);
}

}  // namespace statecached
