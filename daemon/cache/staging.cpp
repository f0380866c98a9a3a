#include "daemon/cache/cache_impl.hpp"

#include <algorithm>

namespace statecached {

bool CacheImpl::stage(ClientIx client,
                      const Filled& filled,
                      StagedBytes bytes,
                      std::uint64_t token,
                      Instant now) {
  static_cast<void>(now);
  const auto s = static_cast<std::uint32_t>(filled.slot);
  const bool known = s < slots_.size() && slots_[s].open && !slots_[s].copying &&
                     slots_[s].generation == filled.slot >> 32U && slots_[s].client == client &&
                     slots_[s].object != kNil;
  if (!known) {
    // Of an object that was given up, its space waits for this writer, who writes no more.
    if (s < slots_.size() && slots_[s].open && slots_[s].generation == filled.slot >> 32U &&
        slots_[s].client == client && slots_[s].object == kNil && !slots_[s].copying)
      static_cast<void>(end_condemned(s));
    ++counters_.commits_refused;
    return false;
  }
  Slot& slot = slots_[s];
  const Object& object = index_.object(slot.object);
  if (object.need != Need::end && filled.valid > object.end - object.first) {
    ++counters_.commits_refused;
    return false;
  }
  Resident& resident = residents_[slot.object];
  const std::uint32_t arena = resident.home == Tier::device ? kDeviceArena : kHostArena;
  CopyOp op;
  op.kind = CopyKind::stage;
  op.seed = resident.id.low ^ slot.shard;
  op.payload_bytes = resident.payload;
  for (const Extent& run : bytes.runs)
    op.source.push_back({{arena, run.offset}, run.bytes});
  op.foreign = std::move(bytes.memory);
  const std::uint64_t padded = round_up(resident.payload, kPage);
  op.destination =
      shard_runs(resident.runs[index(resident.home)], arena, slot.shard, padded, resident.payload);
  slot.copying = true;
  ++resident.copies_in;
  Job job;
  job.kind = JobKind::stage;
  job.objects = {slot.object};
  op.tag = add_job(std::move(job));
  stage_jobs_.emplace(op.tag, StageJob{slot.object, 0, client, filled, token});
  copy_backlog_.push_back(std::move(op));
  return true;
}

/// The copier is done with one slot.
void CacheImpl::staged(const CopyDone& done, Instant now) {
  const auto it = stage_jobs_.find(done.tag);
  SC_ASSERT(it != stage_jobs_.end());
  const StageJob job = it->second;
  stage_jobs_.erase(it);
  bool committed = false;
  if (job.object == kNil) {
    one_writer_less(job.condemned);
    ++counters_.commits_refused;
  } else {
    Slot& slot = slots_[static_cast<std::uint32_t>(job.filled.slot)];
    SC_ASSERT(slot.open && slot.copying && slot.object == job.object);
    slot.copying = false;
    Resident& resident = residents_[job.object];
    --resident.copies_in;
    if (done.ok) {
      resident.sums.resize(resident.shards);
      resident.sums[slot.shard] = done.checksum;
      resident.hashed_in |= std::uint64_t{1} << slot.shard;
      // The one that reserved it may be gone: what it committed while it lived counts.
      committed = commit(job.client, job.filled, now);
    } else if (!abandon(slot.client, job.filled.slot, now)) {
      SC_ASSERT(false);
    }
  }
  if (listener_ != nullptr) listener_->on_staged(job.token, committed);
}

}  // namespace statecached
