// read_into and write_from: copies between the arena and memory of the caller, outside the mutex.

#include "base/copy.hpp"
#include "client/src/impl.hpp"

#include <algorithm>
#include <cstring>

namespace statecache {
namespace {

/// A client that writes into a staging area commits as often as this, so that the daemon copies in
/// what is there while the rest is written.
constexpr std::uint64_t kStagedPart = 1U << 20U;
/// A streaming copy of less is all head and tail.
constexpr std::uint64_t kStreamPieceFrom = 4096;

std::uint64_t key_of(std::uint16_t group, std::uint32_t at) noexcept {
  return (std::uint64_t{group} << 32U) | at;
}

std::uint64_t size_of(std::span<const Extent> extents) noexcept {
  std::uint64_t total = 0;
  for (const Extent& extent : extents)
    total += extent.bytes;
  return total;
}

/// Both must hold at least `bytes`. `stream`: past the caches.
void copy(std::span<const Extent> from,
          std::span<const Extent> to,
          std::uint64_t bytes,
          bool stream) noexcept {
  std::size_t in = 0, in_at = 0, out = 0, out_at = 0;
  while (bytes > 0) {
    const std::uint64_t n = std::min(
        {bytes, std::uint64_t{from[in].bytes - in_at}, std::uint64_t{to[out].bytes - out_at}});
    if (n >= kStreamPieceFrom && stream) {
      base::copy_streaming(to[out].data + out_at, from[in].data + in_at, n);
    } else if (n != 0) {
      std::memcpy(to[out].data + out_at, from[in].data + in_at, n);
    }
    bytes -= n;
    in_at += n;
    out_at += n;
    if (in_at == from[in].bytes) ++in, in_at = 0;
    if (out_at == to[out].bytes) ++out, out_at = 0;
  }
}

/// Where each object is in a list, to be found by group and first token.
using Places = std::vector<std::pair<std::uint64_t, std::size_t>>;

/// The index that belongs to the key; SIZE_MAX when there is none. `places` is sorted.
std::size_t find_place(const Places& places, std::uint64_t key) noexcept {
  const auto it = std::ranges::lower_bound(places, key, {}, &Places::value_type::first);
  return it == places.end() || it->first != key ? SIZE_MAX : it->second;
}

/// What a copy needs to know, kept by each thread for its memory: copies of a steady engine
/// allocate nothing.
struct Scratch {
  Lease lease;
  Places places;
  std::vector<wire::WantRecord> wants;
  std::vector<Slot> slots;
  std::vector<Filled> filled;
  std::vector<std::size_t> written;
  std::vector<SlotId> unused;
};

Scratch& scratch() {
  thread_local Scratch out;
  return out;
}

Status check_flags(std::size_t memory, std::size_t ok) {
  if (memory == ok) return {};
  return failure(Errc::invalid_argument, "there must be one flag for each piece of memory");
}

}  // namespace

Status Session::read_into(TicketId id,
                          std::span<const Memory> memory,
                          Micros timeout,
                          std::span<bool> ok) const noexcept {
  if (Status status = check_flags(memory.size(), ok.size()); !status) return status;
  std::fill(ok.begin(), ok.end(), false);
  Scratch& mine = scratch();
  if (Status status = wait_lease(id, timeout, mine.lease); !status) return status;
  mine.places.clear();
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < mine.lease.pieces.size(); ++i) {
    const Piece& piece = mine.lease.pieces[i];
    if (piece.shard != impl_->shard_of(piece.group)) continue;
    mine.places.emplace_back(key_of(piece.group, piece.first), i);
    total += piece.bytes;
  }
  std::ranges::sort(mine.places);
  for (std::size_t i = 0; i < memory.size(); ++i) {
    const std::size_t found = find_place(mine.places, key_of(memory[i].group, memory[i].at));
    if (found == SIZE_MAX) continue;
    const Piece& piece = mine.lease.pieces[found];
    if (size_of(memory[i].pieces) < piece.bytes) continue;
    copy(piece.where, memory[i].pieces, piece.bytes, total >= base::kStreamFrom);
    ok[i] = true;
  }
  return {};
}

