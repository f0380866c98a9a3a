#include "tiers/host/table.hpp"

#include "tiers/catalog/row_codec.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstring>

namespace statecached {
namespace {

constexpr std::uint64_t kMagic = 0x3165'6c62'6174'6373ULL;  // "sctable1"
constexpr std::uint32_t kVersion = 1;
constexpr std::uint64_t kUnit = 64;

/// Sizes follow from the arena's: an object takes a page at least.
struct Layout {
  std::uint32_t slots = 0;
  std::uint64_t slots_at = 0;
  std::uint64_t heap_at = 0;
  std::uint64_t heap_bytes = 0;
  std::uint64_t bytes = 0;
};

}  // namespace

struct HostTable::Header {
  std::uint64_t magic = 0;
  std::uint32_t version = 0;
  std::uint32_t reserved = 0;
  std::uint64_t arena_bytes = 0;
  std::uint64_t layout = 0;
};

struct HostTable::ClientEntry {
  std::uint64_t session = 0;
  std::uint64_t started = 0;
  std::int32_t pid = 0;
  std::atomic<std::uint16_t> holds{0};
  std::atomic<std::uint16_t> live{0};
};

struct HostTable::SlotEntry {
  std::uint64_t offset = 0;  ///< in the heap
  std::uint32_t key_bytes = 0;
  std::uint32_t value_bytes = 0;
  std::uint32_t reserved = 0;
  std::atomic<std::uint32_t> live{0};
};

namespace {

Layout layout_for(std::uint64_t arena_bytes, std::size_t client_bytes, std::size_t slot_bytes) {
  Layout out;
  const std::uint64_t objects = std::min<std::uint64_t>(arena_bytes / kPage + 1, 1U << 30U);
  out.slots = static_cast<std::uint32_t>(objects + 4096);  // namespaces and domains beside them
  out.slots_at = kPage + round_up(HostTable::kClients * client_bytes, kPage);
  out.heap_at = out.slots_at + round_up(out.slots * slot_bytes, kPage);
  // A block's row is some 150 bytes and its tokens; this is address space, not memory.
  out.heap_bytes = round_up(std::max<std::uint64_t>(arena_bytes / 4, 16 * kMiB), kPage);
  out.bytes = out.heap_at + out.heap_bytes;
  return out;
}

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

Result<Mapping> map_all(int fd, std::uint64_t bytes) {
  void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return fail_errno("mapping the table of the host arena");
  // It holds prompts as tokens. Advice: a refusal is harmless.
  static_cast<void>(::madvise(at, bytes, MADV_DONTFORK));
  static_cast<void>(::madvise(at, bytes, MADV_DONTDUMP));
  return Mapping(at, bytes);
}

}  // namespace

HostTable::HostTable(UniqueFd fd, Mapping mapping, std::uint64_t arena_bytes)
    : fd_(std::move(fd)),
      mapping_(std::move(mapping)),
      heap_(0) {
  const Layout layout = layout_for(arena_bytes, sizeof(ClientEntry), sizeof(SlotEntry));
  slots_ = layout.slots;
  heap_at_ = layout.heap_at;
  heap_ = Space(std::min(layout.heap_bytes / kUnit * kPage, Space::kCapacityMax));
}

HostTable::Header& HostTable::header() const noexcept {
  return *reinterpret_cast<Header*>(mapping_.data());
}

HostTable::ClientEntry& HostTable::client(std::uint32_t entry) const noexcept {
  return reinterpret_cast<ClientEntry*>(mapping_.data() + kPage)[entry];
}

HostTable::SlotEntry& HostTable::slot(std::uint32_t at) const noexcept {
  const std::uint64_t begin = kPage + round_up(kClients * sizeof(ClientEntry), kPage);
  return reinterpret_cast<SlotEntry*>(mapping_.data() + begin)[at];
}

Result<HostTable> HostTable::create(std::uint64_t arena_bytes, std::uint64_t arenas) {
  const Layout layout = layout_for(arena_bytes, sizeof(ClientEntry), sizeof(SlotEntry));
  UniqueFd fd(::memfd_create("statecached-table", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return fail_errno("memfd_create for the table of the host arena");
  if (::fchmod(fd.get(), 0600) != 0) return fail_errno("fchmod of the table");
  if (::ftruncate(fd.get(), static_cast<off_t>(layout.bytes)) != 0)
    return fail_errno("sizing the table of the host arena");
  if (::fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) return fail_errno("sealing the table");
  SC_ASSIGN(Mapping mapping, map_all(fd.get(), layout.bytes));
  HostTable out(std::move(fd), std::move(mapping), arena_bytes);
  out.header().version = kVersion;
  out.header().arena_bytes = arena_bytes;
  out.header().layout = arenas;
  std::atomic_thread_fence(std::memory_order_release);
  out.header().magic = kMagic;
  return out;
}

Result<HostTable> HostTable::adopt(UniqueFd fd, std::uint64_t arena_bytes, std::uint64_t arenas) {
  const Layout layout = layout_for(arena_bytes, sizeof(ClientEntry), sizeof(SlotEntry));

  struct stat info {};

  if (::fstat(fd.get(), &info) != 0) return fail_errno("fstat of a kept table");
  if (static_cast<std::uint64_t>(info.st_size) != layout.bytes)
    return fail(Errc::corrupt, "the kept table is of an arena of another size");
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals)
    return fail(Errc::corrupt, "the kept table is not sealed");
  SC_ASSIGN(Mapping mapping, map_all(fd.get(), layout.bytes));
  HostTable out(std::move(fd), std::move(mapping), arena_bytes);
  if (out.header().magic != kMagic || out.header().arena_bytes != arena_bytes ||
      out.header().layout != arenas)
    return fail(Errc::corrupt, "the kept table is not whole");
  if (out.header().version != kVersion)
    return fail(Errc::version, "the kept table is of another version");
  out.index();
  return out;
}

void HostTable::index() {
  const std::uint64_t heap_bytes = mapping_.size() - heap_at_;
  for (std::uint32_t s = 0; s < slots_; ++s) {
    SlotEntry& entry = slot(s);
    if (entry.value_bytes == 0 && entry.live.load() == 0 && entry.offset == 0 &&
        entry.key_bytes == 0) {
      // Slots are used from the front, so what was never used is all behind the first such one.
      fresh_slot_ = s;
      break;
    }
    fresh_slot_ = s + 1;
    const std::uint64_t bytes = std::uint64_t{entry.key_bytes} + entry.value_bytes;
    const bool inside = entry.offset % kUnit == 0 && entry.offset <= heap_bytes &&
                        bytes <= heap_bytes - entry.offset && bytes > 0;
    PageRuns runs;
    if (inside) {
      runs.push_back({static_cast<std::uint32_t>(entry.offset / kUnit),
                      static_cast<std::uint32_t>(round_up(bytes, kUnit) / kUnit)});
    }
    if (entry.live.load() != 0 && inside && heap_.allocate_at(runs)) {
      ++count_;
      continue;
    }
    entry.live.store(0);
    free_slots_.push_back(s);
  }
  for (std::uint32_t c = 0; c < kClients; ++c) {
    if (client(c).live.load() != 0) clients_used_ = c + 1;
  }
}

std::uint32_t HostTable::put(const std::string& key, const Result<std::string>& value) {
  if (!value) return kNone;
  const std::uint64_t bytes = key.size() + value->size();
  PageRuns runs;
  if (bytes > 0xffff'ffffU || (free_slots_.empty() && fresh_slot_ == slots_)) return kNone;
  if (!heap_.allocate(round_up(bytes, kUnit) / kUnit * kPage, true, runs)) return kNone;
  std::uint32_t at = fresh_slot_;
  if (free_slots_.empty()) {
    ++fresh_slot_;
  } else {
    at = free_slots_.back();
    free_slots_.pop_back();
  }
  SlotEntry& entry = slot(at);
  entry.offset = runs.front().at * kUnit;
  entry.key_bytes = static_cast<std::uint32_t>(key.size());
  entry.value_bytes = static_cast<std::uint32_t>(value->size());
  std::byte* const to = mapping_.data() + heap_at_ + entry.offset;
  std::memcpy(to, key.data(), key.size());
  std::memcpy(to + key.size(), value->data(), value->size());
  entry.live.store(1, std::memory_order_release);
  ++count_;
  return at;
}

std::uint32_t HostTable::put(const NamespaceRow& row) {
  return put(namespace_key(row.number), encode_row(row));
}

std::uint32_t HostTable::put(const DomainRow& row) {
  return put(domain_key(row.ns, row.number), encode_row(row));
}

std::uint32_t HostTable::put(const ObjectRow& row) {
  return put(object_key(row.ns, row.number), encode_row(row));
}

void HostTable::erase(std::uint32_t at) noexcept {
  if (at == kNone) return;
  SlotEntry& entry = slot(at);
  SC_ASSERT(entry.live.load() != 0);
  // Before anything else of this object changes: its bytes may be another's from now on.
  entry.live.store(0, std::memory_order_release);
  const std::uint64_t bytes = std::uint64_t{entry.key_bytes} + entry.value_bytes;
  heap_.free(PageRun{static_cast<std::uint32_t>(entry.offset / kUnit),
                     static_cast<std::uint32_t>(round_up(bytes, kUnit) / kUnit)});
  free_slots_.push_back(at);
  --count_;
}

std::vector<std::pair<std::uint32_t, CatalogRow>> HostTable::rows() {
  std::vector<std::pair<std::uint32_t, CatalogRow>> out;
  for (std::uint32_t s = 0; s < fresh_slot_; ++s) {
    const SlotEntry& entry = slot(s);
    if (entry.live.load(std::memory_order_acquire) == 0) continue;
    const auto* const at = reinterpret_cast<const char*>(mapping_.data() + heap_at_ + entry.offset);
    auto row = decode_row({at, entry.key_bytes}, {at + entry.key_bytes, entry.value_bytes});
    if (row) {
      out.emplace_back(s, std::move(*row));
    } else {
      erase(s);
    }
  }
  return out;
}

std::uint32_t HostTable::add_client(const KeptClient& from) {
  std::uint32_t at = 0;
  while (at < clients_used_ && client(at).live.load() != 0)
    ++at;
  if (at == kClients) return kNone;
  clients_used_ = std::max(clients_used_, at + 1);
  ClientEntry& entry = client(at);
  entry.session = from.session;
  entry.started = from.started;
  entry.pid = from.pid;
  entry.holds.store(from.holds ? 1 : 0);
  entry.live.store(1, std::memory_order_release);
  return at;
}

void HostTable::set_holds(std::uint32_t entry, bool holds) noexcept {
  if (entry != kNone) client(entry).holds.store(holds ? 1 : 0, std::memory_order_release);
}

void HostTable::remove_client(std::uint32_t entry) noexcept {
  if (entry != kNone) client(entry).live.store(0, std::memory_order_release);
}

std::vector<std::pair<std::uint32_t, KeptClient>> HostTable::clients() const {
  std::vector<std::pair<std::uint32_t, KeptClient>> out;
  for (std::uint32_t c = 0; c < clients_used_; ++c) {
    const ClientEntry& entry = client(c);
    if (entry.live.load(std::memory_order_acquire) == 0) continue;
    out.push_back({c, {entry.session, entry.pid, entry.started, entry.holds.load() != 0}});
  }
  return out;
}

}  // namespace statecached
