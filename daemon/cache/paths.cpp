// Drives that fail, what may be written to those that do not, and whether they can deliver in time.

#include "base/log.hpp"
#include "daemon/cache/cache_impl.hpp"

#include <algorithm>
#include <cerrno>

namespace statecached {

void CacheImpl::watch_drives(Instant now) {
  for (std::uint16_t d = 0; d < health_.size(); ++d) {
    const DiskHealth health = seams_.disks[d]->health();
    if (health == health_[d]) continue;
    health_[d] = health;
    if (health == DiskHealth::out) drive_out(d, now);
  }
}

/// What has a copy in memory stays there, unwritten again; the rest is forgotten. The drive's rows
/// are deleted: whether its bytes will ever be read again nobody knows.
void CacheImpl::drive_out(std::uint16_t drive, Instant now) {
  std::vector<ObjectIx> order;
  std::unordered_set<ObjectIx> found;
  for (ObjectIx o = 0; o < index_.object_slots(); ++o) {
    const Object& object = index_.object(o);
    if (object.state != ObjectState::visible || !object.in(Tier::nvme) ||
        residents_[o].path != drive)
      continue;
    if (found.insert(o).second) order.push_back(o);
  }
  // NVMe is closed on itself: what hangs there on something that is gone goes too, on whatever
  // drive.
  for (std::size_t i = 0; i < order.size(); ++i) {
    for (ObjectIx child : children_of(order[i])) {
      if (index_.object(child).in(Tier::nvme) && found.insert(child).second) order.push_back(child);
    }
  }
  std::sort(order.begin(), order.end(), [&](ObjectIx a, ObjectIx b) {
    const Object& x = index_.object(a);
    const Object& y = index_.object(b);
    return std::pair{x.end, x.full ? 0 : 1} > std::pair{y.end, y.full ? 0 : 1};
  });
  std::vector<ObjectIx> lost;
  std::size_t kept = 0;
  for (ObjectIx o : order) {
    const Object& object = index_.object(o);
    if ((object.tiers & ~(1U << index(Tier::nvme))) != 0 && index_.may_leave(object, Tier::nvme)) {
      drop_copy(o, Tier::nvme, Reason::io_error, now);
      ++kept;
    } else {
      lost.push_back(o);
    }
  }
  log::error(
      "drive {} is out: {} objects are forgotten, {} are left in memory", drive, lost.size(), kept);
  kill(with_all_below(std::move(lost)), Reason::io_error, now);
  give_up_loads(drive, now);
}

/// Their memory stays taken until the drive returns it, or for ever; nobody waits for it.
void CacheImpl::give_up_loads(std::uint16_t drive, Instant now) {
  std::vector<TicketName> waiters;
  for (auto& [o, load] : loads_) {
    if (residents_[o].path != drive) continue;
    load.failed = true;
    load.reason = Reason::io_error;
    waiters.insert(waiters.end(), load.waiters.begin(), load.waiters.end());
    load.waiters.clear();
    if (index_.object(o).state == ObjectState::visible) index_.object(o).state = ObjectState::dead;
  }
  for (const TicketName& name : waiters) {
    Ticket* ticket = find_ticket(name);
    if (ticket == nullptr || ticket->answer.state != TicketState::loading) continue;
    plan(*ticket, ticket->at_most, false, true, now);
    if (listener_ == nullptr) continue;
    listener_->on_answer(name);
    if (ticket->lease) listener_->on_leased(name);
  }
}

/// Reads that nobody waits for any more are called back, as far as the drive has not begun them: a
/// client that went away, or a request that was cancelled, costs those that stay nothing.
void CacheImpl::cancel_orphans(Instant now) {
  orphans_ = false;
  std::vector<std::unordered_set<std::uint64_t>> tags(disks_.size());
  const auto waited_for = [&](ObjectIx o) { return !loads_.at(o).waiters.empty(); };
  for (const auto& [tag, job] : jobs_) {
    if (job.kind != JobKind::load_read ||
        std::any_of(job.objects.begin(), job.objects.end(), waited_for))
      continue;
    tags[job.path].insert(tag);
  }
  std::vector<std::uint64_t> here;
  for (std::size_t d = 0; d < tags.size(); ++d) {
    std::erase_if(disk_backlog_[d], [&](const DiskOp& op) {
      if (op.kind != DiskKind::read || tags[d].erase(op.tag) == 0) return false;
      here.push_back(op.tag);
      return true;
    });
    if (tags[d].empty()) continue;
    const std::vector<std::uint64_t> there(tags[d].begin(), tags[d].end());
    seams_.disks[d]->cancel(there);
  }
  for (const std::uint64_t tag : here)
    on_disk({tag, ECANCELED, {}}, now);
}

/// Nothing of it is under way any more. Whoever has come to wait for it meanwhile gets it read
/// after all.
void CacheImpl::end_cancelled(ObjectIx o, Instant now) {
  LoadState& load = loads_.at(o);
  load.cancelled = false;
  if (!load.waiters.empty()) {
    read_objects({o}, DiskClass::demand, {}, now);
    return;
  }
  loads_.erase(o);
  loading_bytes_ -= index_.object(o).bytes;
  host_.free(residents_[o].runs[index(Tier::host)]);
  residents_[o].runs[index(Tier::host)].clear();
  unhold(o, now);
}

/// Of the budget a batch takes at most half of what is left, so that one large object does not wait
/// for all of it.
std::uint64_t CacheImpl::batch_bytes(Instant now) const {
  if (seams_.budget == nullptr) return kBatchBytes;
  return std::clamp<std::uint64_t>(seams_.budget->room(now) / 2, kPage, kBatchBytes);
}

/// `beside`: bytes that are in the same batch already.
bool CacheImpl::budget_allows(const std::vector<ObjectIx>& objects,
                              std::uint64_t beside,
                              double seconds_per_byte,
                              Instant now) {
  if (seams_.budget == nullptr) return true;
  std::uint64_t bytes = 0;
  for (ObjectIx o : objects)
    bytes += index_.object(o).bytes;
  return seams_.budget->worth(seconds_per_byte, bytes, now) &&
         seams_.budget->room(now) >= beside + bytes;
}

/// May be dropped unwritten from now on. Returns the bytes.
std::uint64_t CacheImpl::hold_back(NodeIx node) {
  std::uint64_t bytes = 0;
  for (ObjectIx o : index_.node(node).objects) {
    const Object& object = index_.object(o);
    if (object.state != ObjectState::visible || !object.in(Tier::host) || object.in(Tier::nvme))
      continue;
    if (residents_[o].writing_behind || residents_[o].not_worth_disk) continue;
    residents_[o].not_worth_disk = true;
    priced_out_ = true;
    seams_.budget->held_back(object.bytes);
    bytes += object.bytes;
  }
  return bytes;
}

/// A prefetch with a deadline: whether what is before it on each drive (demand reads, and
/// prefetches with an earlier deadline) and its own bytes pass by then, at the rate the drive shows
/// under load.
bool CacheImpl::in_time(const Ticket& ticket,
                        const std::vector<ObjectIx>& to_load,
                        Instant now) const {
  if (ticket.read_class != DiskClass::prefetch || ticket.deadline == Instant{}) return true;
  std::vector<std::uint64_t> bytes(disks_.size());
  for (ObjectIx o : to_load)
    bytes[residents_[o].path] += index_.object(o).bytes;
  for (const auto& [tag, job] : jobs_) {
    if (job.kind != JobKind::load_read || bytes[job.path] == 0) continue;
    const bool before = job.klass == DiskClass::demand ||
                        (job.deadline != Instant{} && job.deadline <= ticket.deadline);
    if (before) bytes[job.path] += job.bytes;
  }
  for (std::size_t d = 0; d < bytes.size(); ++d) {
    if (bytes[d] == 0) continue;
    const double measured = seams_.disks[d]->stats().read_rate;
    const double rate =
        measured > 0 ? measured : spaces_[ticket.space].speeds.load[index(Tier::nvme)];
    if (now + from_seconds(static_cast<double>(bytes[d]) / rate) > ticket.deadline) return false;
  }
  return true;
}

}  // namespace statecached
