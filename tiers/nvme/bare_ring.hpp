#pragma once
// What a drive gives a program that does nothing but transfer: a loop around io_uring with
// registered file and buffers, a fixed number of requests in flight, no scheduler, no other thread.
// The measure that `statecachectl bench nvme` holds the real engine against.
//
// One thread, the one that opens it.

#include "base/result.hpp"
#include "tiers/disk.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace statecached {

class BareRing {
 public:
  virtual ~BareRing() = default;
  BareRing(const BareRing&) = delete;
  BareRing& operator=(const BareRing&) = delete;

  /// `fd` stays the caller's, as does `buffer`; `depth` requests are in flight at most. Where
  /// buffers cannot be registered, ordinary ones are used. Errors: io_uring is refused.
  [[nodiscard]] static Result<std::unique_ptr<BareRing>> open(int fd,
                                                              std::span<std::byte> buffer,
                                                              unsigned depth);

  /// Reads or writes `block` bytes at each offset, block i of the buffer for the i-th modulo the
  /// number of blocks that the buffer holds (at least `depth`). A write ends with one fdatasync.
  /// Errors: the first transfer that failed or came up short.
  [[nodiscard]] virtual Result<> run(DiskKind kind,
                                     std::span<const std::uint64_t> offsets,
                                     std::uint64_t block) = 0;

 protected:
  BareRing() = default;
};

}  // namespace statecached
