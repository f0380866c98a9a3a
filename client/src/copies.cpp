// read_into and write_from: copies between the arena and memory of the caller, outside the mutex.

#include "client/src/impl.hpp"

#include <algorithm>
#include <cstring>

namespace statecache {
namespace {

std::uint64_t key_of(std::uint16_t group, std::uint32_t at) noexcept {
  return (std::uint64_t{group} << 32U) | at;
}

std::uint64_t size_of(std::span<const Extent> extents) noexcept {
  std::uint64_t total = 0;
  for (const Extent& extent : extents) total += extent.bytes;
  return total;
}

/// Both must hold at least `bytes`.
void copy(std::span<const Extent> from, std::span<const Extent> to, std::uint64_t bytes) noexcept {
  std::size_t in = 0, in_at = 0, out = 0, out_at = 0;
  while (bytes > 0) {
    const std::uint64_t n =
        std::min({bytes, std::uint64_t{from[in].bytes - in_at}, std::uint64_t{to[out].bytes - out_at}});
    if (n != 0) std::memcpy(to[out].data + out_at, from[in].data + in_at, n);
    bytes -= n;
    in_at += n;
    out_at += n;
    if (in_at == from[in].bytes) ++in, in_at = 0;
    if (out_at == to[out].bytes) ++out, out_at = 0;
  }
}

Status check_flags(std::size_t memory, std::size_t ok) {
  if (memory == ok) return {};
  return failure(Errc::invalid_argument, "there must be one flag for each piece of memory");
}

}  // namespace

Status Session::read_into(TicketId id, std::span<const Memory> memory, Micros timeout, std::span<bool> ok) const noexcept {
  if (Status status = check_flags(memory.size(), ok.size()); !status) return status;
  std::fill(ok.begin(), ok.end(), false);
  const auto lease = wait_lease(id, timeout);
  if (!lease) return lease.status();
  std::unordered_map<std::uint64_t, const Piece*> by_place;
  for (const Piece& piece : lease->pieces) {
    if (piece.shard == impl_->shard_of(piece.group)) by_place.emplace(key_of(piece.group, piece.first), &piece);
  }
  for (std::size_t i = 0; i < memory.size(); ++i) {
    const auto found = by_place.find(key_of(memory[i].group, memory[i].at));
    if (found == by_place.end() || size_of(memory[i].pieces) < found->second->bytes) continue;
    copy(found->second->where, memory[i].pieces, found->second->bytes);
    ok[i] = true;
  }
  return {};
}

Status Session::write_from(TicketId id, std::span<const Memory> memory, Micros timeout, std::span<bool> ok) noexcept {
  if (Status status = check_flags(memory.size(), ok.size()); !status) return status;
  std::fill(ok.begin(), ok.end(), false);
  if (memory.empty()) return {};
  std::vector<wire::WantRecord> wants;
  std::unordered_map<std::uint64_t, std::size_t> by_place;
  for (const Memory& item : memory) {
    if (item.group >= impl_->spec.groups.size()) return failure(Errc::invalid_argument, "no such group");
    const bool state = impl_->spec.groups[item.group].need == base::Need::end;
    if (!by_place.emplace(key_of(item.group, item.at), wants.size()).second) {
      return failure(Errc::invalid_argument, "the same object twice");
    }
    wire::WantRecord want;
    want.group = item.group;
    want.first = item.at;
    want.end = state ? item.at : item.at + item.valid;
    want.bytes = size_of(item.pieces);
    wants.push_back(want);
  }
  std::vector<Slot> slots;
  {
    Impl::Lock lock;
    if (Status in = impl_->enter(lock); !in) return in;
    Ticket* ticket = impl_->find(id);
    if (ticket == nullptr || (ticket->finished && ticket->released)) {
      return failure(Errc::not_found, "no such ticket");
    }
    wire::Request record;
    record.op = static_cast<std::uint16_t>(wire::Op::reserve);
    record.ticket = ticket->name;
    record.a = static_cast<std::uint32_t>(wants.size());
    const auto part = bytes_of(std::span<const wire::WantRecord>(wants));
    if (Status sent = impl_->post(record, std::span(&part, 1), Pending{wire::Op::reserve, id, true}); !sent) {
      return sent;
    }
    ++ticket->unanswered;
    const std::uint32_t cookie = impl_->last_cookie;
    impl_->internal.emplace(cookie, InternalReserve{});
    impl_->wait_until(lock, deadline_after(timeout), [&] { return impl_->internal.at(cookie).answered; });
    InternalReserve answer = std::move(impl_->internal.at(cookie));
    impl_->internal.erase(cookie);
    if (!answer.answered) {
      return impl_->down() ? impl_->closed() : failure(Errc::timeout, "the slots did not come in time");
    }
    if (!answer.error.ok()) return answer.error;
    slots = std::move(answer.slots);
  }
  std::vector<Filled> filled;
  std::vector<std::size_t> written;
  std::vector<SlotId> unused;
  for (const Slot& slot : slots) {
    const auto found = by_place.find(key_of(slot.group, slot.first));
    const bool fits = found != by_place.end() && slot.bytes == wants[found->second].bytes;
    if (slot.grant == Grant::exists && found != by_place.end()) ok[found->second] = true;
    if (slot.grant != Grant::granted) continue;
    if (!fits || slot.shard != impl_->shard_of(slot.group)) {
      unused.push_back(slot.id);
      continue;
    }
    copy(memory[found->second].pieces, slot.where, slot.bytes);
    filled.push_back(Filled{slot.id, 0});
    written.push_back(found->second);
  }
  if (Status status = abandon(unused); !status) return status;
  if (Status status = commit(filled); !status) {
    // The ring is full: give the slots up rather than leave them open until they are too old.
    std::vector<SlotId> lost;
    for (const Filled& item : filled) lost.push_back(item.slot);
    static_cast<void>(abandon(lost).ok());
    return status;
  }
  for (const std::size_t i : written) ok[i] = true;
  return {};
}

}  // namespace statecache
