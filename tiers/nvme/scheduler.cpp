#include "tiers/nvme/scheduler.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace statecached {
namespace {

/// How long after a demand read the next is expected.
constexpr Nanos kDemandMemory = std::chrono::milliseconds(10);
/// Of write-behind while demand reads come; also the least that a small budget shortens others to.
constexpr std::uint64_t kThrottledTransfer = 256 * kKiB;

constexpr std::size_t index(DiskClass klass) noexcept {
  return static_cast<std::size_t>(klass);
}

constexpr std::size_t index(DiskKind kind) noexcept {
  return kind == DiskKind::write ? 1 : 0;
}

bool follows(const TransferRun& run, const MemoryRef& next) noexcept {
  return run.memory.arena == next.arena && run.memory.offset + run.bytes == next.offset;
}

}  // namespace

Scheduler::Key Scheduler::key_of(const OpState& state, std::uint32_t slot) noexcept {
  const bool by_deadline = state.op.klass == DiskClass::prefetch;
  Instant deadline = by_deadline ? state.op.deadline : Instant{};
  if (by_deadline && deadline == Instant{}) deadline = Instant::max();
  return {deadline, state.sequence, slot};
}

Scheduler::Queue& Scheduler::queue_of(const OpState& state) noexcept {
  return queues_[index(state.op.klass)][index(state.op.kind)];
}

void Scheduler::add(DiskOp&& op, std::vector<Finished>& out) {
  std::uint32_t slot = 0;
  if (free_.empty()) {
    slot = static_cast<std::uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    slot = free_.back();
    free_.pop_back();
  }
  OpState& state = slots_[slot];
  state = OpState{};
  state.op = std::move(op);
  state.sequence = sequence_++;
  ++live_;
  if (state.op.kind == DiskKind::sync) {
    syncs_.push_back(slot);
    ++waiting_;
    return;
  }
  for (const DiskPiece& piece : state.op.pieces)
    state.total += piece.bytes;
  state.unstarted = state.total;
  pending_[index(state.op.klass)] += state.total;
  if (state.op.klass == DiskClass::demand && state.op.kind == DiskKind::read) ++demand_reads_;
  if (state.total == 0) {
    retire(slot, Instant{}, out);
    return;
  }
  std::stable_sort(
      state.op.pieces.begin(), state.op.pieces.end(), [](const DiskPiece& a, const DiskPiece& b) {
        return a.disk_offset < b.disk_offset;
      });
  queue_of(state).insert(key_of(state, slot));
  ++waiting_;
}

bool Scheduler::demand_comes(Instant now) const noexcept {
  return demand_reads_ != 0 || (last_demand_ && now - *last_demand_ < kDemandMemory);
}

bool Scheduler::allowed(DiskClass klass, DiskKind kind, Instant now) const noexcept {
  const std::uint64_t limit = budgets_[index(kind)].limit();
  // What prefetch has in flight a demand read must wait for.
  if (bytes_[index(kind)] >= (klass == DiskClass::prefetch ? limit / 2 : limit)) return false;
  // Many small transfers of the lower classes must not use up the places a demand read needs.
  const std::size_t reserve = klass == DiskClass::demand ? 0 : limits_.transfers / 4;
  if (transfers_ + reserve >= limits_.transfers) return false;
  const bool throttled = klass == DiskClass::write_behind && demand_comes(now);
  return !throttled || class_transfers_[index(klass)] == 0;
}

std::uint64_t Scheduler::longest(DiskClass klass, DiskKind kind, Instant now) const noexcept {
  if (klass == DiskClass::write_behind && demand_comes(now)) return kThrottledTransfer;
  const std::uint64_t share =
      budgets_[index(kind)].limit() / (klass == DiskClass::prefetch ? 4 : 2);
  return std::min(limits_.transfer_bytes, round_down(std::max(share, kThrottledTransfer), kPage));
}

bool Scheduler::has_room(DiskKind kind) const noexcept {
  if (transfers_ >= limits_.transfers) return false;
  return kind == DiskKind::sync ? !sync_in_flight_ : allowed(DiskClass::demand, kind, {});
}

std::optional<Transfer> Scheduler::next(Instant now) {
  if (waiting_ == 0 || transfers_ >= limits_.transfers) return std::nullopt;
  if (!syncs_.empty() && !sync_in_flight_) return start_sync(now);
  for (const DiskClass klass : {DiskClass::demand, DiskClass::prefetch, DiskClass::write_behind}) {
    for (const DiskKind kind : {DiskKind::read, DiskKind::write}) {
      Queue& queue = queues_[index(klass)][index(kind)];
      if (!queue.empty() && allowed(klass, kind, now))
        return start_transfer(queue, klass, kind, now);
    }
  }
  return std::nullopt;
}

