#include "tiers/host/arena.hpp"

#include "base/log.hpp"
#include "base/units.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <limits>
#include <string_view>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1; absent from the C library's headers of Debian 12
#endif

namespace statecached {
namespace {

// One madvise call holds the mapping's lock for as long as it works: in steps.
constexpr std::uint64_t kCollapseStep = 64 * kMiB;

/// A mapping of the file on a 2 MiB boundary: a larger reservation, the file over its aligned part,
/// and the rest given back.
Result<Mapping> map_aligned(int fd, std::uint64_t bytes, std::byte* at) {
  if (at != nullptr) {
    if (::mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
      return fail_errno("cannot map the arena");
    return Mapping(at, bytes);
  }
  const std::uint64_t reserved = bytes + Arena::kHugePage;
  void* const area =
      ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED) return fail_errno("cannot reserve addresses for the arena");
  auto* const begin = static_cast<std::byte*>(area);
  const std::uint64_t head = round_up(reinterpret_cast<std::uintptr_t>(begin), Arena::kHugePage) -
                             reinterpret_cast<std::uintptr_t>(begin);
  if (::mmap(begin + head, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
      MAP_FAILED) {
    const int error = errno;
    ::munmap(begin, reserved);
    return fail_errno("cannot map the arena", error);
  }
  if (head > 0) ::munmap(begin, head);
  const std::uint64_t tail = Arena::kHugePage - head;
  if (tail > 0) ::munmap(begin + head + bytes, tail);
  return Mapping(begin + head, bytes);
}

/// A page of the file must exist in each 2 MiB before the kernel collapses it. Returns 0 or the
/// errno of the first step that was refused.
int collapse(const Mapping& mapping) {
  for (std::uint64_t step = 0; step < mapping.size(); step += kCollapseStep) {
    const std::uint64_t bytes = std::min(kCollapseStep, mapping.size() - step);
    for (std::uint64_t at = 0; at < bytes; at += Arena::kHugePage) {
      *static_cast<volatile std::byte*>(mapping.data() + step + at) = std::byte{0};
    }
    if (::madvise(mapping.data() + step, bytes, MADV_COLLAPSE) != 0) return errno;
  }
  return 0;
}

/// "first-last perms ..." of one mapping in smaps; false for its other lines.
bool parse_range(std::string_view line, std::uint64_t& first, std::uint64_t& last) {
  const char* const end = line.data() + line.size();
  const auto low = std::from_chars(line.data(), end, first, 16);
  if (low.ec != std::errc{} || low.ptr == end || *low.ptr != '-') return false;
  const auto high = std::from_chars(low.ptr + 1, end, last, 16);
  return high.ec == std::errc{} && high.ptr != end && *high.ptr == ' ';
}

/// The number in "Name:   123 kB".
std::uint64_t parse_kib(std::string_view line) {
  const std::size_t digits = line.find_first_of("0123456789");
  std::uint64_t value = 0;
  if (digits != std::string_view::npos) {
    std::from_chars(line.data() + digits, line.data() + line.size(), value);
  }
  return value;
}

}  // namespace

Result<Arena> Arena::create(const ArenaOptions& options) {
  // Half of the signed range leaves room for the rounding and for the reservation.
  constexpr std::uint64_t kBytesMax = std::numeric_limits<std::int64_t>::max() / 2;
  if (options.bytes == 0 || options.bytes > kBytesMax) {
    return fail(Errc::invalid_argument,
                fmt::format("an arena of {} bytes cannot be made", options.bytes));
  }
  const std::uint64_t bytes = round_up(options.bytes, kHugePage);
  UniqueFd fd(::memfd_create(options.name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return fail_errno("memfd_create for the arena");
  if (::fchmod(fd.get(), 0600) != 0) return fail_errno("fchmod of the arena");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return fail_errno(fmt::format("cannot size the arena to {}", format_size(bytes)));
  }
  // Nobody who holds the fd can pull pages from under us (SIGBUS) or lift the seals.
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return fail_errno("cannot seal the arena");
  }
  SC_ASSIGN(Mapping mapping, map_aligned(fd.get(), bytes, options.at));
  // Neither a forked child nor a core file may carry what users said. Advice: a refusal is
  // harmless.
  (void)::madvise(mapping.data(), bytes, MADV_DONTFORK);
  (void)::madvise(mapping.data(), bytes, MADV_DONTDUMP);
  if (options.huge_pages == HugePages::off) {
    (void)::madvise(mapping.data(), bytes, MADV_NOHUGEPAGE);
  } else if (const int error = collapse(mapping); error != 0) {
    if (options.huge_pages == HugePages::on) {
      auto failure = fail_errno("2 MiB pages were demanded and MADV_COLLAPSE was refused", error);
      failure.value().code = Errc::unsupported;
      return failure;
    }
    log::warn(
        "arena of {}: no 2 MiB pages (MADV_COLLAPSE: errno {}); 4 KiB pages are used, first "
        "touch and drive reads are slower",
        format_size(bytes),
        error);
  }
  return Arena(std::move(fd), std::move(mapping));
}

Result<Arena> Arena::adopt(UniqueFd fd, const ArenaOptions& options) {
  const std::uint64_t bytes = round_up(options.bytes, kHugePage);

  struct stat info {};

  if (::fstat(fd.get(), &info) != 0) return fail_errno("fstat of a kept arena");
  if (bytes == 0 || static_cast<std::uint64_t>(info.st_size) != bytes)
    return fail(Errc::corrupt, "the kept arena has another size than the settings say");
  constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals)
    return fail(Errc::corrupt, "the kept arena is not sealed");
  SC_ASSIGN(Mapping mapping, map_aligned(fd.get(), bytes, options.at));
  (void)::madvise(mapping.data(), bytes, MADV_DONTFORK);
  (void)::madvise(mapping.data(), bytes, MADV_DONTDUMP);
  return Arena(std::move(fd), std::move(mapping));
}

double Arena::huge_share() const {
  const std::uint64_t begin = reinterpret_cast<std::uintptr_t>(data());
  const std::uint64_t end = begin + bytes();
  constexpr std::string_view kField = "ShmemPmdMapped:";
  std::ifstream smaps("/proc/self/smaps");
  std::string line;
  bool inside = false;
  std::uint64_t kib = 0;
  while (std::getline(smaps, line)) {
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    if (parse_range(line, first, last)) {
      inside = first >= begin && last <= end;
    } else if (inside && std::string_view(line).substr(0, kField.size()) == kField) {
      kib += parse_kib(std::string_view(line).substr(kField.size()));
    }
  }
  return static_cast<double>(kib * kKiB) / static_cast<double>(bytes());
}

Result<UniqueFd> Arena::read_only_fd() const {
  // dup() would share the open file and its write access; opening it anew does not.
  const std::string path = fmt::format("/proc/self/fd/{}", fd_.get());
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno("cannot open the arena read-only (is /proc mounted?)");
  return fd;
}

Result<UniqueFd> Arena::writable_fd() const {
  UniqueFd fd(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
  if (!fd) return fail_errno("cannot duplicate the arena's descriptor");
  return fd;
}

}  // namespace statecached
