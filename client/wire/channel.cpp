#include "client/wire/channel.hpp"

#include "base/units.hpp"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <climits>
#include <ctime>
#include <new>
#include <optional>

namespace statecached::wire {
namespace {

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);
static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));
static_assert(std::endian::native == std::endian::little,
              "the records are little-endian in memory");

constexpr std::uint64_t kAlign = 16;
constexpr std::uint32_t kSlotsMax = 1U << 20U;
constexpr std::uint64_t kAreaMax = 2ULL << 30U;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

struct Layout {
  std::uint64_t requests_at = 0;
  std::uint64_t completions_at = 0;
  std::uint64_t request_area_at = 0;
  std::uint64_t reply_area_at = 0;
  std::uint64_t total = 0;
};

constexpr Layout layout_of(const ChannelSizes& s) noexcept {
  Layout out;
  out.requests_at = sizeof(ChannelHeader);
  out.completions_at = out.requests_at + round_up(s.request_slots * sizeof(Request), kPage);
  out.request_area_at =
      out.completions_at + round_up(s.completion_slots * sizeof(Completion), kPage);
  out.reply_area_at = out.request_area_at + s.request_area;
  out.total = out.reply_area_at + s.reply_area;
  return out;
}

Result<> check_sizes(const ChannelSizes& s) {
  const auto slots_ok = [](std::uint32_t n) { return std::has_single_bit(n) && n <= kSlotsMax; };
  const auto area_ok = [](std::uint64_t n) { return n != 0 && n % kPage == 0 && n <= kAreaMax; };
  if (!slots_ok(s.request_slots) || !slots_ok(s.completion_slots)) {
    return fail(Errc::invalid_argument, "channel: ring slots must be a power of two, at most 2^20");
  }
  if (!area_ok(s.request_area) || !area_ok(s.reply_area)) {
    return fail(Errc::invalid_argument, "channel: areas must be whole pages, at most 2 GiB");
  }
  return {};
}

ChannelHeader& header_of(const Mapping& map) noexcept {
  return *std::launder(reinterpret_cast<ChannelHeader*>(map.data()));
}

struct Claim {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
};

/// Producer: where `bytes` would go. `claimed` is our count, `freed` what the other side says.
/// Nothing: no room. `broken` is set when the other side freed what was never claimed.
std::optional<Claim> claim(std::uint64_t claimed,
                           std::uint64_t freed,
                           std::uint64_t area,
                           std::uint64_t bytes,
                           bool& broken) noexcept {
  const std::uint64_t used = claimed - freed;
  if (used > 2 * area) {
    broken = true;
    return std::nullopt;
  }
  const std::uint64_t room = round_up(bytes, kAlign);
  if (room > area) return std::nullopt;
  const std::uint64_t position = claimed % area;
  const std::uint64_t start = position + room > area ? claimed + (area - position) : claimed;
  if (used != 0 && start + room - freed > area) return std::nullopt;
  return Claim{start, start + room};
}

/// Consumer: the count up to which a payload at `offset` reaches, if a producer that follows the
/// rules could have put it there. `freed` is our count, `claimed` what the other side says.
std::optional<std::uint64_t> payload_end(std::uint64_t freed,
                                         std::uint64_t claimed,
                                         std::uint64_t area,
                                         std::uint64_t offset,
                                         std::uint64_t bytes) noexcept {
  if (bytes > area || offset > area - bytes || claimed - freed > 2 * area) return std::nullopt;
  const std::uint64_t position = freed % area;
  if (offset != position && offset != 0) return std::nullopt;
  const std::uint64_t start = offset == position ? freed : freed + (area - position);
  const std::uint64_t end = start + round_up(bytes, kAlign);
  if (end - freed > claimed - freed) return std::nullopt;
  return end;
}

std::uint64_t total_bytes(std::span<const std::span<const std::byte>> parts) noexcept {
  std::uint64_t total = 0;
  for (const auto part : parts)
    total += part.size();
  return total;
}

void copy_parts(std::byte* to, std::span<const std::span<const std::byte>> parts) noexcept {
  for (const auto part : parts) {
    if (part.empty()) continue;
    std::memcpy(to, part.data(), part.size());
    to += part.size();
  }
}