Transfer Scheduler::start_sync(Instant now) {
  Transfer transfer;
  transfer.kind = DiskKind::sync;
  for (const std::uint32_t slot : syncs_) {
    slots_[slot].started = now;
    transfer.klass = slots_[slot].op.klass;
    transfer.parts.push_back({slot, 0});
  }
  waiting_ -= syncs_.size();
  syncs_.clear();
  sync_in_flight_ = true;
  ++transfers_;
  return transfer;
}

Transfer Scheduler::start_transfer(Queue& queue, DiskClass klass, DiskKind kind, Instant now) {
  Transfer transfer;
  transfer.kind = kind;
  transfer.klass = klass;
  const std::uint64_t most = longest(klass, kind, now);
  while (!queue.empty()) {
    const std::uint32_t slot = queue.begin()->slot;
    OpState& state = slots_[slot];
    const std::uint64_t before = transfer.bytes;
    take_pieces(state, slot, most, transfer);
    if (transfer.bytes != before && !state.started) state.started = now;
    if (state.unstarted != 0) break;
    queue.erase(queue.begin());
    --waiting_;
  }
  SC_ASSERT(transfer.bytes != 0);
  bytes_[index(kind)] += transfer.bytes;
  ++class_transfers_[index(klass)];
  ++transfers_;
  return transfer;
}

void Scheduler::take_pieces(OpState& state,
                            std::uint32_t slot,
                            std::uint64_t longest,
                            Transfer& transfer) const {
  std::uint64_t taken = 0;
  while (state.next_piece < state.op.pieces.size()) {
    const DiskPiece& piece = state.op.pieces[state.next_piece];
    const std::uint64_t from = piece.disk_offset + state.next_offset;
    const std::uint64_t room = longest - transfer.bytes;
    const std::uint64_t bytes = std::min(piece.bytes - state.next_offset, room);
    if (bytes != 0) {
      if (transfer.bytes == 0) transfer.disk_offset = from;
      if (transfer.disk_offset + transfer.bytes != from) break;
      const MemoryRef memory{piece.memory.arena, piece.memory.offset + state.next_offset};
      if (!transfer.runs.empty() && follows(transfer.runs.back(), memory)) {
        transfer.runs.back().bytes += bytes;
      } else if (transfer.runs.size() < limits_.transfer_runs) {
        transfer.runs.push_back({memory, bytes});
      } else {
        break;
      }
      transfer.bytes += bytes;
      state.next_offset += bytes;
      taken += bytes;
    }
    if (state.next_offset != piece.bytes) break;
    ++state.next_piece;
    state.next_offset = 0;
  }
  if (taken == 0) return;
  transfer.parts.push_back({slot, taken});
  state.unstarted -= taken;
  state.in_flight += taken;
}

void Scheduler::finish(const Transfer& transfer,
                       std::uint64_t done_bytes,
                       int os_error,
                       Instant now,
                       std::vector<Finished>& out) {
  SC_ASSERT(done_bytes <= transfer.bytes && transfers_ != 0);
  --transfers_;
  if (transfer.kind == DiskKind::sync) {
    sync_in_flight_ = false;
    for (const Transfer::Part& part : transfer.parts) {
      slots_[part.op].error = os_error;
      retire(part.op, now, out);
    }
    return;
  }
  SC_ASSERT((os_error == 0) == (done_bytes == transfer.bytes));
  bytes_[index(transfer.kind)] -= transfer.bytes;
  --class_transfers_[index(transfer.klass)];
  const std::size_t kind = index(transfer.kind);
  const bool held_back = !queues_[0][kind].empty() || !queues_[1][kind].empty() ||
                         (!queues_[2][kind].empty() && !demand_comes(now));
  budgets_[kind].ended(done_bytes, held_back, bytes_[1 - kind] == 0, now);
  // Ops whose bytes all lie before the place of the failure are not harmed by it.
  std::uint64_t end = 0;
  for (const Transfer::Part& part : transfer.parts) {
    end += part.bytes;
    end_part(part.op, part.bytes, end <= done_bytes ? 0 : os_error, now, out);
  }
}