namespace {

/// The wants of a write_from; error when they make no sense.
Status list_wants(std::span<const Memory> memory,
                  const base::NamespaceSpec& spec,
                  Scratch& mine,
                  std::uint64_t& total) {
  mine.wants.clear();
  mine.places.clear();
  for (const Memory& item : memory) {
    if (item.group >= spec.groups.size()) return failure(Errc::invalid_argument, "no such group");
    const bool state = spec.groups[item.group].need == base::Need::end;
    mine.places.emplace_back(key_of(item.group, item.at), mine.wants.size());
    wire::WantRecord want;
    want.group = item.group;
    want.first = item.at;
    want.end = state ? item.at : item.at + item.valid;
    want.bytes = size_of(item.pieces);
    total += want.bytes;
    mine.wants.push_back(want);
  }
  std::ranges::sort(mine.places);
  const auto same = [](const auto& a, const auto& b) { return a.first == b.first; };
  if (std::ranges::adjacent_find(mine.places, same) != mine.places.end()) {
    return failure(Errc::invalid_argument, "the same object twice");
  }
  return {};
}

}  // namespace

Status Session::write_from(TicketId id,
                           std::span<const Memory> memory,
                           Micros timeout,
                           std::span<bool> ok) noexcept {
  if (Status status = check_flags(memory.size(), ok.size()); !status) return status;
  std::fill(ok.begin(), ok.end(), false);
  if (memory.empty()) return {};
  Scratch& mine = scratch();
  std::uint64_t total = 0;
  if (Status listed = list_wants(memory, impl_->spec, mine, total); !listed) return listed;
  mine.slots.clear();
  bool staged = false;
  {
    Impl::Lock lock;
    if (Status in = impl_->enter(lock); !in) return in;
    staged = std::ranges::any_of(impl_->arenas, &ArenaMap::staging);
    Ticket* ticket = impl_->find(id);
    if (ticket == nullptr || (ticket->finished && ticket->released)) {
      return failure(Errc::not_found, "no such ticket");
    }
    wire::Request record;
    record.op = static_cast<std::uint16_t>(wire::Op::reserve);
    record.ticket = ticket->name;
    record.a = static_cast<std::uint32_t>(mine.wants.size());
    const auto part = bytes_of(std::span<const wire::WantRecord>(mine.wants));
    if (Status sent =
            impl_->post(record, std::span(&part, 1), Pending{wire::Op::reserve, id, true});
        !sent) {
      return sent;
    }
    // post() may have taken completions: the ticket may have gone from where it was.
    if (Ticket* still = impl_->find(id); still != nullptr) ++still->unanswered;
    const std::uint32_t cookie = impl_->last_cookie;
    impl_->internal.emplace(cookie,
                            InternalReserve{.answered = false, .error = {}, .slots = &mine.slots});
    impl_->wait_until(
        lock, deadline_after(timeout), [&] { return impl_->internal.at(cookie).answered; });
    const InternalReserve answer = std::move(impl_->internal.at(cookie));
    impl_->internal.erase(cookie);
    if (!answer.answered) {
      return impl_->down() ? impl_->closed()
                           : failure(Errc::timeout, "the slots did not come in time");
    }
    if (!answer.error.ok()) return answer.error;
  }
  mine.filled.clear();
  mine.written.clear();
  mine.unused.clear();
  std::uint64_t uncommitted = 0;
  for (const Slot& slot : mine.slots) {
    const std::size_t found = find_place(mine.places, key_of(slot.group, slot.first));
    const bool fits = found != SIZE_MAX && slot.bytes == mine.wants[found].bytes;
    if (slot.grant == Grant::exists && found != SIZE_MAX) ok[found] = true;
    if (slot.grant != Grant::granted) continue;
    if (!fits || slot.shard != impl_->shard_of(slot.group)) {
      mine.unused.push_back(slot.id);
      continue;
    }
    // What the daemon reads next is better left in the caches.
    copy(memory[found].pieces, slot.where, slot.bytes, !staged && total >= base::kStreamFrom);
    mine.filled.push_back(Filled{slot.id, 0});
    mine.written.push_back(found);
    uncommitted += slot.bytes;
    if (!staged || uncommitted < kStagedPart) continue;
    if (!commit(mine.filled)) continue;  // the ring is full: later, with the rest
    mine.filled.clear();
    uncommitted = 0;
  }
  if (Status status = abandon(mine.unused); !status) return status;
  if (Status status = commit(mine.filled); !status) {
    // The ring is full: give the slots up rather than leave them open until they are too old.
    mine.unused.clear();
    for (const Filled& item : mine.filled)
      mine.unused.push_back(item.slot);
    static_cast<void>(abandon(mine.unused).ok());
    return status;
  }
  for (const std::size_t i : mine.written)
    ok[i] = true;
  return {};
}

}  // namespace statecache
