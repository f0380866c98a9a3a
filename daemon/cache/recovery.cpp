#include "base/log.hpp"
#include "daemon/cache/cache_impl.hpp"

#include <algorithm>

namespace statecached {

Result<std::uint64_t> CacheImpl::recover(Instant now, std::int64_t wall_now) {
  SC_TRY(recover_begin(now, wall_now));
  while (recovery_ != nullptr) {
    static_cast<void>(recover_some(now));
    if (catalog_unread_)
      return fail(Errc::io, "the catalog cannot be read to its end: see the log");
  }
  submit_deletes(now);
  pump();
  return recovered_;
}

Result<> CacheImpl::recover_begin(Instant now, std::int64_t wall_now) {
  started_ = now;
  wall_at_start_ = wall_now;
  if (seams_.catalog == nullptr) return {};
  recovery_ = std::make_unique<Recovery>();
  recovery_->wall_now = wall_now;
  return seams_.catalog->load_begin([&](CatalogRow&& row) { recover_row(std::move(row), now); });
}

/// Rows first, then the order of eviction. Returns how much was done: 0 when rows are to come that
/// have not been read yet.
std::size_t CacheImpl::recover_some(Instant now) {
  if (!recovery_->reading) {
    const std::size_t before = recovery_->next_node;
    recovery_queue(now);
    return recovery_ == nullptr ? 1 : recovery_->next_node - before;
  }
  std::size_t rows = 0;
  const auto last = seams_.catalog->load_some(kRowsPerStep, [&](CatalogRow&& row) {
    ++rows;
    recover_row(std::move(row), now);
  });
  if (last && !*last) return rows;
  if (!last) {
    // Where the unread rows' objects lie is not known, so nothing may be written.
    catalog_unread_ = true;
    ++counters_.catalog_errors;
    log::error(
        "the catalog cannot be read to its end: {}. What was read is served; nothing is written to "
        "NVMe before the next start",
        last.error().message());
  }
  if (recovery_->rejected > 0)
    log::warn("{} stored objects could not be taken over; their rows are deleted",
              recovery_->rejected);
  log::info("{} objects on NVMe were taken over from the catalog in {:.2f} s",
            recovered_,
            seconds(now - started_));
  recovery_->reading = false;
  recovery_->seen = {};
  return rows + 1;
}

/// Nothing on NVMe is given up while rows come in, so the order of eviction is made once, at the
/// end.
void CacheImpl::recovery_queue(Instant now) {
  static_cast<void>(now);
  const std::size_t last = std::min(index_.node_slots(), recovery_->next_node + kRowsPerStep);
  for (; recovery_->next_node < last; ++recovery_->next_node) {
    const auto node = static_cast<NodeIx>(recovery_->next_node);
    if (index_.node(node).alive && index_.node(node).in_tier[index(Tier::nvme)] > 0) requeue(node);
  }
  if (recovery_->next_node == index_.node_slots()) recovery_.reset();
}

void CacheImpl::recover_row(CatalogRow&& any, Instant now) {
  if (auto* ns = std::get_if<NamespaceRow>(&any); ns != nullptr) {
    if (ns->number == 0 || ns->number > 1U << 20U) return;
    if (spaces_.size() < ns->number) spaces_.resize(ns->number);
    SpaceInfo& space = spaces_[ns->number - 1];
    space.fingerprint = ns->spec.fingerprint();
    space.spec = std::move(ns->spec);
    space.trust_domain = ns->trust_domain;
    space.generation = ns->generation;
    space.durable = true;
    space.row_sent = true;
    space.has_end = std::any_of(space.spec.groups.begin(),
                                space.spec.groups.end(),
                                [](const Group& g) { return g.need == Need::end; });
    space.speeds.engine_flops = options_.engine_flops;
    space.speeds.load = {1e12, options_.host_bytes_per_second, options_.nvme_bytes_per_second};
  } else if (auto* domain = std::get_if<DomainRow>(&any); domain != nullptr) {
    if (domain->ns == 0 || domain->ns > spaces_.size()) return;
    SpaceInfo& space = spaces_[domain->ns - 1];
    auto [it, fresh] = space.domains.try_emplace(domain->domain);
    if (!fresh) return;
    it->second = {domain->number, add_domain_root(domain->ns - 1, domain->number), true};
    space.next_domain = std::max(space.next_domain, domain->number + 1);
    auto& known = recovery_->domains;
    if (known.size() < domain->ns) known.resize(domain->ns);
    auto& numbers = known[domain->ns - 1];
    if (domain->number > 1U << 24U) return;
    if (numbers.size() <= domain->number) numbers.resize(domain->number + 1U);
    numbers[domain->number] = &it->second;
  } else if (auto* object = std::get_if<ObjectRow>(&any); object != nullptr) {
    if (object->ns > 0 && object->ns <= spaces_.size()) {
      SpaceInfo& space = spaces_[object->ns - 1];
      space.next_number = std::max(space.next_number, object->number + 1);
    }
    if (recover_object(*object, now)) {
      ++recovered_;
    } else {
      ++recovery_->rejected;
      reject_row(*object);
    }
  }
}

/// Its row is deleted, and what it names of the drives is not used before that is durable.
void CacheImpl::reject_row(const ObjectRow& row) {
  deleting_.rows.push_back({row.ns, row.number});
  for (const DiskExtent& extent : row.extents) {
    if (extent.path >= disks_.size() ||
        extent.extent.offset + extent.extent.bytes > disks_[extent.path].capacity())
      continue;
    const PageRun whole = to_page_run(extent.extent);
    PageRuns mine;
    if (disks_[extent.path].allocate_at(PageRuns(1, whole))) {
      mine.push_back(whole);
    } else {  // another row has some of it
      for (std::uint32_t page = 0; page < whole.count; ++page) {
        const PageRuns one(1, PageRun{whole.at + page, 1});
        if (disks_[extent.path].allocate_at(one)) mine.push_back(one.front());
      }
    }
    if (mine.empty()) continue;
    freeing_bytes_ += bytes_of(mine);
    deleting_.runs.emplace_back(extent.path, mine);
  }
}

/// Takes one row over; false when it cannot be: another generation, a parent that is gone, space
/// that is not there or taken.
bool CacheImpl::recover_object(const ObjectRow& row, Instant now) {
  if (row.ns == 0 || row.ns > spaces_.size()) return false;
  const SpaceInfo& space = spaces_[row.ns - 1];
  if (row.generation != space.generation || row.group >= space.spec.groups.size() ||
      row.extents.empty())
    return false;
  const Group& group = space.spec.groups[row.group];
  if (row.ns > recovery_->domains.size() || row.domain >= recovery_->domains[row.ns - 1].size())
    return false;
  const DomainInfo* domain = recovery_->domains[row.ns - 1][row.domain];
  if (domain == nullptr || row.checksums.size() != group.shards) return false;
  Object object;
  object.space = row.ns - 1;
  object.group = row.group;
  object.need = group.need;
  object.first = row.first;
  object.end = row.end;
  object.full = group.need == Need::every && row.end - row.first == group.block_tokens;
  object.bytes = padded_bytes(row.payload_bytes, group.shards);
  Position from{domain->root, 0};
  const auto key = [&](ObjectNumber number) { return std::uint64_t{row.ns} << 44U ^ number; };
  for (std::size_t p = 0; p < row.parents.size(); ++p) {
    const auto parent = recovery_->seen.find(key(row.parents[p]));
    if (parent == recovery_->seen.end() || p >= kEveryGroupsMax) return false;
    // It may have been dropped since, and its place given to another.
    const Object& that = index_.object(parent->second);
    if (that.state != ObjectState::visible || !that.in(Tier::nvme) || !that.full ||
        that.space != object.space)
      return false;
    if (residents_[parent->second].number != row.parents[p]) return false;
    object.parents[p] = parent->second;
    if (that.end > from.at) from = {that.node, that.end};
  }
  const bool keyed = space.spec.addressing == Addressing::keys;
  if (keyed) {
    if (!place_run(row, from, object)) return false;
  } else if (std::uint64_t{from.at} + row.symbols.size() != row.end || row.end == 0) {
    return false;
  }
  PageRuns runs;
  for (const DiskExtent& extent : row.extents) {
    if (extent.path != row.extents.front().path || extent.path >= disks_.size()) return false;
    if (extent.extent.offset + extent.extent.bytes > disks_[extent.path].capacity()) return false;
    runs.push_back(to_page_run(extent.extent));
  }
  if (bytes_of(runs) != object.bytes || !disks_[row.extents.front().path].allocate_at(runs))
    return false;

  const Instant used =
      now - std::chrono::seconds(std::max<std::int64_t>(0, recovery_->wall_now - row.last_used));
  const Position at = keyed ? insert_recovered_run(row, from, used)
                            : index_.grow(from, {row.symbols, row.marks, from.at}, used);
  NodeIx node = index_.node_at(at.node, object.end);
  if (group.need == Need::end) node = index_.split({node, object.end});
  // One that is being stored anew does not count: it will find that this one is there, and go.
  for (ObjectIx other : index_.node(node).objects) {
    const Object& that = index_.object(other);
    const bool same = that.group == row.group && that.first == object.first &&
                      that.end == object.end && that.state == ObjectState::visible;
    if (same) return recover_copy(other, row, runs, now);
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
  resident.tenant = tenant_named(row.tenant, row.ns - 1);
  Node& home = index_.node(node);
  home.last_use = std::max(home.last_use, used);
  index_.enter(o, Tier::nvme);
  ++spaces_[object.space].objects;
  spaces_[object.space].bytes[index(Tier::nvme)] += object.bytes;
  ++object_count_[index(Tier::nvme)];
  tenants_[resident.tenant].bytes[index(Tier::nvme)] += object.bytes;
  recovery_->seen.emplace(key(row.number), o);
  return true;
}

/// It is known already: an engine stored it anew before its row was read, and there is one object
/// with a copy in memory and one on NVMe. Or there are two rows of it, since a write that failed
/// was there all the same, or a delete was not: the later one is the one that may have been
/// reported durable.
bool CacheImpl::recover_copy(ObjectIx o, const ObjectRow& row, const PageRuns& runs, Instant now) {
  const Object& object = index_.object(o);
  Resident& resident = residents_[o];
  const auto durable = [&](ObjectIx p) { return p == kNil || index_.object(p).in(Tier::nvme); };
  const bool other_bytes =
      !resident.sums.empty() &&
      !std::equal(
          resident.sums.begin(), resident.sums.end(), row.checksums.begin(), row.checksums.end());
  const bool same = resident.id == row.id && resident.payload == row.payload_bytes &&
                    resident.domain == row.domain && !other_bytes &&
                    std::all_of(object.parents.begin(), object.parents.end(), durable);
  if (!same) {
    disks_[row.extents.front().path].free(runs);
    return false;
  }
  const bool again = object.in(Tier::nvme);
  if (again) {
    for (ObjectIx child : children_of(o)) {
      // they hang on the other row
      if (index_.object(child).in(Tier::nvme)) forget_below(child, Reason::superseded, now);
    }
    forget_row(o);
  }
  resident.path = row.extents.front().path;
  resident.disk = runs;
  resident.sums.assign(row.checksums.begin(), row.checksums.end());
  resident.number = row.number;
  if (!again) entered(o, Tier::nvme, now);
  recovery_->seen.emplace(std::uint64_t{row.ns} << 44U ^ row.number, o);
  return true;
}

}  // namespace statecached