void Scheduler::end_part(std::uint32_t slot,
                         std::uint64_t bytes,
                         int os_error,
                         Instant now,
                         std::vector<Finished>& out) {
  OpState& state = slots_[slot];
  SC_ASSERT(state.in_flight >= bytes);
  state.in_flight -= bytes;
  if (os_error != 0) {
    if (state.error == 0) state.error = os_error;
    if (state.unstarted != 0) {
      queue_of(state).erase(key_of(state, slot));
      --waiting_;
      state.unstarted = 0;
    }
  }
  if (state.in_flight == 0 && state.unstarted == 0) retire(slot, now, out);
}

void Scheduler::retire(std::uint32_t slot, Instant now, std::vector<Finished>& out) {
  OpState& state = slots_[slot];
  Finished finished;
  finished.kind = state.op.kind;
  finished.klass = state.op.klass;
  finished.bytes = state.error == 0 ? state.total : 0;
  finished.done.tag = state.op.tag;
  finished.done.os_error = state.error;
  if (state.started) finished.done.service = now - *state.started;
  out.push_back(finished);
  pending_[index(state.op.klass)] -= state.total;
  if (state.op.klass == DiskClass::demand && state.op.kind == DiskKind::read) {
    --demand_reads_;
    last_demand_ = now;
  }
  state.op = DiskOp{};
  free_.push_back(slot);
  --live_;
}

void Scheduler::cancel(std::span<const std::uint64_t> tags,
                       Instant now,
                       std::vector<Finished>& out) {
  std::vector<std::uint32_t> found;
  for (const DiskClass klass : {DiskClass::demand, DiskClass::prefetch, DiskClass::write_behind}) {
    for (const Key& key : queues_[index(klass)][index(DiskKind::read)]) {
      const OpState& state = slots_[key.slot];
      const bool asked = std::binary_search(tags.begin(), tags.end(), state.op.tag);
      if (asked && state.unstarted == state.total) found.push_back(key.slot);
    }
  }
  for (const std::uint32_t slot : found) {
    OpState& state = slots_[slot];
    queue_of(state).erase(key_of(state, slot));
    --waiting_;
    state.unstarted = 0;
    state.error = ECANCELED;
    retire(slot, now, out);
  }
}

void check_op(const DiskOp& op, std::uint64_t capacity, const Memories* memories) {
  SC_ASSERT(op.kind != DiskKind::sync || op.pieces.empty());
  for (const DiskPiece& piece : op.pieces) {
    SC_ASSERT(piece.disk_offset % kPage == 0 && piece.bytes % kPage == 0);
    SC_ASSERT(piece.memory.offset % kPage == 0);
    SC_ASSERT(piece.bytes <= capacity && piece.disk_offset <= capacity - piece.bytes);
    if (memories != nullptr) static_cast<void>(bytes_at(*memories, piece.memory, piece.bytes));
  }
}

void DiskCounters::finished(const Finished& op) noexcept {
  constexpr auto kOrder = std::memory_order_relaxed;
  if (op.kind == DiskKind::read) {
    reads_.fetch_add(1, kOrder);
    bytes_read_.fetch_add(op.bytes, kOrder);
  } else if (op.kind == DiskKind::write) {
    writes_.fetch_add(1, kOrder);
    bytes_written_.fetch_add(op.bytes, kOrder);
  } else {
    syncs_.fetch_add(1, kOrder);
  }
  if (op.done.os_error != 0 && op.done.os_error != ECANCELED) errors_.fetch_add(1, kOrder);
  queued_.fetch_sub(1, kOrder);
}

void DiskCounters::budgets(const Scheduler& scheduler) noexcept {
  constexpr auto kOrder = std::memory_order_relaxed;
  read_limit_.store(scheduler.budget(DiskKind::read).limit(), kOrder);
  write_limit_.store(scheduler.budget(DiskKind::write).limit(), kOrder);
  read_rate_.store(scheduler.budget(DiskKind::read).rate(), kOrder);
}

DiskStats DiskCounters::snapshot() const noexcept {
  constexpr auto kOrder = std::memory_order_relaxed;
  DiskStats stats;
  stats.reads = reads_.load(kOrder);
  stats.writes = writes_.load(kOrder);
  stats.syncs = syncs_.load(kOrder);
  stats.errors = errors_.load(kOrder);
  stats.bytes_read = bytes_read_.load(kOrder);
  stats.bytes_written = bytes_written_.load(kOrder);
  stats.queued = queued_.load(kOrder);
  stats.read_limit = read_limit_.load(kOrder);
  stats.write_limit = write_limit_.load(kOrder);
  stats.read_rate = read_rate_.load(kOrder);
  return stats;
}

}  // namespace statecached
