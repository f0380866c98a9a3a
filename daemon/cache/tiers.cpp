#include "daemon/cache/cache_impl.hpp"

#include <algorithm>

namespace statecached {

bool CacheImpl::present(Tier tier) const noexcept {
  if (tier == Tier::device) return options_.device_bytes > 0;
  if (tier == Tier::host) return options_.host_bytes > 0;
  return tier == Tier::nvme && !disks_.empty();
}

Tier CacheImpl::below(Tier tier) const noexcept {
  for (std::size_t t = index(tier) + 1; t < kTiers; ++t) {
    if (present(static_cast<Tier>(t))) return static_cast<Tier>(t);
  }
  return Tier::none;
}

/// Space in a memory tier, giving up clean victims for it. All or nothing.
bool CacheImpl::allocate(Tier tier,
                         std::uint64_t bytes,
                         bool contiguous,
                         PageRuns& out,
                         Instant now,
                         double worth) {
  Regions& space = space_of(tier);
  if (bytes > space.capacity()) return false;
  while (!space.allocate(bytes, contiguous, out)) {
    const std::uint64_t missing = bytes > space.available() ? bytes - space.available() : bytes;
    if (evict(tier, missing, now, worth) == 0) return false;
  }
  return true;
}

/// More is stored than the drives take, or they take nothing: then the least valuable of what waits
/// to be written makes room. Refusing what comes would cost more: it is newer, and all that hangs
/// on it is refused too.
bool CacheImpl::writes_behind() const noexcept {
  return nvme_down_ || batches_.size() >= kBatchesMax;
}

/// What comes down from the device stays in the host tier while the device has it: given up to make
/// room for the next copy, it would have to come down again.
bool CacheImpl::backs_device() const noexcept {
  return disks_.empty() && present(Tier::device) && options_.policy.demotion != Demotion::never;
}

/// Where the least valuable of what has no copy below must go, since nothing else would make room.
/// Of the device: nothing is on its way down, and host memory has no room or will have none, for
/// what fills it is what the device's state hangs on.
bool CacheImpl::gives_up_unwritten(Tier tier) const noexcept {
  if (only_clean_) return false;
  if (tier == Tier::host) return writes_behind();
  return tier == Tier::device &&
         (down_blocked_ || (backs_device() && moving_bytes_[index(Tier::device)] == 0));
}

std::uint64_t CacheImpl::evict(Tier tier, std::uint64_t bytes, Instant now, double worth) {
  std::uint64_t freed = 0;
  EvictionPolicy& victims = *victims_[index(tier)];
  while (freed < bytes) {
    NodeIx node = kNil;
    settle_queues(now);
    {
      const PolicyTime time(*this);
      node = victims.best(Lane::clean, now);
      if (node == kNil && gives_up_unwritten(tier)) node = victims.best(Lane::dirty, now);
    }
    if (node == kNil || (worth < kAnyWorth && victims.best_value() >= worth)) break;
    const std::uint64_t got = traits_.whole_nodes ? evict_whole(node, tier, now)
                                                  : evict_node(node, tier, bytes - freed, now);
    freed += got;
    requeue(node);
    if (got == 0) {  // it would be chosen for ever
      settle_queues(now);
      victims.erase(node);
    }
  }
  return freed;
}

bool CacheImpl::droppable(ObjectIx o, Tier tier) const {
  const Object& object = index_.object(o);
  for (std::size_t t = index(tier) + 1; t < kTiers; ++t) {
    if (object.in(t)) return true;
  }
  const Tier lower = below(tier);
  if (lower == Tier::none || options_.policy.demotion == Demotion::never) return true;
  // from the device too: coming down would only be given up again
  return residents_[o].not_worth_disk;
}

/// First what resumes there (checkpoints), then KV from the tail. Under `lru` a checkpoint goes
/// only with its node's tail, as in the paper's baseline.
bool CacheImpl::next_victim(NodeIx ix, Tier tier, ObjectIx& victim) const {
  const Node& node = index_.node(ix);
  if (!node.alive || node.in_tier[index(tier)] == 0) return false;
  const int kids = traits_.whole_nodes ? children_in(node, tier) : 0;
  if (kids > (traits_.single_child ? 1 : 0)) return false;
  for (auto it = node.objects.rbegin(); it != node.objects.rend(); ++it) {
    const Object& object = index_.object(*it);
    if (kids > 0 && object.need != Need::end) return false;
    // Still being filled: what has been stored is held by what comes after it.
    if (object.state == ObjectState::writing || object.state == ObjectState::committed)
      return false;
    if (!object.in(tier)) continue;
    // What lies in memory too is left on the drive: else it would be dirty again, and write-behind
    // would go round in circles, each batch putting out what the one before it wrote.
    if (tier == Tier::nvme && (object.in(Tier::host) || object.in(Tier::device))) {
      if (object.need != Need::end) return false;
      continue;
    }
    // The same between device and host where nothing lies below.
    if (tier == Tier::host && object.in(Tier::device) && backs_device()) {
      if (object.need != Need::end) return false;
      continue;
    }
    if (object.holds == 0 && object.state == ObjectState::visible &&
        index_.may_leave(object, tier)) {
      const bool lost = object.tiers == 1U << index(tier) && droppable(*it, tier);
      if (traits_.learns && lost && carries_checkpoint_above(*it)) return false;
      victim = *it;
      return true;
    }
    if (object.need != Need::end) return false;
  }
  return false;
}

std::uint64_t CacheImpl::evict_node(NodeIx ix, Tier tier, std::uint64_t bytes, Instant now) {
  std::uint64_t freed = 0;
  ObjectIx victim = kNil;
  while (freed < bytes && next_victim(ix, tier, victim) &&
         (droppable(victim, tier) || gives_up_unwritten(tier))) {
    freed += index_.object(victim).bytes;
    Node& node = index_.node(ix);
    node.evicted_tier = tier;
    node.evicted_at = now;
    node.evicted_state = index_.object(victim).need == Need::end;
    ++counters_.evictions;
    if (tier != Tier::nvme && gives_up_unwritten(tier) &&
        index_.object(victim).tiers == 1U << index(tier))
      ++counters_.dropped_unwritten;
    drop_copy(victim, tier, Reason::capacity, now);
  }
  return freed;
}

/// Gives up one copy; the last one forgets the object.
void CacheImpl::drop_copy(ObjectIx o, Tier tier, Reason reason, Instant now) {
  static_cast<void>(now);
  Object& object = index_.object(o);
  Resident& resident = residents_[o];
  const std::uint64_t bytes = object.bytes;
  if (tier == Tier::host) unkeep(o);
  tenants_[resident.tenant].bytes[index(tier)] -= bytes;
  index_.leave(o, tier);
  spaces_[object.space].bytes[index(tier)] -= bytes;
  if (object.tiers == 0) --spaces_[object.space].objects;
  if (object.holds > 0) held_bytes_[index(tier)] -= bytes;
  --object_count_[index(tier)];
  if (tier == Tier::nvme) {
    forget_row(o);
  } else {
    if (resident.prefetched && tier == Tier::host) counters_.prefetched_unused_bytes += bytes;
    resident.prefetched = resident.prefetched && tier != Tier::host;
    space_of(tier).free(resident.runs[index(tier)]);
    resident.runs[index(tier)].clear();
  }
  ++counters_.evicted[index(tier)][static_cast<std::size_t>(reason)];
  const NodeIx node = object.node;
  const bool state = object.need == Need::end;
  std::array<ObjectIx, kEveryGroupsMax> parents = object.parents;
  if (object.tiers == 0) {
    counters_.bytes_dropped += bytes;
    event(EventKind::dropped, reason, tier, o);
    residents_[o] = Resident{};
    index_.remove_object(o);
  } else {
    event(EventKind::demoted, reason, static_cast<Tier>(index(object.highest())), o);
  }
  requeue(node);
  for (ObjectIx parent : parents) {
    if (parent != kNil) requeue(index_.object(parent).node);
  }
  if (state && index_.node(node).alive) requeue_around(node);
}

void CacheImpl::drop_everywhere(ObjectIx o, Reason reason, Instant now) {
  for (const Tier tier : {Tier::device, Tier::host, Tier::nvme}) {
    const Object& object = index_.object(o);
    if (object.state == ObjectState::free || !object.in(tier)) continue;
    const bool last = (object.tiers & ~(1U << index(tier))) == 0;
    drop_copy(o, tier, reason, now);
    if (last) return;
  }
}

std::vector<ObjectIx> CacheImpl::children_of(ObjectIx o) const {
  const Object& parent = index_.object(o);
  std::vector<ObjectIx> out;
  if (!parent.full) return out;
  // A child begins or ends within the next cell, in this node or in one below it.
  const std::uint32_t reach =
      parent.end + spaces_[parent.space].spec.groups[parent.group].block_tokens;
  boost::container::small_vector<NodeIx, 16> stack{parent.node};
  while (!stack.empty()) {
    const Node& node = index_.node(stack.back());
    stack.pop_back();
    for (std::size_t i = index_.first_ending(node, parent.end); i < node.objects.size(); ++i) {
      const ObjectIx ix = node.objects[i];
      if (index_.object(ix).end > reach) break;
      const auto& parents = index_.object(ix).parents;
      if (std::find(parents.begin(), parents.end(), o) != parents.end()) out.push_back(ix);
    }
    if (node.end >= reach) continue;
    for (NodeIx c = node.first_child; c != kNil; c = index_.node(c).next_sibling)
      stack.push_back(c);
  }
  return out;
}

void CacheImpl::forget_below(ObjectIx o, Reason reason, Instant now) {
  kill(with_all_below({o}), reason, now);
}

std::vector<ObjectIx> CacheImpl::with_all_below(std::vector<ObjectIx> list) const {
  std::unordered_set<ObjectIx> seen(list.begin(), list.end());
  for (std::size_t i = 0; i < list.size(); ++i) {
    for (ObjectIx child : children_of(list[i])) {
      if (seen.insert(child).second) list.push_back(child);
    }
  }
  return list;
}

void CacheImpl::kill(const std::vector<ObjectIx>& list, Reason reason, Instant now) {
  std::vector<ObjectIx> order = list;
  const auto deeper = [&](ObjectIx a, ObjectIx b) {
    const Object& x = index_.object(a);
    const Object& y = index_.object(b);
    return std::pair{x.end, x.full ? 0 : 1} > std::pair{y.end, y.full ? 0 : 1};
  };
  std::sort(order.begin(), order.end(), deeper);
  for (ObjectIx o : order) {
    const ObjectState state = index_.object(o).state;
    if (state == ObjectState::writing || state == ObjectState::committed) discard_unborn(o, now);
    if (state == ObjectState::visible) {
      unkeep(o);
      index_.object(o).state = ObjectState::dead;
    }
  }
  for (ObjectIx o : order)
    bury(o, reason, now);
}

/// Removes a dead object when nothing holds it or hangs on it; then its parents, if they are dead
/// too.
void CacheImpl::bury(ObjectIx o, Reason reason, Instant now) {
  std::vector<ObjectIx> list{o};
  while (!list.empty()) {
    const ObjectIx ix = list.back();
    list.pop_back();
    const Object& object = index_.object(ix);
    if (object.state != ObjectState::dead || object.holds > 0) continue;
    if (std::any_of(object.dependents.begin(), object.dependents.end(), [](std::uint32_t n) {
          return n != 0;
        }))
      continue;
    for (ObjectIx parent : object.parents) {
      if (parent != kNil) list.push_back(parent);
    }
    drop_everywhere(ix, reason, now);
  }
}

void CacheImpl::hold(ObjectIx o, Instant now) {
  static_cast<void>(now);
  Object& object = index_.object(o);
  SC_ASSERT(object.state != ObjectState::free);
  if (object.holds++ > 0) return;
  for (std::size_t t = 0; t < kTiers; ++t) {
    if (object.in(t)) held_bytes_[t] += object.bytes;
  }
  // The tail of a node speaks for it; a held object in the middle changes nothing.
  if (index_.node(object.node).objects.back() == o || object.need == Need::end)
    requeue(object.node);
}

void CacheImpl::unhold(ObjectIx o, Instant now) {
  Object& object = index_.object(o);
  SC_ASSERT(object.holds > 0);
  if (--object.holds > 0) return;
  for (std::size_t t = 0; t < kTiers; ++t) {
    if (object.in(t)) held_bytes_[t] -= object.bytes;
  }
  if (object.state == ObjectState::dead) {
    bury(o, Reason::invalidated, now);
    return;
  }
  if (object.state == ObjectState::visible) requeue(object.node);
}

/// An object is in a tier from now on.
void CacheImpl::entered(ObjectIx o, Tier tier, Instant now) {
  static_cast<void>(now);
  Object& object = index_.object(o);
  SpaceInfo& space = spaces_[object.space];
  if (object.tiers == 0) ++space.objects;
  space.bytes[index(tier)] += object.bytes;
  index_.enter(o, tier);
  ++object_count_[index(tier)];
  tenants_[residents_[o].tenant].bytes[index(tier)] += object.bytes;
  if (object.holds > 0) held_bytes_[index(tier)] += object.bytes;
  requeue(object.node);
  if (tier == Tier::host) keep(o, now);
}

SegmentTerms CacheImpl::terms(NodeIx ix, Tier tier) const {
  const Node& node = index_.node(ix);
  const SpaceInfo& space = spaces_[node.space];
  const std::size_t t = index(tier);
  bool lower = t + 1 < kTiers;
  for (std::size_t below_t = t + 1; below_t < kTiers && lower; ++below_t) {
    lower = node.state_bytes[below_t] >= node.state_bytes[t] &&
            node.kv_bytes[below_t] >= node.kv_bytes[t];
    if (lower) break;
    lower = below_t + 1 < kTiers;
  }
  return segment_terms(index_, ix, tier, lower, space.spec.cost, space.has_end, space.speeds);
}

/// What the policies know of a node is out of date: they are told before they are next asked for a
/// victim. A request changes a node hundreds of times, and a victim is chosen between few of these.
void CacheImpl::requeue(NodeIx ix) {
  Node& node = index_.node(ix);
  if (node.stale) return;
  node.stale = true;
  stale_.push_back(ix);
}

/// Nodes that come and go may be listed twice, so the list is not left to grow.
void CacheImpl::trim_queues(Instant now) {
  if (stale_.size() > kStaleMax) settle_queues(now);
}

void CacheImpl::settle_queues(Instant now) {
  if (stale_.empty()) return;
  const PolicyTime time(*this);
  for (std::size_t i = 0; i < stale_.size(); ++i) {
    index_.node(stale_[i]).stale = false;
    tell_policies(stale_[i], now);
  }
  stale_.clear();
}

void CacheImpl::tell_policies(NodeIx ix, Instant now) {
  for (const Tier tier : {Tier::device, Tier::host, Tier::nvme}) {
    if (!present(tier)) continue;
    EvictionPolicy& victims = *victims_[index(tier)];
    ObjectIx victim = kNil;
    const bool held = !next_victim(ix, tier, victim);
    const Node& node = index_.node(ix);
    if (held && !(traits_.wants_held && node.alive && candidate_in(node, tier))) {
      victims.erase(ix);
      continue;
    }
    const Lane lane =
        held || tier == Tier::nvme || droppable(victim, tier) ? Lane::clean : Lane::dirty;
    double efficiency = 0;
    if (traits_.terms == PolicyTraits::Terms::seconds) efficiency = terms(ix, tier).efficiency();
    if (traits_.terms == PolicyTraits::Terms::paper)
      efficiency =
          paper_efficiency(index_, ix, tier, spaces_[node.space].spec, spaces_[node.space].has_end);
    const std::uint64_t bytes = node.kv_bytes[index(tier)] + node.state_bytes[index(tier)];
    Candidate candidate{.node = ix,
                        .lane = lane,
                        .efficiency = efficiency,
                        .bytes = bytes,
                        .last_use = node.last_use};
    candidate.used = node.used;
    candidate.hits = node.hits;
    candidate.held = held;
    if (!held) candidate.content = std::hash<ObjectId>{}(residents_[victim].id);
    if (traits_.learns) candidate.reuse = reuse_class(index_, ix);
    victims.put(candidate, now);
  }
}

void CacheImpl::submit_deletes(Instant now) {
  if (deleting_.empty() || catalog_setback_.waits(now)) return;
  CatalogBatch batch;
  batch.deletes = deleting_.rows;
  batch.drop_namespaces = deleting_.dropped;
  for (const NamespaceIx ns : deleting_.renewed)
    batch.namespaces.push_back(row_of_space(ns, now));
  const std::uint64_t number = next_batch_++;
  delete_batches_[number] = std::move(deleting_);
  deleting_ = DeleteBatch{};
  Job job;
  job.kind = JobKind::rows_deleted;
  job.batch = number;
  batch.tag = add_job(std::move(job));
  catalog_backlog_.push_back(std::move(batch));
}

}  // namespace statecached
