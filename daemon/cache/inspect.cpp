#include "daemon/cache/cache_impl.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace statecached {

std::string CacheImpl::display_name(NamespaceIx ns) const {
  const SpaceInfo& space = spaces_.at(ns);
  const auto same = std::count_if(spaces_.begin(), spaces_.end(), [&](const SpaceInfo& other) {
    return !other.removed && other.spec.name == space.spec.name;
  });
  return same > 1 ? fmt::format("{}@{}", space.spec.name, to_hex(space.fingerprint, 4))
                  : space.spec.name;
}

Result<NamespaceIx> CacheImpl::find_namespace(std::string_view name) const {
  std::vector<NamespaceIx> found;
  for (NamespaceIx ns = 0; ns < spaces_.size(); ++ns) {
    const SpaceInfo& space = spaces_[ns];
    if (space.removed || space.spec.name.empty()) continue;
    if (space.spec.name == name ||
        fmt::format("{}@{}", space.spec.name, to_hex(space.fingerprint, 4)) == name)
      found.push_back(ns);
  }
  if (found.size() == 1) return found.front();
  if (found.empty())
    return fail(Errc::not_found,
                fmt::format("no namespace \"{}\": `statecachectl namespaces` lists them", name));
  return fail(Errc::invalid_argument,
              fmt::format("several namespaces are called \"{}\": use one of name@first-8-hex as "
                          "`statecachectl namespaces` shows them",
                          name));
}

TierStatus CacheImpl::tier_status(Tier tier) const {
  TierStatus status;
  status.objects = object_count_[index(tier)];
  status.held_bytes = held_bytes_[index(tier)];
  const auto add = [&](const auto& space) {
    status.capacity += space.capacity();
    status.used += space.used();
    status.peak += space.peak();
  };
  if (tier == Tier::device) add(device_);
  if (tier == Tier::host) add(host_);
  if (tier == Tier::nvme) std::for_each(disks_.begin(), disks_.end(), add);
  return status;
}

ObjectStatus CacheImpl::status_of(ObjectIx o, Instant now) const {
  const Object& object = index_.object(o);
  const Node& node = index_.node(object.node);
  ObjectStatus status;
  status.id = residents_[o].id;
  status.ns = object.space;
  status.group = object.group;
  status.first = object.first;
  status.end = object.end;
  status.bytes = object.bytes;
  for (std::size_t t = 0; t < kTiers; ++t)
    status.in[t] = object.in(t);
  status.age = now - node.last_use;
  status.keep_value = reuse_.rate(reuse_class(index_, object.node), status.age) *
                      terms(object.node, object.highest()).efficiency();
  status.holds = object.holds;
  return status;
}

/// One row a node of the path, and one for what of the prompt is not in the tree at all.
std::vector<ExplainRow> CacheImpl::explain(std::span<const NodeIx> path,
                                           Position end,
                                           std::uint32_t wanted,
                                           NamespaceIx ns,
                                           Instant now) const {
  std::vector<ExplainRow> rows;
  const SpaceInfo& space = spaces_[ns];
  for (NodeIx ix : path) {
    const Node& node = index_.node(ix);
    ExplainRow row;
    row.from = node.start;
    row.to = std::min(node.end, end.at);
    for (ObjectIx o : node.objects) {
      const Object& object = index_.object(o);
      if (object.state != ObjectState::visible || object.end > row.to) continue;
      if (object.need == Need::end) {
        row.checkpoint = object.end == node.end;
        row.checkpoint_tier = object.highest();
      } else {
        ++row.kv_blocks;
        row.kv_tier =
            row.kv_tier == Tier::none ? object.highest() : std::max(row.kv_tier, object.highest());
      }
    }
    std::uint32_t due = 0;
    for (const Group& group : space.spec.groups) {
      if (group.need == Need::every)
        due += row.to / group.block_tokens - row.from / group.block_tokens;
    }
    row.kv_blocks_missing = due > row.kv_blocks ? due - row.kv_blocks : 0;
    const Tier tier = row.checkpoint ? row.checkpoint_tier : row.kv_tier;
    if (tier != Tier::none) {
      const SegmentTerms value = terms(ix, tier);
      row.seconds_saved = value.seconds_saved;
      row.bytes_freed = value.bytes_freed;
      row.age = now - node.last_use;
      row.reuse_rate = reuse_.rate(reuse_class(index_, ix), row.age);
      row.keep_value = row.reuse_rate * value.efficiency();
    }
    if (row.to < node.end) {
      row.why =
          "the prompt leaves the stored sequence inside this segment; nothing can resume here "
          "before a checkpoint is stored at this depth";
    } else if (node.evicted_tier != Tier::none &&
               (row.kv_blocks_missing > 0 || (space.has_end && !row.checkpoint))) {
      row.why = fmt::format("{} given up by the {} tier {:.1f} s ago, for capacity",
                            node.evicted_state ? "checkpoint" : "KV",
                            to_string(node.evicted_tier),
                            seconds(now - node.evicted_at));
    } else if (space.has_end && !row.checkpoint) {
      row.why = "no checkpoint was ever stored at this depth";
    } else if (row.kv_blocks_missing > 0) {
      row.why = "these KV blocks were never stored on this branch";
    }
    rows.push_back(std::move(row));
  }
  if (end.at < wanted) {
    ExplainRow row;
    row.from = end.at;
    row.to = wanted;
    row.why = "never stored, or forgotten with everything below it";
    rows.push_back(std::move(row));
  }
  return rows;
}

