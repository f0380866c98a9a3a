#pragma once
// The memfd that a client and the daemon share: two rings and the arrays beside them. Made and
// sealed (SHRINK, GROW, SEAL) by the daemon, one a client.
//
//   offset 0              ChannelHeader (one page)
//   requests_at           Request[request_slots]        produced by the client
//   completions_at        Completion[completion_slots]  produced by the daemon
//   request_area_at       byte ring of request payloads  written by the client, FIFO
//   reply_area_at         byte ring of reply payloads    written by the daemon, FIFO
//
// Heads and tails are free-running 64-bit counts; index = count % slots (a power of two). A payload
// is contiguous and 16-aligned: one that would cross the end of its area starts at the next lap (in
// an empty area the bytes skipped so do not count, so that a payload as large as the area always
// finds room). The daemon frees a request's payload when it takes the record, the client a reply's
// when it takes the completion, both by moving the area's tail to the end of that payload. Neither
// side trusts a number it reads here: each keeps its own counts and only *compares* with the
// other's.
//
// Waking. The consumer sets its `sleeping` word, looks at the ring once more, then sleeps. The
// producer publishes and then reads that word (both sequentially consistent), so a wake-up is never
// lost. The daemon sleeps in epoll on an eventfd that was handed over beside this memfd; the client
// sleeps on the futex word `client_bell`, which the daemon increments before FUTEX_WAKE.

#include "base/time.hpp"
#include "base/unique_fd.hpp"
#include "client/wire/records.hpp"

#include <atomic>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace statecached::wire {

inline constexpr std::uint64_t kChannelMagic = 0x3168'6365'7461'7473ULL;  // "statech1"

struct ChannelSizes {
  std::uint32_t request_slots = 1024;
  std::uint32_t completion_slots = 1024;
  std::uint64_t request_area = 16ULL << 20U;  ///< one prompt of 2 M tokens with its marks fits
  std::uint64_t reply_area = 4ULL << 20U;
};

struct alignas(4096) ChannelHeader {
  std::uint64_t magic = 0;
  std::uint32_t version = 0;
  std::uint32_t request_slots = 0;
  std::uint32_t completion_slots = 0;
  std::uint32_t reserved = 0;
  std::uint64_t request_area = 0;
  std::uint64_t reply_area = 0;
  std::uint64_t epoch = 0;  ///< of the daemon that made it

  alignas(64) std::atomic<std::uint64_t> request_tail;     ///< client: records posted
  std::atomic<std::uint64_t> request_area_head;            ///< client: bytes ever claimed
  alignas(64) std::atomic<std::uint64_t> request_head;     ///< daemon: records taken
  std::atomic<std::uint64_t> request_area_tail;            ///< daemon: bytes ever freed
  alignas(64) std::atomic<std::uint64_t> completion_tail;  ///< daemon: completions posted
  alignas(64) std::atomic<std::uint64_t> completion_head;  ///< client: completions taken
  std::atomic<std::uint64_t> reply_area_tail;              ///< client: bytes ever freed
  alignas(64) std::atomic<std::uint32_t> daemon_sleeping;
  alignas(64) std::atomic<std::uint32_t> client_sleeping;
  std::atomic<std::uint32_t> client_bell;
};

static_assert(sizeof(ChannelHeader) == 4096);

[[nodiscard]] std::size_t channel_bytes(const ChannelSizes& sizes) noexcept;

