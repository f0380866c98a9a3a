#pragma once
// A shared memory of fixed size: a sealed memfd, mapped on a 2 MiB boundary, with 2 MiB pages where
// the machine gives them to an unprivileged process. The host tier is one; so are staging areas and
// the emulated device.
//
// Threads: create() touches every 2 MiB and belongs at start-up; afterwards the object is read-only
// and its functions may be called from any thread. Ownership: the fd and the mapping, until
// destruction; fds that were handed out live on. Units: bytes.

#include "base/result.hpp"
#include "base/unique_fd.hpp"

#include <cstddef>
#include <cstdint>
#include <string>

namespace statecached {

enum class HugePages : std::uint8_t {
  automatic,  ///< 2 MiB pages; where that fails 4 KiB, with a warning in the log
  on,         ///< 2 MiB pages or Errc::unsupported
  off,        ///< 4 KiB pages, not asked for anything else
};

struct ArenaOptions {
  std::uint64_t bytes = 0;  ///< rounded up to 2 MiB; not 0
  HugePages huge_pages = HugePages::automatic;
  std::string name = "statecached";  ///< as shown in /proc/PID/maps
  /// a multiple of 2 MiB in a range that the caller reserved; null: anywhere
  std::byte* at = nullptr;
};

class Arena {
 public:
  static constexpr std::uint64_t kHugePage = std::uint64_t{2} << 20U;

  /// Errors: invalid_argument (no bytes), no_space (address space, descriptors), unsupported
  /// (HugePages::on and the kernel refuses), io.
  [[nodiscard]] static Result<Arena> create(const ArenaOptions& options);

  /// One that an earlier daemon made and somebody kept: of exactly these bytes, and sealed as ours
  /// are. Nothing in it is touched. Errors: corrupt (it is no such memory), no_space, io.
  [[nodiscard]] static Result<Arena> adopt(UniqueFd fd, const ArenaOptions& options);

  [[nodiscard]] std::byte* data() const noexcept { return mapping_.data(); }

  [[nodiscard]] std::uint64_t bytes() const noexcept { return mapping_.size(); }

  /// For fixed buffers and fstat; stays owned.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  /// The share of the arena that this process maps with 2 MiB pages now, 0 to 1; 0 when the kernel
  /// does not tell. Reads /proc/self/smaps: for status pages, not for loops.
  [[nodiscard]] double huge_share() const;
  /// For a client that may only read: a new open file that refuses writable mappings.
  [[nodiscard]] Result<UniqueFd> read_only_fd() const;
  /// For a trusted client.
  [[nodiscard]] Result<UniqueFd> writable_fd() const;

 private:
  Arena(UniqueFd fd, Mapping mapping) noexcept : fd_(std::move(fd)), mapping_(std::move(mapping)) {}

  UniqueFd fd_;
  Mapping mapping_;
};

}  // namespace statecached