std::uint64_t CacheImpl::drop_namespace_objects(NamespaceIx ns, Reason reason, Instant now) {
  std::vector<ObjectIx> list;
  for (ObjectIx o = 0; o < index_.object_slots(); ++o) {
    if (index_.object(o).state != ObjectState::free && index_.object(o).space == ns)
      list.push_back(o);
  }
  SpaceInfo& space = spaces_[ns];
  keep_generation(space, now);
  if (space.row_sent) deleting_.renewed.push_back(ns);
  space.durable = false;
  kill_of(ns, list, reason, now);
  return list.size();
}

Result<> CacheImpl::audit() const {
  if (const std::string wrong = index_.check(); !wrong.empty()) return fail(Errc::internal, wrong);
  SC_TRY(device_.check());
  SC_TRY(host_.check());
  std::array<std::uint64_t, 2> used{};
  std::array<std::uint64_t, kTiers> held{}, count{};
  // objects, then bytes by tier
  std::vector<std::array<std::uint64_t, kTiers + 1>> of(spaces_.size());
  std::uint64_t disk = 0;
  for (ObjectIx o = 0; o < index_.object_slots(); ++o) {
    const Object& object = index_.object(o);
    if (object.state == ObjectState::free) continue;
    const Resident& resident = residents_[o];
    for (std::size_t t = 0; t < 2; ++t)
      used[t] += bytes_of(resident.runs[t]);
    disk += bytes_of(resident.disk);
    if (object.tiers != 0) ++of[object.space][kTiers];
    for (std::size_t t = 0; t < kTiers; ++t) {
      if (!object.in(t)) continue;
      ++count[t];
      of[object.space][t] += object.bytes;
      if (object.holds > 0) held[t] += object.bytes;
    }
  }
  std::vector<TenantStatus> tenants(tenants_.size());
  for (ObjectIx o = 0; o < index_.object_slots(); ++o) {
    const Object& object = index_.object(o);
    if (object.state == ObjectState::free) continue;
    TenantStatus& tenant = tenants.at(residents_[o].tenant);
    if (object.state == ObjectState::writing || object.state == ObjectState::committed)
      tenant.writing += object.bytes;
    for (std::size_t t = 0; t < kTiers; ++t) {
      if (object.in(t)) tenant.bytes[t] += object.bytes;
    }
  }
  for (std::size_t i = 0; i < tenants.size(); ++i) {
    if (tenants[i].bytes != tenants_[i].bytes || tenants[i].writing != tenants_[i].writing) {
      return fail(Errc::internal, fmt::format("what tenant {} has does not add up", i));
    }
  }
  for (const auto& [number, waiting] : condemned_)
    used[index(waiting.tier)] += bytes_of(waiting.runs);
  used[index(Tier::host)] += bytes_of(quarantined_);
  for (const Adoption& waiting : adopting_)
    used[index(Tier::host)] += bytes_of(waiting.runs);
  if (!verifies_.empty()) used[index(Tier::host)] += verifies_.front().buffered;
  const auto differs = [](const char* what, std::uint64_t is, std::uint64_t should) {
    return fail(Errc::internal,
                fmt::format("{} is {}, the objects add up to {}", what, is, should));
  };
  for (NamespaceIx ns = 0; ns < spaces_.size(); ++ns) {
    if (of[ns][kTiers] != spaces_[ns].objects)
      return differs("objects of a namespace", spaces_[ns].objects, of[ns][kTiers]);
    for (std::size_t t = 0; t < kTiers; ++t) {
      if (of[ns][t] != spaces_[ns].bytes[t])
        return differs("bytes of a namespace", spaces_[ns].bytes[t], of[ns][t]);
    }
  }
  if (used[0] != device_.used())
    return differs("space used in the device tier", device_.used(), used[0]);
  if (used[1] != host_.used()) return differs("space used in the host tier", host_.used(), used[1]);
  std::uint64_t disks_used = 0;
  for (const Space& space : disks_) {
    SC_TRY(space.check());
    disks_used += space.used();
  }
  if (disks_used != disk + freeing_bytes_)
    return differs("space used on NVMe", disks_used, disk + freeing_bytes_);
  for (std::size_t t = 0; t < kTiers; ++t) {
    if (held[t] != held_bytes_[t]) return differs("held bytes", held_bytes_[t], held[t]);
    if (count[t] != object_count_[t]) return differs("objects", object_count_[t], count[t]);
  }
  return {};
}

}  // namespace statecached
