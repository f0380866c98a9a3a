#include "base/log.hpp"
#include "daemon/cache/cache_impl.hpp"

#include <algorithm>
#include <cerrno>

namespace statecached {

/// Walks two lists of page runs of the same total length side by side: (disk, memory) pieces.
void CacheImpl::zip(const PageRuns& disk,
                    const PageRuns& memory,
                    std::uint32_t arena,
                    std::vector<DiskPiece>& out) {
  std::size_t i = 0;
  std::size_t j = 0;
  std::uint32_t used_i = 0;
  std::uint32_t used_j = 0;
  while (i < disk.size() && j < memory.size()) {
    const std::uint32_t n = std::min(disk[i].count - used_i, memory[j].count - used_j);
    out.push_back({(std::uint64_t{disk[i].at} + used_i) * kPage,
                   {arena, (std::uint64_t{memory[j].at} + used_j) * kPage},
                   n * kPage});
    used_i += n;
    used_j += n;
    if (used_i == disk[i].count) {
      ++i;
      used_i = 0;
    }
    if (used_j == memory[j].count) {
      ++j;
      used_j = 0;
    }
  }
}

std::uint64_t CacheImpl::add_job(Job job) {
  const std::uint64_t tag = next_tag_++;
  jobs_.emplace(tag, std::move(job));
  return tag;
}

/// The runs of one shard: `bytes` from shard * padded on, of an object's runs.
std::vector<MemoryRun> CacheImpl::shard_runs(const PageRuns& runs,
                                             std::uint32_t arena,
                                             std::uint16_t shard,
                                             std::uint64_t padded,
                                             std::uint64_t bytes) const {
  std::vector<MemoryRun> out;
  std::uint64_t skip = padded * shard;
  for (const PageRun& run : runs) {
    const std::uint64_t length = run.count * kPage;
    if (skip >= length) {
      skip -= length;
      continue;
    }
    const std::uint64_t n = std::min(length - skip, bytes);
    out.push_back({{arena, run.at * kPage + skip}, n});
    bytes -= n;
    skip = 0;
    if (bytes == 0) break;
  }
  SC_ASSERT(bytes == 0);
  return out;
}

void CacheImpl::submit_sums(ObjectIx o,
                            JobKind kind,
                            std::uint64_t batch,
                            const PageRuns& runs,
                            std::uint32_t arena) {
  const Resident& resident = residents_[o];
  const std::uint64_t padded = round_up(resident.payload, kPage);
  for (std::uint16_t shard = 0; shard < resident.shards; ++shard) {
    Job job;
    job.kind = kind;
    job.objects = {o};
    job.batch = batch;
    job.shard = shard;
    CopyOp op;
    const bool known = kind != JobKind::batch_sum && kind != JobKind::keep_sum;
    op.kind = known ? CopyKind::verify : CopyKind::checksum;
    op.seed = resident.id.low ^ shard;
    op.payload_bytes = resident.payload;
    if (known) op.expected = resident.sums[shard];
    op.source = shard_runs(runs, arena, shard, padded, resident.payload);
    op.tag = add_job(std::move(job));
    copy_backlog_.push_back(std::move(op));
  }
}

// ---- write-behind ------------------------------------------------------------------------------

bool CacheImpl::on_disk_or_coming(ObjectIx o) const {
  return index_.object(o).in(Tier::nvme) ||
         (residents_[o].writing_behind && residents_[o].number != 0);
}

/// What must be written so that everything down to this node can lie on NVMe, parents first.
std::vector<ObjectIx> CacheImpl::dirty_path(NodeIx ix) const {
  std::vector<NodeIx> path;
  for (NodeIx n = ix; n != kNil; n = index_.node(n).parent)
    path.push_back(n);
  std::vector<ObjectIx> out;
  std::unordered_set<ObjectIx> taken;
  const auto follows = [&](ObjectIx p) {
    return p == kNil || index_.object(p).in(Tier::nvme) || residents_[p].writing_behind ||
           taken.contains(p);
  };
  std::uint64_t bytes = 0;
  for (auto n = path.rbegin(); n != path.rend(); ++n) {
    const bool last = *n == ix;
    for (ObjectIx o : index_.node(*n).objects) {
      const Object& object = index_.object(o);
      // Of the ancestors only what something hangs on: their checkpoints go when their own turn
      // comes.
      if (object.state != ObjectState::visible || !object.in(Tier::host) || object.in(Tier::nvme))
        continue;
      if (residents_[o].writing_behind || (!last && !object.full)) continue;
      // still on the device
      if (!std::all_of(object.parents.begin(), object.parents.end(), follows)) continue;
      taken.insert(o);
      out.push_back(o);
      bytes += object.bytes;
      if (bytes >= kBatchBytes) return out;
    }
  }
  return out;
}

std::uint64_t CacheImpl::disk_available() const {
  std::uint64_t sum = 0;
  for (std::size_t d = 0; d < disks_.size(); ++d) {
    if (health_[d] == DiskHealth::good) sum += disks_[d].available();
  }
  return sum;
}

/// Keeps a sixteenth of the drives free or being freed, so that write-behind need not wait for a
/// delete to become durable.
void CacheImpl::make_disk_room(Instant now) {
  if (disks_.empty() || recovery_ != nullptr) return;
  std::uint64_t capacity = 0;
  for (std::size_t d = 0; d < disks_.size(); ++d)
    capacity += health_[d] == DiskHealth::good ? disks_[d].capacity() : 0;
  const std::uint64_t target = std::min<std::uint64_t>(capacity / 16, 4 * kGiB);
  const std::uint64_t coming = disk_available() + freeing_bytes_;
  if (coming < target) evict(Tier::nvme, target - coming, now);
}

bool CacheImpl::start_batch(std::vector<ObjectIx> objects, Instant now) {
  std::uint64_t total = 0;
  for (ObjectIx o : objects)
    total += index_.object(o).bytes;
  std::uint16_t path = UINT16_MAX;
  for (std::uint16_t d = 0; d < disks_.size(); ++d) {
    if (!writable(d, now)) continue;
    if (path == UINT16_MAX || disks_[d].available() > disks_[path].available()) path = d;
  }
  if (path == UINT16_MAX) return false;
  if (disks_[path].available() < total) return false;
  if (seams_.budget != nullptr && !seams_.budget->take(total, now)) return false;
  PageRuns all;
  if (!disks_[path].allocate(total, false, all)) {
    if (seams_.budget != nullptr) seams_.budget->settle(total);
    return false;
  }
  // One allocation, handed out in order: the blocks of one prefix lie side by side.
  std::size_t run = 0;
  std::uint32_t used = 0;
  WriteBatch& batch = batches_.emplace_back();
  batch.number = next_batch_++;
  batch.path = path;
  batch.budget = total;
  for (ObjectIx o : objects) {
    Resident& resident = residents_[o];
    auto pages = static_cast<std::uint32_t>(index_.object(o).bytes / kPage);
    while (pages > 0) {
      const std::uint32_t n = std::min(pages, all[run].count - used);
      resident.disk.push_back({all[run].at + used, n});
      used += n;
      pages -= n;
      if (used == all[run].count) {
        ++run;
        used = 0;
      }
    }
    resident.path = path;
    resident.writing_behind = true;
    resident.number = 0;
    moving_bytes_[index(Tier::host)] += index_.object(o).bytes;
    hold(o, now);
    for (ObjectIx parent : index_.object(o).parents) {
      if (parent != kNil) hold(parent, now);
    }
  }
  for (ObjectIx o : objects)
    requeue(index_.object(o).node);
  batch.objects = std::move(objects);
  for (ObjectIx o : batch.objects) {
    if (!residents_[o].sums.empty()) continue;
    residents_[o].sums.resize(residents_[o].shards);
    batch.parts += residents_[o].shards;
    submit_sums(
        o, JobKind::batch_sum, batch.number, residents_[o].runs[index(Tier::host)], kHostArena);
  }
  // The checksums are wanted for the rows: taking them costs no time beside the writes.
  batch_data(batch, now);
  return true;
}

void CacheImpl::batch_data(WriteBatch& batch, Instant now) {
  DiskOp op;
  std::uint64_t bytes = 0;
  const auto send = [&] {
    if (op.pieces.empty()) return;
    Job job;
    job.kind = JobKind::batch_data;
    job.batch = batch.number;
    job.bytes = bytes;
    job.started = now;
    op.kind = DiskKind::write;
    op.klass = DiskClass::write_behind;
    op.tag = add_job(std::move(job));
    disk_backlog_[batch.path].push_back(std::move(op));
    op = DiskOp{};
    bytes = 0;
    ++batch.parts;
  };
  std::vector<DiskPiece> pieces;
  for (ObjectIx o : batch.objects) {
    zip(residents_[o].disk, residents_[o].runs[index(Tier::host)], kHostArena, pieces);
  }
  for (DiskPiece& piece : pieces) {
    while (piece.bytes > 0) {
      DiskPiece part = piece;
      part.bytes = std::min(part.bytes, kDiskOpBytes - bytes);
      piece.disk_offset += part.bytes;
      piece.memory.offset += part.bytes;
      piece.bytes -= part.bytes;
      op.pieces.push_back(part);
      bytes += part.bytes;
      if (bytes == kDiskOpBytes) send();
    }
  }
  send();
}

void CacheImpl::batch_part_done(std::uint64_t number, bool ok, Reason reason, Instant now) {
  const auto it = std::find_if(
      batches_.begin(), batches_.end(), [&](const WriteBatch& b) { return b.number == number; });
  SC_ASSERT(it != batches_.end());
  WriteBatch& batch = *it;
  if (!ok) {
    batch.failed = true;
    batch.reason = reason;
  }
  if (--batch.parts > 0) return;
  if (batch.failed) {
    batch.phase = WriteBatch::Phase::ready;
  } else if (batch.phase == WriteBatch::Phase::data) {
    // Data durable first, then the catalog (design.md 5).
    batch.phase = WriteBatch::Phase::sync;
    batch.parts = 1;
    Job job;
    job.kind = JobKind::batch_sync;
    job.batch = number;
    DiskOp op;
    op.kind = DiskKind::sync;
    op.klass = DiskClass::write_behind;
    op.tag = add_job(std::move(job));
    disk_backlog_[batch.path].push_back(std::move(op));
  } else {
    batch.phase = WriteBatch::Phase::ready;
  }
  advance_batches(now);
}

/// Rows are written in the order of the batches, so that a parent's row is never after its child's.
void CacheImpl::advance_batches(Instant now) {
  for (std::size_t i = 0; i < batches_.size();) {
    WriteBatch& batch = batches_[i];
    if (batch.phase == WriteBatch::Phase::rows) {
      ++i;
      continue;
    }
    if (batch.phase != WriteBatch::Phase::ready) return;
    CatalogBatch rows;
    if (batch.failed || !rows_of(batch, rows, now)) {
      finish_batch(batch, false, now);
      batches_.erase(batches_.begin() + static_cast<std::ptrdiff_t>(i));
      continue;
    }
    batch.phase = WriteBatch::Phase::rows;
    Job job;
    job.kind = JobKind::batch_rows;
    job.batch = batch.number;
    rows.tag = add_job(std::move(job));
    catalog_backlog_.push_back(std::move(rows));
    ++i;
  }
}

/// False: nothing of it can be written any more.
bool CacheImpl::rows_of(WriteBatch& batch, CatalogBatch& rows, Instant now) {
  std::vector<ObjectIx> kept;
  for (ObjectIx o : batch.objects) {
    const Object& object = index_.object(o);
    Resident& resident = residents_[o];
    const bool parents = std::all_of(object.parents.begin(), object.parents.end(), [&](ObjectIx p) {
      return p == kNil || on_disk_or_coming(p);
    });
    if (!parents || object.state != ObjectState::visible) {
      abandon_write(o, now);
      continue;
    }
    SpaceInfo& space = spaces_[object.space];
    // Until it is known to be there each batch carries it: the batch before may yet fail.
    if (!space.durable && (batch.spaces.empty() || batch.spaces.back().first != object.space)) {
      rows.namespaces.push_back(row_of_space(object.space, now));
      batch.spaces.emplace_back(object.space, space.generation);
      space.row_sent = true;
    }
    for (auto& [domain, info] : space.domains) {
      if (info.number != resident.domain || info.durable) continue;
      const std::pair<NamespaceIx, std::uint32_t> entry{object.space, info.number};
      if (std::find(batch.domains.begin(), batch.domains.end(), entry) != batch.domains.end())
        continue;
      rows.domains.push_back({object.space + 1, info.number, domain});
      batch.domains.push_back(entry);
      break;
    }
    resident.number = space.next_number++;
    ObjectRow row;
    row.ns = object.space + 1;
    row.number = resident.number;
    row.generation = space.generation;
    row.domain = resident.domain;
    row.group = object.group;
    row.first = object.first;
    row.end = object.end;
    row.id = resident.id;
    for (ObjectIx parent : object.parents) {
      if (parent != kNil) row.parents.push_back(residents_[parent].number);
    }
    if (index_.node(object.node).shape.scope != 0) {
      key_row(object, row);
    } else {
      symbols_row(object, row);
    }
    row.payload_bytes = resident.payload;
    for (const PageRun& run : resident.disk)
      row.extents.push_back({resident.path, to_extent(run)});
    row.checksums.assign(resident.sums.begin(), resident.sums.end());
    row.hits = resident.hits;
    row.last_used = wall(index_.node(object.node).last_use);
    row.tenant = tenants_[resident.tenant].options.key;
    rows.puts.push_back(std::move(row));
    kept.push_back(o);
  }
  batch.objects = std::move(kept);
  return !batch.objects.empty();
}

/// It stays in memory, dirty as before; what space it still has on the drive was never named by a
/// row.
void CacheImpl::abandon_write(ObjectIx o, Instant now) {
  Resident& resident = residents_[o];
  if (!resident.disk.empty()) disks_[resident.path].free(resident.disk);
  resident.disk.clear();
  resident.number = 0;
  resident.writing_behind = false;
  moving_bytes_[index(Tier::host)] -= index_.object(o).bytes;
  const auto parents = index_.object(o).parents;
  unhold(o, now);
  for (ObjectIx parent : parents) {
    if (parent != kNil) unhold(parent, now);
  }
}

/// Its row is deleted; its space on the drive is free when that is durable, not before: a start
/// would find two rows for one place and could take the wrong one (design.md 5).
void CacheImpl::forget_row(ObjectIx o) {
  Resident& resident = residents_[o];
  freeing_bytes_ += bytes_of(resident.disk);
  deleting_.runs.emplace_back(resident.path, std::move(resident.disk));
  deleting_.rows.push_back({index_.object(o).space + 1, resident.number});
  resident.disk.clear();
  resident.number = 0;
}

NamespaceRow CacheImpl::row_of_space(NamespaceIx ns, Instant now) const {
  const SpaceInfo& space = spaces_[ns];
  return {ns + 1, space.generation, space.trust_domain, space.spec, wall(now)};
}

bool CacheImpl::writable(std::uint16_t path, Instant now) const {
  return health_[path] == DiskHealth::good && !disk_setbacks_[path].waits(now) &&
         disks_[path].capacity() > 0;
}

/// After a sync that failed nobody knows which of the writes before it arrived, and the next sync
/// does not tell: everything of that drive that no sync has covered is written again.
void CacheImpl::fail_unsynced(std::uint16_t path, std::uint64_t but) {
  for (WriteBatch& batch : batches_) {
    const bool unsynced =
        batch.phase == WriteBatch::Phase::data || batch.phase == WriteBatch::Phase::sync;
    if (batch.path != path || batch.number == but || !unsynced) continue;
    batch.failed = true;
    batch.reason = Reason::io_error;
  }
}

void CacheImpl::finish_batch(WriteBatch& batch, bool ok, Instant now) {
  if (seams_.budget != nullptr) seams_.budget->settle(batch.budget);
  if (!ok) {
    for (ObjectIx o : batch.objects) {
      // A batch that the catalog refused may be there all the same.
      if (batch.phase == WriteBatch::Phase::rows) forget_row(o);
      abandon_write(o, now);
    }
    return;
  }
  for (const auto& [ns, generation] : batch.spaces)
    spaces_[ns].durable = spaces_[ns].durable || spaces_[ns].generation == generation;
  for (const auto& [ns, number] : batch.domains) {
    for (auto& [domain, info] : spaces_[ns].domains)
      info.durable = info.durable || info.number == number;
  }
  for (ObjectIx o : batch.objects) {
    const Object& object = index_.object(o);
    Resident& resident = residents_[o];
    const bool closed = std::all_of(object.parents.begin(), object.parents.end(), [&](ObjectIx p) {
      return p == kNil || index_.object(p).in(Tier::nvme);
    });
    if (!closed) {  // an earlier batch's rows failed after this one's were sent
      forget_row(o);
      abandon_write(o, now);
      continue;
    }
    resident.writing_behind = false;
    moving_bytes_[index(Tier::host)] -= object.bytes;
    counters_.bytes_demoted[index(Tier::nvme)] += object.bytes;
    counters_.nvme_bytes_written += object.bytes;
    entered(o, Tier::nvme, now);
    event(EventKind::durable, Reason::none, Tier::nvme, o);
    const auto parents = object.parents;
    unhold(o, now);
    for (ObjectIx parent : parents) {
      if (parent != kNil) unhold(parent, now);
    }
  }
}

void CacheImpl::write_behind(Instant now) {
  if (disks_.empty() || !present(Tier::host) || options_.policy.demotion == Demotion::never) return;
  if (nvme_waits_ || reading_catalog()) return;
  // What failed is tried with little: what is being written cannot be given up meanwhile.
  const std::size_t batches_most = nvme_down_ ? 1 : kBatchesMax;
  const std::uint64_t bytes_most =
      std::min(nvme_down_ ? kDiskOpBytes : kBatchBytes, batch_bytes(now));
  const bool through = options_.policy.nvme_write == NvmeWrite::through;
  // What can be given up at once: free, or a tail that is backed, or about to be. Backed ancestors
  // do not count: they cannot go before what hangs on them.
  const auto wanted = static_cast<std::uint64_t>(options_.policy.clean_share *
                                                 static_cast<double>(host_.capacity()));
  const std::size_t h = index(Tier::host);
  std::vector<NodeIx> taken;  // out of the queue while this turn lasts
  std::uint64_t held_back = 0;
  while (batches_.size() < batches_most) {
    std::vector<ObjectIx> objects;
    std::uint64_t bytes = 0;
    settle_queues(now);
    while (bytes < bytes_most) {
      const std::uint64_t ready = host_.available() + victims_[h]->bytes(Lane::clean) +
                                  moving_bytes_[h] + bytes + held_back;
      if (ready >= wanted && !through) break;
      const NodeIx node = victims_[h]->best(Lane::dirty, now);
      if (node == kNil) break;
      const std::vector<ObjectIx> path = dirty_path(node);
      victims_[h]->erase(node);
      taken.push_back(node);
      if (path.empty()) continue;
      const SegmentTerms value = segment_terms(index_,
                                               node,
                                               Tier::host,
                                               false,
                                               spaces_[index_.node(node).space].spec.cost,
                                               spaces_[index_.node(node).space].has_end,
                                               spaces_[index_.node(node).space].speeds);
      const double load =
          value.bytes_freed / spaces_[index_.node(node).space].speeds.load[index(Tier::nvme)];
      if (options_.policy.demotion == Demotion::priced && value.seconds_saved <= load) {
        for (ObjectIx o : index_.node(node).objects)
          residents_[o].not_worth_disk = true;
        priced_out_ = true;
        continue;
      }
      if (!budget_allows(
              path, bytes, (value.seconds_saved - load) / std::max(value.bytes_freed, 1.0), now)) {
        if (!objects.empty() || ready >= wanted) break;
        held_back += hold_back(node);
        continue;
      }
      for (ObjectIx o : path) {
        // so that the next node of this path does not take it again
        residents_[o].writing_behind = true;
        objects.push_back(o);
        bytes += index_.object(o).bytes;
      }
    }
    if (objects.empty()) break;
    if (!start_batch(objects, now)) {
      for (ObjectIx o : objects)
        residents_[o].writing_behind = false;
      break;
    }
  }
  for (NodeIx node : taken)
    requeue(node);
}

// ---- device to host ----------------------------------------------------------------------------

void CacheImpl::copy_down(Instant now) {
  if (!present(Tier::device) || !present(Tier::host) || options_.policy.demotion == Demotion::never)
    return;
  const std::size_t d = index(Tier::device);
  const auto wanted = static_cast<std::uint64_t>(options_.policy.clean_share *
                                                 static_cast<double>(device_.capacity()));
  down_blocked_ = false;
  settle_queues(now);
  while (device_.available() + victims_[d]->bytes(Lane::clean) + moving_bytes_[d] < wanted) {
    const NodeIx node = victims_[d]->best(Lane::dirty, now);
    if (node == kNil) return;
    std::uint64_t started = 0;
    // Its ancestors too: what comes down can go on to NVMe only behind them.
    std::vector<ObjectIx> objects;
    for (NodeIx n = node; n != kNil; n = index_.node(n).parent) {
      objects.insert(objects.begin(), index_.node(n).objects.begin(), index_.node(n).objects.end());
    }
    for (ObjectIx o : objects) {
      Object& object = index_.object(o);
      if (object.state != ObjectState::visible || object.tiers != 1U << d ||
          residents_[o].copying_down)
        continue;
      // Priced out, but the tail is not, and would come down in vain without the KV that it hangs
      // on.
      if (residents_[o].not_worth_disk && !object.full) continue;
      if (!copy_to_host(o, now)) break;
      started += object.bytes;
    }
    requeue(node);
    if (started == 0) {
      down_blocked_ = moving_bytes_[d] == 0 && batches_.empty();
      return;
    }
    settle_queues(now);
  }
}

// ---- completions -------------------------------------------------------------------------------

void CacheImpl::on_disk(const DiskDone& done, Instant now) {
  const auto it = jobs_.find(done.tag);
  SC_ASSERT(it != jobs_.end());
  const Job job = std::move(it->second);
  jobs_.erase(it);
  const bool ok = done.os_error == 0;
  const bool cancelled = done.os_error == ECANCELED && job.kind == JobKind::load_read;
  if (!ok && !cancelled) ++counters_.io_errors;
  if (job.kind == JobKind::verify_read) {
    verify_part(job.batch, ok, now);
    return;
  }
  if (job.kind != JobKind::load_read) {
    const Reason reason = done.os_error == ENOSPC ? Reason::capacity : Reason::io_error;
    const auto batch = std::find_if(batches_.begin(), batches_.end(), [&](const WriteBatch& b) {
      return b.number == job.batch;
    });
    SC_ASSERT(batch != batches_.end());
    Setback& setback = disk_setbacks_[batch->path];
    if (ok && job.kind == JobKind::batch_sync) setback.worked();
    if (!ok && !setback.waits(now)) setback.refused(now);
    if (!ok && job.kind == JobKind::batch_sync) fail_unsynced(batch->path, job.batch);
    batch_part_done(job.batch, ok, ok ? Reason::none : reason, now);
    return;
  }
  if (ok && options_.measure_speeds && now > job.started && job.bytes >= kDiskOpBytes / 4) {
    const double rate = static_cast<double>(job.bytes) / seconds(now - job.started);
    // The mean of the first 64 reads, then of about as many of late: what was configured may be far
    // off.
    reads_measured_ = std::min<std::uint32_t>(reads_measured_ + 1, 64);
    nvme_rate_ += (rate - nvme_rate_) / reads_measured_;
    for (SpaceInfo& space : spaces_)
      space.speeds.load[index(Tier::nvme)] = nvme_rate_;
  }
  for (ObjectIx o : job.objects) {
    LoadState& load = loads_.at(o);
    if (cancelled) {
      load.cancelled = true;
    } else if (!ok) {
      load.failed = true;
      load.reason = Reason::io_error;
    }
    if (--load.parts > 0) continue;
    if (load.failed) {
      loaded(o, now);
      continue;
    }
    if (load.cancelled) {
      end_cancelled(o, now);
      continue;
    }
    load.parts = residents_[o].shards;
    submit_sums(o, JobKind::load_verify, 0, residents_[o].runs[index(Tier::host)], kHostArena);
  }
}

void CacheImpl::on_copy(const CopyDone& done, Instant now) {
  const auto it = jobs_.find(done.tag);
  SC_ASSERT(it != jobs_.end());
  const Job job = std::move(it->second);
  jobs_.erase(it);
  const ObjectIx o = job.objects.empty() ? kNil : job.objects.front();
  switch (job.kind) {
    case JobKind::load_verify:
      if (!done.ok) ++counters_.checksum_failures;
      load_part_done(o, done.ok, Reason::corrupt, now);
      return;
    case JobKind::batch_sum:
      residents_[o].sums[job.shard] = done.checksum;
      batch_part_done(job.batch, done.ok, Reason::io_error, now);
      return;
    case JobKind::verify_sum:
      if (!done.ok) ++counters_.checksum_failures;
      verify_part(job.batch, done.ok, now);
      return;
    case JobKind::copy_down: {
      Resident& resident = residents_[o];
      resident.copying_down = false;
      moving_bytes_[index(Tier::device)] -= index_.object(o).bytes;
      if (done.ok) {
        counters_.bytes_demoted[index(Tier::host)] += index_.object(o).bytes;
        entered(o, Tier::host, now);
        event(EventKind::demoted, Reason::none, Tier::host, o);
      } else {
        host_.free(resident.runs[index(Tier::host)]);
        resident.runs[index(Tier::host)].clear();
      }
      unhold(o, now);
      return;
    }
    case JobKind::stage:
      staged(done, now);
      return;
    case JobKind::keep_sum:
      kept_sum(job, done, now);
      return;
    case JobKind::adopt_verify:
      adopt_part(job, done.ok, now);
      return;
    case JobKind::load_read:
    case JobKind::batch_data:
    case JobKind::batch_sync:
    case JobKind::batch_rows:
    case JobKind::rows_deleted:
    case JobKind::verify_read:
      SC_ASSERT(false);
  }
}

void CacheImpl::on_catalog(const CatalogDone& done, Instant now) {
  const auto it = jobs_.find(done.tag);
  SC_ASSERT(it != jobs_.end());
  const Job job = std::move(it->second);
  jobs_.erase(it);
  if (done.ok) {
    catalog_setback_.worked();
  } else {
    ++counters_.io_errors;
    ++counters_.catalog_errors;
    if (!catalog_setback_.waits(now)) {
      catalog_setback_.refused(now);
      log::error("the catalog refused a batch: {}. Nothing is written to NVMe for {:.1f} s",
                 done.error,
                 seconds(catalog_setback_.pause));
    }
  }
  if (job.kind == JobKind::rows_deleted) {
    deleted(job.batch, done.ok);
    return;
  }
  const auto batch = std::find_if(
      batches_.begin(), batches_.end(), [&](const WriteBatch& b) { return b.number == job.batch; });
  SC_ASSERT(batch != batches_.end());
  if (!done.ok) batch->reason = Reason::io_error;
  finish_batch(*batch, done.ok, now);
  batches_.erase(batch);
}

/// A row that may still be there names its extents: those are not reused (design.md 5), and its
/// delete is asked for again.
void CacheImpl::deleted(std::uint64_t number, bool ok) {
  DeleteBatch batch = std::move(delete_batches_.at(number));
  delete_batches_.erase(number);
  if (ok) {
    for (const auto& [path, runs] : batch.runs) {
      freeing_bytes_ -= bytes_of(runs);
      disks_[path].free(runs);
    }
    return;
  }
  const auto back = [](auto& to, auto& from) {
    to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  };
  back(deleting_.runs, batch.runs);
  back(deleting_.rows, batch.rows);
  back(deleting_.dropped, batch.dropped);
  back(deleting_.renewed, batch.renewed);
}

std::size_t CacheImpl::poll(Instant now) {
  std::size_t count = 0;
  for (Disk* disk : seams_.disks) {
    disk_done_.clear();
    count += disk->poll(disk_done_);
    for (const DiskDone& done : disk_done_)
      on_disk(done, now);
  }
  if (seams_.copier != nullptr) {
    copy_done_.clear();
    count += seams_.copier->poll(copy_done_);
    for (const CopyDone& done : copy_done_)
      on_copy(done, now);
  }
  if (seams_.catalog != nullptr) {
    catalog_done_.clear();
    count += seams_.catalog->poll(catalog_done_);
    for (const CatalogDone& done : catalog_done_)
      on_catalog(done, now);
  }
  return count;
}

/// Hands over what waits for room in a seam's queue.
void CacheImpl::pump() {
  for (std::size_t d = 0; d < disk_backlog_.size(); ++d) {
    while (!disk_backlog_[d].empty() && seams_.disks[d]->submit(disk_backlog_[d].front()))
      disk_backlog_[d].pop_front();
  }
  while (!copy_backlog_.empty() && seams_.copier->submit(copy_backlog_.front()))
    copy_backlog_.pop_front();
  while (!catalog_backlog_.empty() && seams_.catalog->submit(catalog_backlog_.front()))
    catalog_backlog_.pop_front();
}

std::size_t CacheImpl::step(Instant now) {
  std::size_t count = poll(now);
  watch_drives(now);
  if (recovery_ != nullptr) count += recover_some(now);
  if (!disks_.empty()) {
    bool any = false;
    bool sound = false;
    for (std::uint16_t d = 0; d < disks_.size(); ++d) {
      any = any || writable(d, now);
      sound = sound || (writable(d, now) && !disk_setbacks_[d].doubted());
    }
    nvme_waits_ = !any || catalog_setback_.waits(now) || catalog_unread_;
    nvme_down_ = nvme_waits_ || !sound || catalog_setback_.doubted();
  }
  expire(now);
  if (orphans_) cancel_orphans(now);
  sweep_work_ = 0;
  step_flush(now);
  step_verify(now);
  step_list(now);
  step_remove(now);
  step_reconsider(now);
  make_disk_room(now);
  copy_down(now);
  // In turn: the first may take all batches.
  for (std::size_t i = 0; i < host_.count(); ++i) {
    focus_on((first_region_ + i) % host_.count());
    write_behind(now);
  }
  first_region_ = (first_region_ + 1) % host_.count();
  focus_on(Regions::kAll);
  enforce_quotas(now);
  submit_deletes(now);
  submit_adoptions();
  pump();
  return count + sweep_work_;
}

bool CacheImpl::busy() const noexcept {
  return !jobs_.empty();
}

}  // namespace statecached
