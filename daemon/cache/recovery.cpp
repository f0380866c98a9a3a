#include "daemon/cache/cache_impl.hpp"

#include <algorithm>

namespace statecached {

Result<std::uint64_t> CacheImpl::recover(Instant now, std::int64_t wall_now) {
  started_ = now;
  wall_at_start_ = wall_now;
  if (seams_.catalog == nullptr) return 0;
  std::unordered_map<std::uint64_t, ObjectIx> seen;  // (namespace, number)
  std::uint64_t kept = 0;
  const auto row_seen = [&](CatalogRow&& any) {
    if (auto* ns = std::get_if<NamespaceRow>(&any); ns != nullptr) {
      if (ns->number == 0 || ns->number > 1U << 20U) return;
      if (spaces_.size() < ns->number) spaces_.resize(ns->number);
      SpaceInfo& space = spaces_[ns->number - 1];
      space.fingerprint = ns->spec.fingerprint();
      space.spec = std::move(ns->spec);
      space.trust_domain = ns->trust_domain;
      space.generation = ns->generation;
      space.durable = true;
      space.has_end = std::any_of(space.spec.groups.begin(), space.spec.groups.end(), [](const Group& g) { return g.need == Need::end; });
      space.speeds.engine_flops = options_.engine_flops;
      space.speeds.load = {1e12, options_.host_bytes_per_second, options_.nvme_bytes_per_second};
    } else if (auto* domain = std::get_if<DomainRow>(&any); domain != nullptr) {
      if (domain->ns == 0 || domain->ns > spaces_.size()) return;
      SpaceInfo& space = spaces_[domain->ns - 1];
      auto [it, fresh] = space.domains.try_emplace(domain->domain);
      if (!fresh) return;
      it->second = {domain->number, index_.add_root(domain->ns - 1), true};
      space.next_domain = std::max(space.next_domain, domain->number + 1);
    } else if (auto* object = std::get_if<ObjectRow>(&any); object != nullptr) {
      const ObjectKey key{object->ns, object->number};
      if (key.ns > 0 && key.ns <= spaces_.size()) {
        SpaceInfo& space = spaces_[key.ns - 1];
        space.next_number = std::max(space.next_number, key.number + 1);
      }
      if (recover_object(std::move(*object), seen, now, wall_now)) {
        ++kept;
      } else {
        deleting_rows_.push_back(key);
      }
    }
  };
  SC_TRY(seams_.catalog->load(row_seen));
  submit_deletes(now);
  pump();
  return kept;
}

/// Takes one row over; false when it cannot be: another generation, a parent that is gone, space that is
/// not there or taken. Its row is deleted then.
bool CacheImpl::recover_object(ObjectRow&& row, std::unordered_map<std::uint64_t, ObjectIx>& seen, Instant now, std::int64_t wall_now) {
  if (row.ns == 0 || row.ns > spaces_.size()) return false;
  const SpaceInfo& space = spaces_[row.ns - 1];
  if (row.generation != space.generation || row.group >= space.spec.groups.size() || row.extents.empty()) return false;
  const Group& group = space.spec.groups[row.group];
  const auto domain = std::find_if(space.domains.begin(), space.domains.end(), [&](const auto& entry) { return entry.second.number == row.domain; });
  if (domain == space.domains.end() || row.checksums.size() != group.shards) return false;
  Object object;
  object.space = row.ns - 1;
  object.group = row.group;
  object.need = group.need;
  object.first = row.first;
  object.end = row.end;
  object.full = group.need == Need::every && row.end - row.first == group.block_tokens;
  object.bytes = padded_bytes(row.payload_bytes, group.shards);
  Position from{domain->second.root, 0};
  const auto key = [&](ObjectNumber number) { return std::uint64_t{row.ns} << 44U ^ number; };
  for (std::size_t p = 0; p < row.parents.size(); ++p) {
    const auto parent = seen.find(key(row.parents[p]));
    if (parent == seen.end() || p >= kEveryGroupsMax || !index_.object(parent->second).full) return false;
    object.parents[p] = parent->second;
    if (index_.object(parent->second).end > from.at) from = {index_.object(parent->second).node, index_.object(parent->second).end};
  }
  if (std::uint64_t{from.at} + row.symbols.size() != row.end || row.end == 0) return false;
  PageRuns runs;
  for (const DiskExtent& extent : row.extents) {
    if (extent.path != row.extents.front().path || extent.path >= disks_.size()) return false;
    if (extent.extent.offset + extent.extent.bytes > disks_[extent.path].capacity()) return false;
    runs.push_back(to_page_run(extent.extent));
  }
  if (bytes_of(runs) != object.bytes || !disks_[row.extents.front().path].allocate_at(runs)) return false;

  const Instant used = now - std::chrono::seconds(std::max<std::int64_t>(0, wall_now - row.last_used));
  const Position at = index_.insert(from, {row.symbols, row.marks, from.at}, used);
  NodeIx node = index_.node_at(at.node, row.end);
  if (group.need == Need::end) node = index_.split({node, row.end});
  if (index_.find(node, row.group, row.first, row.end) != kNil) {
    disks_[row.extents.front().path].free(runs);
    return false;
  }
  const ObjectIx o = index_.add_object(node, object);
  index_.object(o).state = ObjectState::visible;
  if (o >= residents_.size()) residents_.resize(o + 1U);
  Resident& resident = residents_[o];
  resident = Resident{};
  resident.path = row.extents.front().path;
  resident.disk = runs;
  resident.sums.assign(row.checksums.begin(), row.checksums.end());
  resident.id = row.id;
  resident.number = row.number;
  resident.domain = row.domain;
  resident.payload = row.payload_bytes;
  resident.shards = group.shards;
  resident.hits = row.hits;
  Node& home = index_.node(node);
  home.last_use = std::max(home.last_use, used);
  entered(o, Tier::nvme, now);
  seen.emplace(key(row.number), o);
  return true;
}

}  // namespace statecached
