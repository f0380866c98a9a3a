// From NVMe to host memory: whom a load is for, what it reads, and when nobody wants it any more.

#include "base/log.hpp"
#include "daemon/cache/cache_impl.hpp"

#include <algorithm>

namespace statecached {

void CacheImpl::start_loads(Ticket& ticket, const std::vector<ObjectIx>& objects, Instant now) {
  for (ObjectIx o : objects)
    hold(o, now);  // the load's own
  counters_.loads += objects.size();
  read_objects(objects, ticket.read_class, ticket.deadline, now);
}

void CacheImpl::read_objects(const std::vector<ObjectIx>& objects,
                             DiskClass klass,
                             Instant deadline,
                             Instant now) {
  std::vector<ObjectIx> order = objects;
  std::sort(order.begin(), order.end(), [&](ObjectIx a, ObjectIx b) {
    const Resident& x = residents_[a];
    const Resident& y = residents_[b];
    return std::pair{x.path, x.disk.front().at} < std::pair{y.path, y.disk.front().at};
  });
  DiskOp op;
  Job job;
  std::uint16_t path = 0;
  const auto send = [&] {
    if (op.pieces.empty()) return;
    op.kind = DiskKind::read;
    op.klass = klass;
    op.deadline = deadline;
    job.kind = JobKind::load_read;
    job.started = now;
    job.path = path;
    job.klass = op.klass;
    job.deadline = op.deadline;
    op.tag = add_job(std::move(job));
    disk_backlog_[path].push_back(std::move(op));
    op = DiskOp{};
    job = Job{};
  };
  std::vector<DiskPiece> pieces;
  for (ObjectIx o : order) {
    Resident& resident = residents_[o];
    if (resident.path != path) send();
    path = resident.path;
    pieces.clear();
    zip(resident.disk, resident.runs[index(Tier::host)], kHostArena, pieces);
    for (DiskPiece& piece : pieces) {
      while (piece.bytes > 0) {
        DiskPiece part = piece;
        part.bytes = std::min(part.bytes, kDiskOpBytes);
        piece.disk_offset += part.bytes;
        piece.memory.offset += part.bytes;
        piece.bytes -= part.bytes;
        op.pieces.push_back(part);
        job.bytes += part.bytes;
        if (job.objects.empty() || job.objects.back() != o) {
          job.objects.push_back(o);
          ++loads_[o].parts;
        }
        if (job.bytes >= kDiskOpBytes) send();
      }
    }
  }
  send();
}

void CacheImpl::load_part_done(ObjectIx o, bool ok, Reason reason, Instant now) {
  LoadState& load = loads_.at(o);
  if (!ok) {
    load.failed = true;
    load.reason = reason;
  }
  if (--load.parts > 0) return;
  loaded(o, now);
}

/// Everything of it was read and checked, or something went wrong.
void CacheImpl::loaded(ObjectIx o, Instant now) {
  LoadState load = std::move(loads_.at(o));
  loads_.erase(o);
  loading_bytes_ -= index_.object(o).bytes;
  Resident& resident = residents_[o];
  if (load.failed) {
    ++counters_.load_failures;
    log::warn("an object of group {} ({}..{}) on NVMe is lost: {}; dropped, with what hangs on it",
              index_.object(o).group,
              index_.object(o).first,
              index_.object(o).end,
              to_string(load.reason));
    host_.free(resident.runs[index(Tier::host)]);
    resident.runs[index(Tier::host)].clear();
    forget_below(o, load.reason, now);
  } else {
    counters_.bytes_promoted[index(Tier::host)] += index_.object(o).bytes;
    counters_.nvme_bytes_read += index_.object(o).bytes;
    resident.prefetched = true;
    entered(o, Tier::host, now);
    event(EventKind::promoted, Reason::none, Tier::host, o);
  }
  unhold(o, now);
  for (const TicketName& name : load.waiters) {
    Ticket* ticket = find_ticket(name);
    if (ticket == nullptr) continue;
    if (load.failed) {
      plan(*ticket, ticket->at_most, false, true, now);
    } else if (--ticket->loading > 0) {
      continue;
    } else {
      const Nanos took = now - ticket->loading_since;
      if (ticket->predicted.count() > 0)
        wait_error_.record(static_cast<std::uint64_t>(took * 1000 / ticket->predicted));
      if (options_.measure_speeds) load_time_.add(ticket->waits_for, seconds(took));
      ++ticket->answer.version;
      ticket->answer.state = TicketState::ready;
      ticket->answer.usable = std::max(ticket->answer.usable, ticket->chosen);
      if (ticket->want_lease) make_lease(*ticket, now);
    }
    if (listener_ == nullptr) continue;
    listener_->on_answer(name);
    if (ticket->lease) listener_->on_leased(name);
  }
}

}  // namespace statecached
