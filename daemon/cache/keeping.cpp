// What outlives the daemon in host memory. Going down: every object of the host tier is listed in
// the table, with a checksum. Coming back: what is listed is verified and found again, the rest of
// the arena waits until it is known that no process of before uses it.

#include "base/log.hpp"
#include "daemon/cache/cache_impl.hpp"

#include <algorithm>

namespace statecached {
namespace {

/// Verifications of kept objects that are with the copier at a time: requests' own work comes
/// between.
constexpr std::size_t kAdoptionsMax = 16;

}  // namespace

// ---- while it runs -----------------------------------------------------------------------------

/// Lists an object that is in the host tier from now on, once its checksum is known.
void CacheImpl::keep(ObjectIx o, Instant now) {
  if (seams_.table == nullptr || index_.object(o).state != ObjectState::visible) return;
  Resident& resident = residents_[o];
  if (resident.kept_number == 0) resident.kept_number = next_kept_++;
  if (resident.table_slot != HostTable::kNone || keep_sums_.contains(o)) return;
  if (!resident.sums.empty()) {
    list(o, {resident.sums.data(), resident.sums.size()}, now);
    return;
  }
  hold(o, now);
  KeepSum& sum = keep_sums_[o];
  sum.sums.resize(resident.shards);
  sum.left = resident.shards;
  submit_sums(o, JobKind::keep_sum, 0, resident.runs[index(Tier::host)], kHostArena);
}

void CacheImpl::kept_sum(const Job& job, const CopyDone& done, Instant now) {
  const ObjectIx o = job.objects.front();
  KeepSum& sum = keep_sums_.at(o);
  sum.sums[job.shard] = done.checksum;
  if (--sum.left > 0) return;
  const std::vector<Checksum> sums = std::move(sum.sums);
  keep_sums_.erase(o);
  Resident& resident = residents_[o];
  // A write-behind batch that began meanwhile computes them too.
  if (resident.sums.empty()) resident.sums.assign(sums.begin(), sums.end());
  if (index_.object(o).state == ObjectState::visible && index_.object(o).in(Tier::host))
    list(o, sums, now);
  unhold(o, now);
}

void CacheImpl::unkeep(ObjectIx o) {
  if (seams_.table == nullptr) return;
  Resident& resident = residents_[o];
  if (resident.table_slot == HostTable::kNone) return;
  seams_.table->erase(resident.table_slot);
  resident.table_slot = HostTable::kNone;
  --kept_.objects;
}

void CacheImpl::write_kept_space(SpaceInfo& space, Instant now) {
  seams_.table->erase(space.kept_slot);
  space.kept_slot = seams_.table->put(
      NamespaceRow{space.kept_number, space.generation, space.trust_domain, space.spec, wall(now)});
  if (space.kept_slot != HostTable::kNone) space.kept_generation = space.generation;
}

/// A new generation stands in the table before anything is dropped for it: rows that wait to be
/// adopted are then the old one's, for the next daemon too.
void CacheImpl::keep_generation(SpaceInfo& space, Instant now) {
  if (seams_.table != nullptr && space.kept_number != 0) write_kept_space(space, now);
}

void CacheImpl::list(ObjectIx o, std::span<const Checksum> sums, Instant now) {
  const Object& object = index_.object(o);
  Resident& resident = residents_[o];
  SpaceInfo& space = spaces_[object.space];
  ObjectRow row;
  for (const ObjectIx parent : object.parents) {
    if (parent == kNil) continue;
    // One that lies on the device alone does not come back with the arena.
    if (!index_.object(parent).in(Tier::host)) return;
    row.parents.push_back(residents_[parent].kept_number);
  }
  if (space.kept_number == 0) space.kept_number = next_kept_space_++;
  if (space.kept_generation != space.generation) {
    write_kept_space(space, now);
    if (space.kept_slot == HostTable::kNone) return;
  }
  for (auto& [domain, info] : space.domains) {
    if (info.number != resident.domain) continue;
    if (info.kept_number == 0) {
      const std::uint32_t number = next_kept_domain_++;
      if (seams_.table->put(DomainRow{space.kept_number, number, domain}) == HostTable::kNone)
        return;
      info.kept_number = number;
    }
    row.domain = info.kept_number;
  }
  row.ns = space.kept_number;
  row.number = resident.kept_number;
  row.generation = space.generation;
  row.group = object.group;
  row.first = object.first;
  row.end = object.end;
  row.id = resident.id;
  if (index_.node(object.node).shape.scope != 0) {
    key_row(object, row);
  } else {
    symbols_row(object, row);
  }
  row.payload_bytes = resident.payload;
  for (const PageRun& run : resident.runs[index(Tier::host)])
    row.extents.push_back({0, to_extent(run)});
  row.checksums.assign(sums.begin(), sums.end());
  row.hits = resident.hits;
  row.last_used = wall(index_.node(object.node).last_use);
  row.tenant = tenants_[resident.tenant].options.key;
  resident.table_slot = seams_.table->put(row);
  if (resident.table_slot != HostTable::kNone) ++kept_.objects;
}

// ---- coming back -------------------------------------------------------------------------------

/// The namespaces and domains that rows name; objects are left in `rows`. False: nothing is listed.
bool CacheImpl::adopt_namespaces(std::vector<std::pair<std::uint32_t, CatalogRow>>& rows,
                                 Instant now) {
  for (auto& [slot, any] : rows) {
    auto* row = std::get_if<NamespaceRow>(&any);
    if (row == nullptr) continue;
    next_kept_space_ = std::max(next_kept_space_, row->number + 1);
    const Digest fingerprint = row->spec.fingerprint();
    NamespaceIx ix = 0;
    while (ix < spaces_.size() && (spaces_[ix].fingerprint != fingerprint ||
                                   spaces_[ix].trust_domain != row->trust_domain))
      ++ix;
    if (ix == spaces_.size()) {
      SpaceInfo& fresh = spaces_.emplace_back();
      fresh.fingerprint = fingerprint;
      fresh.trust_domain = row->trust_domain;
      fresh.generation = row->generation;
      fresh.has_end = std::any_of(row->spec.groups.begin(),
                                  row->spec.groups.end(),
                                  [](const Group& g) { return g.need == Need::end; });
      fresh.speeds.engine_flops = options_.engine_flops;
      fresh.speeds.load = {1e12, options_.host_bytes_per_second, options_.nvme_bytes_per_second};
      fresh.spec = std::move(row->spec);
    }
    SpaceInfo& space = spaces_[ix];
    if (row->generation > space.generation) {
      // It was invalidated, and the catalog had not heard of it yet.
      space.generation = row->generation;
      static_cast<void>(drop_namespace_objects(ix, Reason::invalidated, now));
    }
    space.kept_number = row->number;
    space.kept_generation = row->generation;
    space.kept_slot = slot;
  }
  return !rows.empty();
}

void CacheImpl::adopt(Instant now) {
  if (seams_.table == nullptr) return;
  quarantine_ = true;
  all_settled_ = false;
  auto rows = seams_.table->rows();
  std::unordered_map<std::uint32_t, Domain> domains;
  if (adopt_namespaces(rows, now)) {
    for (auto& [slot, any] : rows) {
      const auto* row = std::get_if<DomainRow>(&any);
      if (row == nullptr) continue;
      next_kept_domain_ = std::max(next_kept_domain_, row->number + 1);
      domains.emplace(row->number, row->domain);
      for (SpaceInfo& space : spaces_) {
        if (space.kept_number != row->ns) continue;
        std::uint32_t number = 0;
        static_cast<void>(
            domain_root(static_cast<NamespaceIx>(&space - spaces_.data()), row->domain, number));
        space.domains.at(row->domain).kept_number = row->number;
      }
    }
  }
  for (auto& [slot, any] : rows) {
    auto* row = std::get_if<ObjectRow>(&any);
    if (row == nullptr) continue;
    next_kept_ = std::max(next_kept_, row->number + 1);
    ++kept_.listed;
    Adoption adoption;
    adoption.slot = slot;
    const auto domain = domains.find(row->domain);
    const auto space = std::find_if(spaces_.begin(), spaces_.end(), [&](const SpaceInfo& s) {
      return s.kept_number == row->ns;
    });
    bool good = domain != domains.end() && space != spaces_.end() &&
                row->generation == space->generation && row->group < space->spec.groups.size() &&
                row->checksums.size() == space->spec.groups[row->group].shards;
    for (const DiskExtent& extent : row->extents) {
      good = good && extent.extent.offset + extent.extent.bytes <= host_.capacity();
      if (good) adoption.runs.push_back(to_page_run(extent.extent));
    }
    good =
        good &&
        bytes_of(adoption.runs) ==
            padded_bytes(row->payload_bytes, static_cast<std::uint16_t>(row->checksums.size())) &&
        host_.allocate_at(adoption.runs);
    if (!good) {
      ++kept_.lost;
      seams_.table->erase(slot);
      continue;
    }
    adoption.space = static_cast<NamespaceIx>(space - spaces_.begin());
    adoption.domain = domain->second;
    adoption.row = std::move(*row);
    adopting_.push_back(std::move(adoption));
  }
  // Parents end where their children begin or before, or are whole blocks where those are not. Runs
  // of keys may have floated when the row of one was written and not when that of the other was: by
  // their age, then.
  const auto order = [&](const Adoption& a) {
    const bool keyed = spaces_[a.space].spec.addressing == Addressing::keys;
    return std::tuple{
        a.space, keyed ? 0 : a.row.end, !keyed && a.row.first == a.row.end, a.row.number};
  };
  std::sort(adopting_.begin(), adopting_.end(), [&](const Adoption& a, const Adoption& b) {
    return order(a) < order(b);
  });
  for (std::size_t region = 0; region < host_.count(); ++region) {
    host_.focus(region);
    while (host_.available() > 0) {
      PageRuns runs;
      const bool taken = host_.allocate(host_.largest_free(), true, runs);
      SC_ASSERT(taken);
      quarantined_.insert(quarantined_.end(), runs.begin(), runs.end());
    }
  }
  host_.focus(Regions::kAll);
  submit_adoptions();
}

void CacheImpl::submit_adoptions() {
  while (adopting_sent_ < adopting_.size() && adopting_sent_ < kAdoptionsMax) {
    Adoption& adoption = adopting_[adopting_sent_];
    const auto shards = static_cast<std::uint16_t>(adoption.row.checksums.size());
    const std::uint64_t padded = round_up(adoption.row.payload_bytes, kPage);
    adoption.parts = shards;
    for (std::uint16_t shard = 0; shard < shards; ++shard) {
      Job job;
      job.kind = JobKind::adopt_verify;
      job.batch = adopting_done_ + adopting_sent_;
      job.shard = shard;
      CopyOp op;
      op.kind = CopyKind::verify;
      op.seed = adoption.row.id.low ^ shard;
      op.payload_bytes = adoption.row.payload_bytes;
      op.expected = adoption.row.checksums[shard];
      op.source = shard_runs(adoption.runs, kHostArena, shard, padded, adoption.row.payload_bytes);
      op.tag = add_job(std::move(job));
      copy_backlog_.push_back(std::move(op));
    }
    ++adopting_sent_;
  }
}

void CacheImpl::adopt_part(const Job& job, bool ok, Instant now) {
  Adoption& part = adopting_.at(job.batch - adopting_done_);
  if (!ok) part.bad = true;
  --part.parts;
  // In order, so that parents are there before what hangs on them.
  while (adopting_sent_ > 0 && adopting_.front().parts == 0) {
    Adoption adoption = std::move(adopting_.front());
    adopting_.pop_front();
    --adopting_sent_;
    ++adopting_done_;
    if (!adoption.bad && build_adopted(adoption, now)) {
      ++kept_.verified;
      continue;
    }
    if (adoption.bad) ++counters_.checksum_failures;
    ++kept_.lost;
    seams_.table->erase(adoption.slot);
    if (!quarantine_ || (all_settled_ && !used_from_before(adoption.runs))) {
      host_.free(adoption.runs);
    } else {
      quarantined_.insert(quarantined_.end(), adoption.runs.begin(), adoption.runs.end());
    }
  }
  submit_adoptions();
}

/// Its bytes are what the table says: found from now on, by the same rules as everything else.
/// False: not possible any more.
bool CacheImpl::build_adopted(Adoption& adoption, Instant now) {
  adoption.row.ns = adoption.space + 1;
  const ObjectRow& row = adoption.row;
  const SpaceInfo& space = spaces_[adoption.space];
  if (row.generation != space.generation) return false;
  const Group& group = space.spec.groups[row.group];
  Object object;
  object.space = adoption.space;
  object.group = row.group;
  object.need = group.need;
  object.first = row.first;
  object.end = row.end;
  object.full = group.need == Need::every && row.end - row.first == group.block_tokens;
  object.bytes = bytes_of(adoption.runs);
  std::uint32_t domain_number = 0;
  Position from{domain_root(adoption.space, adoption.domain, domain_number), 0};
  for (std::size_t p = 0; p < row.parents.size(); ++p) {
    const auto found = adopted_.find(row.parents[p]);
    if (found == adopted_.end() || p >= kEveryGroupsMax) return false;
    const Object& parent = index_.object(found->second);
    if (parent.state != ObjectState::visible || !parent.full || !parent.in(Tier::host) ||
        residents_[found->second].kept_number != row.parents[p]) {
      return false;
    }
    object.parents[p] = found->second;
    if (parent.end > from.at) from = {parent.node, parent.end};
  }
  const bool keyed = space.spec.addressing == Addressing::keys;
  if (keyed) {
    if (!place_run(row, from, object)) return false;
  } else if (std::uint64_t{from.at} + row.symbols.size() != row.end || row.end == 0) {
    return false;
  }
  const Instant used =
      now - std::chrono::seconds(std::max<std::int64_t>(0, wall(now) - row.last_used));
  const Position at = keyed ? insert_recovered_run(row, from, used)
                            : index_.grow(from, {row.symbols, row.marks, from.at}, used);
  NodeIx node = index_.node_at(at.node, object.end);
  if (group.need == Need::end) node = index_.split({node, object.end});
  ObjectIx o = index_.find(node, row.group, object.first, object.end);
  if (o != kNil) {  // the catalog has it too, or somebody stored it again
    const Object& other = index_.object(o);
    const Resident& theirs = residents_[o];
    if (other.state != ObjectState::visible || other.in(Tier::host) ||
        other.bytes != object.bytes || theirs.id != row.id || loads_.contains(o) ||
        theirs.copying_down ||
        !std::equal(
            theirs.sums.begin(), theirs.sums.end(), row.checksums.begin(), row.checksums.end())) {
      return false;
    }
  } else {
    o = index_.add_object(node, object);
    index_.object(o).state = ObjectState::visible;
    if (o >= residents_.size()) residents_.resize(o + 1U);
    Resident& fresh = residents_[o];
    fresh = Resident{};
    fresh.sums.assign(row.checksums.begin(), row.checksums.end());
    fresh.id = row.id;
    fresh.domain = domain_number;
    fresh.payload = row.payload_bytes;
    fresh.shards = static_cast<std::uint16_t>(row.checksums.size());
    fresh.hits = row.hits;
    fresh.home = Tier::host;
    fresh.tenant = tenant_named(row.tenant, adoption.space);
  }
  Resident& resident = residents_[o];
  resident.runs[index(Tier::host)] = adoption.runs;
  resident.table_slot = adoption.slot;
  ++kept_.objects;
  resident.kept_number = row.number;
  adopted_[row.number] = o;
  if (quarantine_ && (!all_settled_ || used_from_before(adoption.runs))) {
    resident.quarantined = true;
    quarantined_objects_.emplace_back(o, row.number);
    hold(o, now);
  }
  entered(o, Tier::host, now);
  return true;
}

bool CacheImpl::used_from_before(const PageRuns& runs) const {
  return std::any_of(runs.begin(), runs.end(), [&](PageRun run) {
    const Extent mine = to_extent(run);
    return std::any_of(in_use_.begin(), in_use_.end(), [&](const Extent& theirs) {
      return mine.offset < theirs.offset + theirs.bytes && theirs.offset < mine.offset + mine.bytes;
    });
  });
}

void CacheImpl::settle(std::span<const Extent> in_use, bool all, Instant now) {
  if (!quarantine_ || !all) return;
  in_use_.assign(in_use.begin(), in_use.end());
  all_settled_ = true;
  PageRuns still;
  for (const PageRun run : quarantined_) {
    // In pieces of 2 MiB: what is not used comes back, even beside what is.
    constexpr std::uint32_t kPieces = 512;
    for (std::uint32_t at = 0; at < run.count; at += kPieces) {
      const PageRun piece{run.at + at, std::min(kPieces, run.count - at)};
      if (used_from_before({piece})) {
        still.push_back(piece);
      } else {
        host_.free(piece);
      }
    }
  }
  quarantined_ = std::move(still);
  auto objects = std::move(quarantined_objects_);
  quarantined_objects_.clear();
  for (const auto& [o, number] : objects) {
    Resident& resident = residents_[o];
    SC_ASSERT(resident.quarantined && resident.kept_number == number);
    if (used_from_before(resident.runs[index(Tier::host)])) {
      quarantined_objects_.emplace_back(o, number);
      continue;
    }
    resident.quarantined = false;
    unhold(o, now);
  }
  quarantine_ = !in_use_.empty();
}

KeptStatus CacheImpl::kept() const {
  KeptStatus out = kept_;
  out.waiting = adopting_.size();
  out.quarantined_bytes = bytes_of(quarantined_);
  for (const auto& [o, number] : quarantined_objects_)
    out.quarantined_bytes += index_.object(o).bytes;
  return out;
}

}  // namespace statecached
