#include "base/log.hpp"
#include "daemon/cache/cache_impl.hpp"

#include <algorithm>

namespace statecached {
namespace {

/// Objects looked at in one step of a sweep; looking at one takes some tens of nanoseconds.
constexpr std::size_t kLooksPerStep = 8192;
/// Objects forgotten in one step of `rm`: some hundreds of nanoseconds each.
constexpr std::size_t kKillsPerStep = 256;
/// How often what was priced out of the drives is looked at again, and by how much its value must
/// then exceed the price.
constexpr Nanos kReconsiderEvery = std::chrono::seconds(10);
constexpr double kReconsiderMargin = 1.25;
/// Checks of verify under way at a time, and the host space they may read into.
constexpr std::size_t kChecksMost = 32;
constexpr std::uint64_t kCheckBytesMost = 16 * kMiB;
/// One pass copies from the device what the next one writes; passes that get no further are given
/// up, for what comes down can be evicted again before it is written.
constexpr std::size_t kIdlePasses = 3;
/// A flush that runs out of time has written what was used last: ages of its passes, youngest
/// first.
constexpr std::array<Nanos, 4> kFlushAges{std::chrono::minutes(1),
                                          std::chrono::minutes(15),
                                          std::chrono::hours(4),
                                          Nanos::max()};

}  // namespace

// ---- flush -------------------------------------------------------------------------------------

void CacheImpl::flush(std::function<void(const FlushReport&)> done, Instant now) {
  FlushJob& job = flushes_.emplace_back();
  job.done = std::move(done);
  job.asked = now;
}

/// Whether this flush has to write it.
bool CacheImpl::flush_wants(const FlushJob& flush, ObjectIx o) const {
  const Object& object = index_.object(o);
  return object.state == ObjectState::visible && !object.in(Tier::nvme) &&
         residents_[o].reserved <= flush.asked;
}

/// What lies on the device alone comes down first. False: no room in the host tier now.
bool CacheImpl::copy_to_host(ObjectIx o, Instant now) {
  Object& object = index_.object(o);
  PageRuns runs;
  hold(o, now);
  if (!allocate(Tier::host,
                object.bytes,
                spaces_[object.space].spec.groups[object.group].contiguous,
                runs,
                now)) {
    unhold(o, now);
    return false;
  }
  residents_[o].runs[index(Tier::host)] = runs;
  residents_[o].copying_down = true;
  moving_bytes_[index(Tier::device)] += object.bytes;
  Job job;
  job.kind = JobKind::copy_down;
  job.objects = {o};
  CopyOp op;
  op.kind = CopyKind::copy;
  op.source = shard_runs(
      residents_[o].runs[index(Tier::device)], kDeviceArena, 0, object.bytes, object.bytes);
  op.destination = shard_runs(runs, kHostArena, 0, object.bytes, object.bytes);
  op.payload_bytes = object.bytes;
  op.tag = add_job(std::move(job));
  copy_backlog_.push_back(std::move(op));
  return true;
}

/// Passes over all objects, parents never after what hangs on them, until a pass finds nothing to
/// write or gets nothing further.
void CacheImpl::step_flush(Instant now) {
  if (flushes_.empty() || reading_catalog()) return;
  FlushJob& flush = flushes_.front();
  std::vector<ObjectIx> objects;
  std::vector<ObjectIx> device_only;
  std::uint64_t bytes = 0;
  const auto send = [&] {
    if (objects.empty()) return;
    if (start_batch(objects, now)) {
      flush.started += objects.size();
    } else {
      for (ObjectIx o : objects)
        residents_[o].writing_behind = false;
    }
    objects.clear();
    bytes = 0;
  };
  std::size_t looks = 0;
  for (;
       flush.next < index_.object_slots() && looks < kLooksPerStep && batches_.size() < kBatchesMax;
       ++flush.next, ++looks) {
    const auto o = static_cast<ObjectIx>(flush.next);
    if (!flush_wants(flush, o)) continue;
    ++flush.dirty;
    const Object& object = index_.object(o);
    if (disks_.empty() || nvme_waits_ || residents_[o].writing_behind) continue;
    if (now - index_.node(object.node).last_use > kFlushAges[flush.age]) continue;
    if (!object.in(Tier::host)) {
      if (!residents_[o].copying_down) device_only.push_back(o);
      continue;
    }
    for (ObjectIx part : dirty_path(object.node)) {
      residents_[part].writing_behind = true;  // so that its neighbours do not take it again
      objects.push_back(part);
      bytes += index_.object(part).bytes;
    }
    // A small drive that is full has less room than a batch may take.
    if (bytes >= std::min(batch_bytes(now), disk_available() / 2)) send();
  }
  send();
  // Only now: what is collected is not held before it is sent, and making room in the host tier
  // could evict it.
  for (ObjectIx o : device_only) {
    if (flush_wants(flush, o) && !index_.object(o).in(Tier::host) && copy_to_host(o, now))
      ++flush.started;
  }
  if (flush.next < index_.object_slots()) {
    ++sweep_work_;
    return;
  }
  if (!batches_.empty() || moving_bytes_[index(Tier::device)] > 0) return;
  end_of_flush_pass(now);
}

void CacheImpl::end_of_flush_pass(Instant now) {
  FlushJob& flush = flushes_.front();
  const bool refused = disks_.empty() || nvme_waits_;
  const bool last_age = flush.age + 1 == kFlushAges.size();
  // Space on the drives is being freed: what found none gets its turn.
  const bool room_comes = freeing_bytes_ > 0 && flush.started == 0;
  flush.idle = flush.dirty < flush.last_dirty ? 0 : flush.idle + 1;
  flush.last_dirty = flush.dirty;
  const bool further = flush.started > 0 && flush.idle < kIdlePasses;
  const bool stuck = last_age && !room_comes && !further;
  if (flush.dirty > 0 && !refused && !stuck) {
    if (!last_age && !further) {
      ++flush.age;
      flush.idle = 0;
    }
    flush.next = 0;
    flush.dirty = 0;
    flush.started = 0;
    if (!room_comes) ++sweep_work_;
    return;
  }
  static_cast<void>(now);
  FlushReport report;
  report.failed_objects = flush.dirty;
  report.durable_objects = object_count_[index(Tier::nvme)];
  if (flush.dirty > 0) {
    report.why = disks_.empty() ? "there is no NVMe tier: set nvme.capacity and nvme.paths"
                                : "the NVMe tier has no room, refuses writes, or the write budget "
                                  "is used up: see status and events";
  }
  const auto done = std::move(flush.done);
  flushes_.pop_front();
  done(report);
}

// ---- verify ------------------------------------------------------------------------------------

void CacheImpl::verify(std::function<void(const VerifyReport&)> done) {
  verifies_.emplace_back().done = std::move(done);
}

/// Several objects at a time; copies on NVMe are read into host space of their own, copies in the
/// host tier are checked where they lie, when their checksum is known.
void CacheImpl::step_verify(Instant now) {
  if (verifies_.empty() || reading_catalog()) return;
  VerifyJob& verify = verifies_.front();
  std::size_t looks = 0;
  while (verify.next < index_.object_slots() && looks++ < kLooksPerStep &&
         verify.checks.size() < kChecksMost) {
    const auto o = static_cast<ObjectIx>(verify.next);
    const Object& object = index_.object(o);
    const bool settled = object.state == ObjectState::visible &&
                         residents_[o].sums.size() == residents_[o].shards &&
                         !residents_[o].writing_behind;
    const bool on_nvme = settled && object.in(Tier::nvme);
    if (on_nvme && !check_on_nvme(verify, o, now)) return;  // when there is room
    ++verify.next;
    if (settled && object.in(Tier::host)) check_in_host(verify, o, now);
    if (on_nvme || (settled && object.in(Tier::host))) {
      ++verify.report.objects;
      verify.report.bytes += object.bytes;
    }
    const std::size_t tenth = verify.next * 10 / index_.object_slots();
    if (tenth > verify.told && tenth < 10) {
      verify.told = tenth;
      log::info(
          "verify: {} %, {} objects, {} bad", tenth * 10, verify.report.objects, verify.report.bad);
    }
  }
  if (verify.next < index_.object_slots()) {
    if (verify.checks.empty()) ++sweep_work_;
    return;
  }
  if (!verify.checks.empty()) return;
  const auto done = std::move(verify.done);
  const VerifyReport report = verify.report;
  verifies_.pop_front();
  done(report);
}

/// False: no host space for it now.
bool CacheImpl::check_on_nvme(VerifyJob& verify, ObjectIx o, Instant now) {
  const Object& object = index_.object(o);
  if (!verify.checks.empty() && verify.buffered + object.bytes > kCheckBytesMost) return false;
  Check check;
  // Nothing is given up for a check, except that one must be able to go on.
  const Focus focus(*this, object.space);
  if (!host_.allocate(object.bytes, false, check.buffer) &&
      (!verify.checks.empty() || !allocate(Tier::host, object.bytes, false, check.buffer, now)))
    return false;
  // given up for it
  if (index_.object(o).state != ObjectState::visible || !index_.object(o).in(Tier::nvme)) {
    host_.free(check.buffer);
    return true;
  }
  hold(o, now);
  verify.buffered += object.bytes;
  check.object = o;
  check.parts = 1;
  check.reading = true;
  Job job;
  job.kind = JobKind::verify_read;
  job.batch = verify.next_check;
  DiskOp op;
  op.kind = DiskKind::read;
  op.klass = DiskClass::prefetch;
  zip(residents_[o].disk, check.buffer, kHostArena, op.pieces);
  op.tag = add_job(std::move(job));
  disk_backlog_[residents_[o].path].push_back(std::move(op));
  verify.checks.emplace(verify.next_check++, std::move(check));
  return true;
}

void CacheImpl::check_in_host(VerifyJob& verify, ObjectIx o, Instant now) {
  hold(o, now);
  Check check;
  check.object = o;
  check.parts = residents_[o].shards;
  submit_sums(
      o, JobKind::verify_sum, verify.next_check, residents_[o].runs[index(Tier::host)], kHostArena);
  verify.checks.emplace(verify.next_check++, std::move(check));
}

void CacheImpl::verify_part(std::uint64_t number, bool ok, Instant now) {
  VerifyJob& verify = verifies_.front();
  Check& check = verify.checks.at(number);
  const ObjectIx o = check.object;
  if (!ok) check.bad = true;
  if (--check.parts > 0) return;
  if (check.reading && !check.bad) {
    check.reading = false;
    check.parts = residents_[o].shards;
    submit_sums(o, JobKind::verify_sum, number, check.buffer, kHostArena);
    return;
  }
  const bool bad = check.bad;
  verify.buffered -= bytes_of(check.buffer);
  host_.free(check.buffer);
  verify.checks.erase(number);
  if (bad && index_.object(o).state == ObjectState::visible) {
    ++verify.report.bad;
    log::warn("verify: an object of group {} ({}..{}) is bad; dropped, with what hangs on it",
              index_.object(o).group,
              index_.object(o).first,
              index_.object(o).end);
    forget_below(o, Reason::corrupt, now);
  }
  unhold(o, now);
}

// ---- ls ----------------------------------------------------------------------------------------

void CacheImpl::list(const Cache::ListWish& wish,
                     std::function<void(std::vector<ObjectStatus>)> done) {
  ListJob& job = lists_.emplace_back();
  job.wish = wish;
  job.done = std::move(done);
}

/// One step's work; true when it was the last. Keeps little more than what is asked for: of a
/// sorted part only the first can be among the first of all.
bool CacheImpl::list_some(ListJob& job, Instant now) const {
  const Cache::ListWish& wish = job.wish;
  const auto before = [sort = wish.sort](const ObjectStatus& a, const ObjectStatus& b) {
    switch (sort) {
      case Cache::Sort::keep:
        return a.keep_value > b.keep_value;
      case Cache::Sort::bytes:
        return a.bytes > b.bytes;
      case Cache::Sort::age:
        return a.age < b.age;
      case Cache::Sort::depth:
        return a.end < b.end;
    }
    return false;
  };
  std::size_t looks = 0;
  for (; job.next < index_.object_slots() && looks < kLooksPerStep; ++job.next, ++looks) {
    const Object& object = index_.object(static_cast<ObjectIx>(job.next));
    if (object.state != ObjectState::visible || (wish.ns && object.space != *wish.ns) ||
        (wish.tier && !object.in(*wish.tier)))
      continue;
    job.found.push_back(status_of(static_cast<ObjectIx>(job.next), now));
    looks += kLooksPerStep / kRowsPerStep - 1;  // its value takes longer than a look
  }
  const bool last = job.next >= index_.object_slots();
  if (last || (job.found.size() > kLooksPerStep && job.found.size() - kLooksPerStep > wish.limit)) {
    std::stable_sort(job.found.begin(), job.found.end(), before);
    if (job.found.size() > wish.limit) job.found.resize(wish.limit);
  }
  return last;
}

void CacheImpl::step_list(Instant now) {
  if (lists_.empty()) return;
  if (!list_some(lists_.front(), now)) {
    ++sweep_work_;
    return;
  }
  ListJob over = std::move(lists_.front());
  lists_.pop_front();
  over.done(std::move(over.found));
}

// ---- rm ----------------------------------------------------------------------------------------

/// Tickets of the generation before lose their plans.
void CacheImpl::kill_of(NamespaceIx ns,
                        const std::vector<ObjectIx>& list,
                        Reason reason,
                        Instant now) {
  std::vector<TicketName> names;
  for (const auto& [name, ticket] : tickets_) {
    const bool older = ticket.generation != spaces_[ns].generation;
    if (ticket.space == ns && older && !ticket.lease && !ticket.lost) names.push_back(name);
  }
  kill(list, reason, now);
  for (const TicketName& name : names) {
    if (Ticket* ticket = find_ticket(name); ticket != nullptr) lose(*ticket, now);
  }
}

void CacheImpl::remove_namespace(NamespaceIx ns,
                                 std::function<void(std::uint64_t)> done,
                                 Instant now) {
  SC_ASSERT(ns < spaces_.size());
  SpaceInfo& space = spaces_[ns];
  // A new generation: what was being written under the old one can no longer appear, and a start
  // from here on takes no row of it over.
  ++space.generation;
  keep_generation(space, now);
  if (space.row_sent) deleting_.renewed.push_back(ns);
  space.durable = false;
  if (space.clients == 0) space.removed = true;
  removes_.push_back({ns, std::move(done), now, 0, 0});
}

/// What is stored meanwhile is of the new generation and stays, unless it hangs on what goes.
void CacheImpl::step_remove(Instant now) {
  if (removes_.empty()) return;
  RemoveJob& job = removes_.front();
  std::vector<ObjectIx> list;
  std::size_t looks = 0;
  for (; job.next < index_.object_slots() && looks < kLooksPerStep && list.size() < kKillsPerStep;
       ++job.next, ++looks) {
    const auto o = static_cast<ObjectIx>(job.next);
    const ObjectState state = index_.object(o).state;
    if (index_.object(o).space != job.ns || state == ObjectState::free ||
        state == ObjectState::dead)
      continue;
    if (residents_[o].reserved <= job.asked) list.push_back(o);
  }
  std::unordered_set<ObjectIx> going(list.begin(), list.end());
  for (std::size_t i = 0; i < list.size(); ++i) {
    for (ObjectIx child : children_of(list[i])) {
      if (residents_[child].reserved > job.asked && going.insert(child).second)
        list.push_back(child);
    }
  }
  job.count += list.size();
  if (!list.empty()) kill_of(job.ns, list, Reason::removed, now);
  if (job.next < index_.object_slots()) {
    ++sweep_work_;
    return;
  }
  const RemoveJob over = std::move(removes_.front());
  removes_.pop_front();
  over.done(over.count);
}

// ---- what was priced out -----------------------------------------------------------------------

/// Whether write-behind would take it now.
bool CacheImpl::worth_disk_now(ObjectIx o, Instant now) {
  const Object& object = index_.object(o);
  const SpaceInfo& space = spaces_[object.space];
  const SegmentTerms value = segment_terms(
      index_, object.node, Tier::host, false, space.spec.cost, space.has_end, space.speeds);
  const double load = value.bytes_freed / space.speeds.load[index(Tier::nvme)];
  if (options_.policy.demotion == Demotion::priced && value.seconds_saved <= load) return false;
  if (seams_.budget == nullptr) return true;
  const double worth = (value.seconds_saved - load) / std::max(value.bytes_freed, 1.0);
  return worth > kReconsiderMargin * seams_.budget->status().price &&
         seams_.budget->room(now) >= object.bytes;
}

/// Prices fall, tokens flow in, and what hangs below a node changes what it is worth.
void CacheImpl::step_reconsider(Instant now) {
  if (!reconsidering_) {
    if (!priced_out_ || now - reconsidered_at_ < kReconsiderEvery) return;
    reconsidering_ = true;
    priced_out_ = false;
    reconsider_next_ = 0;
    reconsidered_at_ = now;
  }
  const std::size_t last = std::min(index_.object_slots(), reconsider_next_ + kRowsPerStep);
  for (; reconsider_next_ < last; ++reconsider_next_) {
    const auto o = static_cast<ObjectIx>(reconsider_next_);
    if (!residents_[o].not_worth_disk || index_.object(o).state != ObjectState::visible) continue;
    if (index_.object(o).in(Tier::nvme)) {
      residents_[o].not_worth_disk = false;
    } else if (index_.object(o).in(Tier::host) && worth_disk_now(o, now)) {
      residents_[o].not_worth_disk = false;
      requeue(index_.object(o).node);
    } else {
      priced_out_ = true;
    }
  }
  reconsidering_ = reconsider_next_ < index_.object_slots();
}

}  // namespace statecached