/// The daemon's end. One thread (the conductor).
class DaemonChannel {
 public:
  /// Creates and seals the memfd, maps it, writes the header; the magic is stored last.
  static Result<DaemonChannel> create(const ChannelSizes& sizes, std::uint64_t epoch);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  /// Copies the next record and its payload out and frees them. False: nothing there. A record
  /// whose payload lies outside what the client may have claimed marks the channel broken().
  [[nodiscard]] bool take(Request& record, std::vector<std::byte>& payload);
  enum class Taken : std::uint8_t { nothing, part, whole };
  /// As take(), but copies at most `at_most` bytes of payload a call. `part`: call again with the
  /// same record and payload before anything else is taken; the record is set, its payload not
  /// whole.
  [[nodiscard]] Taken take_part(Request& record,
                                std::vector<std::byte>& payload,
                                std::size_t at_most);
  /// Posts one completion with its payload parts concatenated. False: no room (the caller keeps it
  /// and stops taking requests from this client until there is; more than reply_max() never finds
  /// any).
  [[nodiscard]] bool post(Completion completion, std::span<const std::span<const std::byte>> parts);
  /// Wakes the client if it sleeps; call once a batch.
  void ring() noexcept;
  void set_sleeping(bool sleeping) noexcept;  ///< seq_cst
  [[nodiscard]] bool has_requests() const noexcept;

  /// The client wrote counts that no client of ours writes; take() and post() do nothing any more.
  [[nodiscard]] bool broken() const noexcept { return broken_; }

  /// Largest payload that post() can ever take.
  [[nodiscard]] std::size_t reply_max() const noexcept;

 private:
  UniqueFd fd_;
  Mapping map_;
  ChannelSizes sizes_;
  std::uint64_t requests_taken_ = 0;
  std::uint64_t request_area_freed_ = 0;
  std::uint64_t payload_end_ = 0;  ///< of the record that is being taken in parts
  bool taking_ = false;
  std::uint64_t completions_posted_ = 0;
  std::uint64_t reply_area_claimed_ = 0;
  bool broken_ = false;
  bool dirty_ = false;
};

/// The client's end. Post and take each need outside locking if used from several threads;
/// has_completions, bell, wait and poke do not.
class ClientChannel {
 public:
  /// Maps what the daemon sent and checks magic, version and sizes against the memfd's real size.
  static Result<ClientChannel> open(UniqueFd memfd, UniqueFd bell);

  [[nodiscard]] std::uint64_t epoch() const noexcept;
  /// Posts one record with its payload parts concatenated and rings the daemon if it sleeps.
  /// False: the ring or its area is full.
  [[nodiscard]] bool post(Request record, std::span<const std::span<const std::byte>> parts);

  /// The daemon slept at a post() since this was asked last. As post(), with outside locking.
  [[nodiscard]] bool take_rang() noexcept { return std::exchange(rang_, false); }

  /// Copies the next completion and its payload out. False: nothing there.
  [[nodiscard]] bool take(Completion& completion, std::vector<std::byte>& payload);
  [[nodiscard]] bool has_completions() const noexcept;

  /// Sleeps until a completion may be there, the timeout passed or poke(): true if one is there.
  /// May return early with false (a ring for what was taken already): callers wait in a loop.
  bool wait(Nanos timeout) noexcept { return wait(timeout, bell()); }

  /// As above, and returns at once if the bell rang since `seen` was read: what another thread took
  /// or poked in between is not slept over.
  bool wait(Nanos timeout, std::uint32_t seen) noexcept;
  [[nodiscard]] std::uint32_t bell() const noexcept;
  /// Wakes whoever is in wait().
  void poke() noexcept;
  /// Largest payload that post() can ever take.
  [[nodiscard]] std::size_t payload_max() const noexcept;

  /// The daemon wrote counts that no daemon of ours writes; post() and take() do nothing any more.
  [[nodiscard]] bool broken() const noexcept { return broken_; }

 private:
  UniqueFd fd_;
  UniqueFd bell_;
  Mapping map_;
  ChannelSizes sizes_;
  std::uint64_t requests_posted_ = 0;
  std::uint64_t request_area_claimed_ = 0;
  std::uint64_t completions_taken_ = 0;
  std::uint64_t reply_area_freed_ = 0;
  bool broken_ = false;
  bool rang_ = false;
};

}  // namespace statecached::wire