/// Not FUTEX_PRIVATE: the word is shared between processes.
void futex_wake(std::atomic<std::uint32_t>& word) noexcept {
  ::syscall(
      SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen, Nanos timeout) noexcept {
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(timeout);
  const timespec limit{.tv_sec = whole.count(), .tv_nsec = (timeout - whole).count()};
  ::syscall(
      SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT, seen, &limit, nullptr, 0);
}

Result<Mapping> map_shared(int fd, std::size_t bytes) {
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return fail_errno("channel: mmap");
  return Mapping(data, bytes);
}

}  // namespace

std::size_t channel_bytes(const ChannelSizes& sizes) noexcept {
  return layout_of(sizes).total;
}

// ---- daemon ------------------------------------------------------------------------------------

Result<DaemonChannel> DaemonChannel::create(const ChannelSizes& sizes, std::uint64_t epoch) {
  SC_TRY(check_sizes(sizes));
  DaemonChannel out;
  out.sizes_ = sizes;
  out.fd_ = UniqueFd(::memfd_create("statecached-channel", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!out.fd_) return fail_errno("channel: memfd_create");
  const std::size_t bytes = channel_bytes(sizes);
  if (::ftruncate(out.fd_.get(), static_cast<off_t>(bytes)) != 0)
    return fail_errno("channel: ftruncate");
  SC_ASSIGN(out.map_, map_shared(out.fd_.get(), bytes));
  if (::fcntl(out.fd_.get(), F_ADD_SEALS, kSeals) != 0) return fail_errno("channel: F_ADD_SEALS");

  auto* header = new (out.map_.data()) ChannelHeader;
  header->version = kProtocolMax;
  header->request_slots = sizes.request_slots;
  header->completion_slots = sizes.completion_slots;
  header->request_area = sizes.request_area;
  header->reply_area = sizes.reply_area;
  header->epoch = epoch;
  std::atomic_ref<std::uint64_t>(header->magic).store(kChannelMagic, std::memory_order_release);
  return out;
}

bool DaemonChannel::take(Request& record, std::vector<std::byte>& payload) {
  return take_part(record, payload, sizes_.request_area) == Taken::whole;
}

DaemonChannel::Taken DaemonChannel::take_part(Request& record,
                                              std::vector<std::byte>& payload,
                                              std::size_t at_most) {
  if (broken_) return Taken::nothing;
  ChannelHeader& header = header_of(map_);
  const Layout at = layout_of(sizes_);
  if (!taking_) {
    // Pairs with the store in ClientChannel::post: the record and its payload are there before the
    // count.
    const std::uint64_t waiting =
        header.request_tail.load(std::memory_order_acquire) - requests_taken_;
    if (waiting == 0) return Taken::nothing;
    if (waiting > sizes_.request_slots) {
      broken_ = true;
      return Taken::nothing;
    }
    std::memcpy(
        &record,
        map_.data() + at.requests_at + (requests_taken_ % sizes_.request_slots) * sizeof(Request),
        sizeof record);
    payload.clear();
    if (record.payload_bytes != 0) {
      const auto end = payload_end(request_area_freed_,
                                   header.request_area_head.load(std::memory_order_acquire),
                                   sizes_.request_area,
                                   record.payload_offset,
                                   record.payload_bytes);
      if (!end) {
        broken_ = true;
        return Taken::nothing;
      }
      payload_end_ = *end;
      payload.reserve(record.payload_bytes);
    }
    taking_ = true;
  }
  if (record.payload_bytes != 0) {
    const std::size_t done = payload.size();
    const std::size_t part = std::min<std::size_t>(record.payload_bytes - done, at_most);
    const std::byte* from = map_.data() + at.request_area_at + record.payload_offset + done;
    payload.insert(payload.end(), from, from + part);
    if (payload.size() < record.payload_bytes) return Taken::part;
    request_area_freed_ = payload_end_;
    header.request_area_tail.store(request_area_freed_, std::memory_order_release);
  }
  taking_ = false;
  header.request_head.store(++requests_taken_, std::memory_order_release);
  return Taken::whole;
}

bool DaemonChannel::post(Completion completion, std::span<const std::span<const std::byte>> parts) {
  if (broken_) return false;
  ChannelHeader& header = header_of(map_);
  const std::uint64_t open =
      completions_posted_ - header.completion_head.load(std::memory_order_acquire);
  if (open >= sizes_.completion_slots) {
    broken_ = open > sizes_.completion_slots;
    return false;
  }
  const Layout at = layout_of(sizes_);
  const std::uint64_t bytes = total_bytes(parts);
  completion.payload_offset = 0;
  completion.payload_bytes = 0;
  if (bytes != 0) {
    const std::uint64_t freed = header.reply_area_tail.load(std::memory_order_acquire);
    const auto place = claim(reply_area_claimed_, freed, sizes_.reply_area, bytes, broken_);
    if (!place) return false;
    completion.payload_offset = place->start % sizes_.reply_area;
    completion.payload_bytes = static_cast<std::uint32_t>(bytes);
    copy_parts(map_.data() + at.reply_area_at + completion.payload_offset, parts);
    reply_area_claimed_ = place->end;
  }
  std::memcpy(map_.data() + at.completions_at +
                  (completions_posted_ % sizes_.completion_slots) * sizeof(Completion),
              &completion,
              sizeof completion);
  // Sequentially consistent together with the load in ring(): either the client sees the count
  // before it sleeps, or we see that it sleeps.
  header.completion_tail.store(++completions_posted_, std::memory_order_seq_cst);
  dirty_ = true;
  return true;
}

void DaemonChannel::ring() noexcept {
  if (!std::exchange(dirty_, false)) return;
  ChannelHeader& header = header_of(map_);
  if (header.client_sleeping.load(std::memory_order_seq_cst) == 0) return;
  header.client_bell.fetch_add(1, std::memory_order_seq_cst);
  futex_wake(header.client_bell);
}

void DaemonChannel::set_sleeping(bool sleeping) noexcept {
  header_of(map_).daemon_sleeping.store(sleeping ? 1 : 0, std::memory_order_seq_cst);
}

bool DaemonChannel::has_requests() const noexcept {
  return !broken_ &&
         header_of(map_).request_tail.load(std::memory_order_seq_cst) != requests_taken_;
}

std::size_t DaemonChannel::reply_max() const noexcept {
  return sizes_.reply_area;
}

// ---- client ------------------------------------------------------------------------------------

Result<ClientChannel> ClientChannel::open(UniqueFd memfd, UniqueFd bell) {
  struct stat status {};

  if (::fstat(memfd.get(), &status) != 0) return fail_errno("channel: fstat");
  const auto real = static_cast<std::uint64_t>(status.st_size);
  if (real < sizeof(ChannelHeader)) return fail(Errc::corrupt, "channel: too small for its header");
  // Without this seal the daemon could take pages away under our feet (SIGBUS).
  const int seals = ::fcntl(memfd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return fail(Errc::corrupt, "channel: the memory is not sealed against shrinking");
  }
  ClientChannel out;
  SC_ASSIGN(out.map_, map_shared(memfd.get(), real));
  ChannelHeader& header = header_of(out.map_);
  if (std::atomic_ref<std::uint64_t>(header.magic).load(std::memory_order_acquire) !=
      kChannelMagic) {
    return fail(Errc::corrupt, "channel: wrong magic");
  }
  if (header.version < kProtocolMin || header.version > kProtocolMax) {
    return fail(Errc::version, "channel: the daemon's ring format is not one this library speaks");
  }
  // Copied once: what is checked here is what is used from now on.
  out.sizes_.request_slots = header.request_slots;
  out.sizes_.completion_slots = header.completion_slots;
  out.sizes_.request_area = header.request_area;
  out.sizes_.reply_area = header.reply_area;
  SC_TRY(check_sizes(out.sizes_));
  if (channel_bytes(out.sizes_) != real) {
    return fail(Errc::corrupt, "channel: its size is not what its header says");
  }
  out.fd_ = std::move(memfd);
  out.bell_ = std::move(bell);
  return out;
}

std::uint64_t ClientChannel::epoch() const noexcept {
  return header_of(map_).epoch;
}

bool ClientChannel::post(Request record, std::span<const std::span<const std::byte>> parts) {
  if (broken_) return false;
  ChannelHeader& header = header_of(map_);
  const std::uint64_t open = requests_posted_ - header.request_head.load(std::memory_order_acquire);
  if (open >= sizes_.request_slots) {
    broken_ = open > sizes_.request_slots;
    return false;
  }
  const Layout at = layout_of(sizes_);
  const std::uint64_t bytes = total_bytes(parts);
  record.payload_offset = 0;
  record.payload_bytes = 0;
  if (bytes != 0) {
    const std::uint64_t freed = header.request_area_tail.load(std::memory_order_acquire);
    const auto place = claim(request_area_claimed_, freed, sizes_.request_area, bytes, broken_);
    if (!place) return false;
    record.payload_offset = place->start % sizes_.request_area;
    record.payload_bytes = static_cast<std::uint32_t>(bytes);
    copy_parts(map_.data() + at.request_area_at + record.payload_offset, parts);
    request_area_claimed_ = place->end;
    header.request_area_head.store(request_area_claimed_, std::memory_order_release);
  }
  std::memcpy(
      map_.data() + at.requests_at + (requests_posted_ % sizes_.request_slots) * sizeof(Request),
      &record,
      sizeof record);
  // As in DaemonChannel::post. Clearing the word here spares the next records of a burst a system
  // call.
  header.request_tail.store(++requests_posted_, std::memory_order_seq_cst);
  if (header.daemon_sleeping.load(std::memory_order_seq_cst) != 0 &&
      header.daemon_sleeping.exchange(0, std::memory_order_seq_cst) != 0) {
    // Fails only when the counter is full, and then it is readable anyway.
    (void)::eventfd_write(bell_.get(), 1);
    rang_ = true;
  }
  return true;
}

bool ClientChannel::take(Completion& completion, std::vector<std::byte>& payload) {
  if (broken_) return false;
  ChannelHeader& header = header_of(map_);
  const std::uint64_t waiting =
      header.completion_tail.load(std::memory_order_acquire) - completions_taken_;
  if (waiting == 0) return false;
  if (waiting > sizes_.completion_slots) {
    broken_ = true;
    return false;
  }
  const Layout at = layout_of(sizes_);
  std::memcpy(&completion,
              map_.data() + at.completions_at +
                  (completions_taken_ % sizes_.completion_slots) * sizeof(Completion),
              sizeof completion);
  payload.clear();
  if (completion.payload_bytes != 0) {
    // The daemon keeps its claims to itself; what it may have claimed is at most two laps (see
    // claim()).
    const auto end = payload_end(reply_area_freed_,
                                 reply_area_freed_ + 2 * sizes_.reply_area,
                                 sizes_.reply_area,
                                 completion.payload_offset,
                                 completion.payload_bytes);
    if (!end) {
      broken_ = true;
      return false;
    }
    const std::byte* from = map_.data() + at.reply_area_at + completion.payload_offset;
    payload.assign(from, from + completion.payload_bytes);
    reply_area_freed_ = *end;
    header.reply_area_tail.store(reply_area_freed_, std::memory_order_release);
  }
  header.completion_head.store(++completions_taken_, std::memory_order_release);
  return true;
}

bool ClientChannel::has_completions() const noexcept {
  const ChannelHeader& header = header_of(map_);
  // Our own count as we published it, since another thread may be inside take().
  return header.completion_tail.load(std::memory_order_seq_cst) !=
         header.completion_head.load(std::memory_order_seq_cst);
}

std::uint32_t ClientChannel::bell() const noexcept {
  return header_of(map_).client_bell.load(std::memory_order_seq_cst);
}

bool ClientChannel::wait(Nanos timeout, std::uint32_t seen) noexcept {
  if (has_completions()) return true;
  if (timeout <= Nanos::zero()) return false;
  ChannelHeader& header = header_of(map_);
  header.client_sleeping.store(1, std::memory_order_seq_cst);
  if (!has_completions()) futex_wait(header.client_bell, seen, timeout);
  header.client_sleeping.store(0, std::memory_order_seq_cst);
  return has_completions();
}

void ClientChannel::poke() noexcept {
  ChannelHeader& header = header_of(map_);
  header.client_bell.fetch_add(1, std::memory_order_seq_cst);
  futex_wake(header.client_bell);
}

std::size_t ClientChannel::payload_max() const noexcept {
  return sizes_.request_area;
}

}  // namespace statecached::wire
