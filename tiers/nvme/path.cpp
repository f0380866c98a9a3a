#include "tiers/nvme/path.hpp"

#include "base/log.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string_view>

namespace statecached {
namespace {

constexpr const char* kDataName = "statecached.data";
constexpr const char* kIdentityName = "statecached.identity";
constexpr const char* kIdentityTemporary = "statecached.identity.new";
constexpr std::string_view kIdentityTitle = "statecached drive";
constexpr std::uint64_t kIdentityVersion = 1;

struct Identity {
  Id128 uuid;
  std::uint64_t capacity = 0;
};

Result<Id128> random_id() {
  Id128 id;
  if (::getrandom(&id, sizeof id, 0) != static_cast<ssize_t>(sizeof id)) {
    return fail_errno("cannot get random bytes for a drive's uuid");
  }
  return id;
}

Result<UniqueFd> open_directory(const std::string& directory) {
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno(fmt::format(
        "cannot create the drive directory {} (its parent must exist; is the drive mounted?)",
        directory));
  }
  UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(fmt::format("cannot open the drive directory {}", directory));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      return fail(
          Errc::busy,
          fmt::format("{} is in use by another statecached; stop it or give this one its own "
                      "directory in nvme.paths",
                      directory));
    }
    return fail_errno(fmt::format("cannot lock the drive directory {}", directory));
  }
  return fd;
}

bool parse_number(std::string_view text, std::uint64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size();
}

/// The text after "key " at the head of `rest`, which moves behind its line.
std::optional<std::string_view> take_line(std::string_view& rest, std::string_view key) {
  const std::size_t end = rest.find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  std::string_view line = rest.substr(0, end);
  rest.remove_prefix(end + 1);
  if (!line.starts_with(key)) return std::nullopt;
  line.remove_prefix(key.size());
  return line;
}

Result<Identity> parse_identity(std::string_view text, const std::string& directory) {
  const auto broken = [&] {
    return fail(
        Errc::corrupt,
        fmt::format("{}/{} does not have the form it must have; remove it and {} to start this "
                    "drive empty",
                    directory,
                    kIdentityName,
                    kDataName));
  };
  const auto title = take_line(text, kIdentityTitle);
  const auto version = take_line(text, "version ");
  std::uint64_t number = 0;
  if (!title || !title->empty() || !version || !parse_number(*version, number)) return broken();
  if (number != kIdentityVersion) {
    return fail(
        Errc::version,
        fmt::format("the drive in {} has format {}, this statecached knows {}; use the version "
                    "that wrote it or remove its files",
                    directory,
                    number,
                    kIdentityVersion));
  }
  Identity identity;
  const auto uuid = take_line(text, "uuid ");
  if (!uuid || !parse_hex(*uuid, identity.uuid)) return broken();
  const auto capacity = take_line(text, "capacity ");
  if (!capacity || !parse_number(*capacity, identity.capacity)) return broken();
  if (!text.empty() || identity.capacity == 0 || identity.capacity % kDriveGrain != 0)
    return broken();
  return identity;
}

/// Nothing when there is no such file.
Result<std::optional<Identity>> read_identity(int directory_fd, const std::string& directory) {
  const UniqueFd fd(::openat(directory_fd, kIdentityName, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) {
    if (errno == ENOENT) return std::optional<Identity>{};
    return fail_errno(fmt::format("cannot open {}/{}", directory, kIdentityName));
  }
  std::string text(4096, '\0');
  const ssize_t got = ::pread(fd.get(), text.data(), text.size(), 0);
  if (got < 0) return fail_errno(fmt::format("cannot read {}/{}", directory, kIdentityName));
  text.resize(static_cast<std::size_t>(got));
  SC_ASSIGN(const Identity identity, parse_identity(text, directory));
  return std::optional<Identity>(identity);
}

/// A crash leaves the old file or the new one.
Result<> write_identity(int directory_fd, const std::string& directory, const Identity& identity) {
  const std::string text = fmt::format("{}\nversion {}\nuuid {}\ncapacity {}\n",
                                       kIdentityTitle,
                                       kIdentityVersion,
                                       to_hex(identity.uuid),
                                       identity.capacity);
  const auto failed = [&] {
    return fail_errno(fmt::format("cannot write {}/{}", directory, kIdentityName));
  };
  const UniqueFd fd(::openat(directory_fd,
                             kIdentityTemporary,
                             O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                             0600));
  if (!fd) return failed();
  const ssize_t put = ::pwrite(fd.get(), text.data(), text.size(), 0);
  if (put < 0) return failed();
  if (static_cast<std::size_t>(put) != text.size()) {
    errno = ENOSPC;
    return failed();
  }
  if (::fsync(fd.get()) != 0) return failed();
  if (::renameat(directory_fd, kIdentityTemporary, directory_fd, kIdentityName) != 0)
    return failed();
  if (::fsync(directory_fd) != 0) return failed();
  return {};
}

tl::unexpected<Error> no_space(const std::string& directory,
                               std::uint64_t capacity,
                               std::uint64_t needed,
                               std::uint64_t available,
                               int os) {
  return fail(
      Errc::no_space,
      fmt::format("{} cannot hold nvme.capacity {}: {} more are needed and {} are free; lower "
                  "nvme.capacity or free some space",
                  directory,
                  format_size(capacity),
                  format_size(needed),
                  format_size(available)),
      os);
}

/// Reserves every block of the file now, so that no write can run out of space later.
Result<> preallocate(int fd, const std::string& directory, std::uint64_t capacity) {
  struct stat before {};

  struct statvfs space {};

  if (::fstat(fd, &before) != 0 || ::fstatvfs(fd, &space) != 0) {
    return fail_errno(fmt::format("cannot examine {}/{}", directory, kDataName));
  }
  if (!S_ISREG(before.st_mode)) {
    return fail(Errc::invalid_argument,
                fmt::format("{}/{} is no regular file", directory, kDataName));
  }
  const std::uint64_t held = static_cast<std::uint64_t>(before.st_blocks) * 512;
  const std::uint64_t needed = capacity > held ? capacity - held : 0;
  const std::uint64_t available = std::uint64_t{space.f_bavail} * space.f_frsize;
  if (needed > available) return no_space(directory, capacity, needed, available, ENOSPC);
  int rc = 0;
  do {
    rc = ::fallocate(fd, 0, 0, static_cast<off_t>(capacity));
  } while (rc != 0 && errno == EINTR);
  if (rc == 0) return {};
  const int os = errno;
  // What was reserved before the failure is given back; should that fail, the next start tries
  // again.
  if (::ftruncate(fd, before.st_size) != 0) {
    log::warn("{}/{}: cannot give back the space of a failed preallocation", directory, kDataName);
  }
  if (os == ENOSPC || os == EDQUOT || os == EFBIG) {
    return no_space(directory, capacity, needed, available, os);
  }
  if (os == EOPNOTSUPP || os == ENOSYS) {
    return fail(
        Errc::unsupported,
        fmt::format("the file system of {} cannot preallocate files; use ext4 or XFS", directory),
        os);
  }
  return fail_errno(fmt::format("cannot preallocate {}/{}", directory, kDataName), os);
}

struct FreeDeleter {
  void operator()(void* memory) const noexcept { std::free(memory); }
};

/// A second descriptor with O_DIRECT, tried with a real read; otherwise why not (an errno).
std::optional<UniqueFd> open_direct(int directory_fd, int& os) {
  UniqueFd fd(::openat(directory_fd, kDataName, O_RDWR | O_DIRECT | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) {
    os = errno;
    return std::nullopt;
  }
  const std::unique_ptr<void, FreeDeleter> page(std::aligned_alloc(kPage, kPage));
  SC_ASSERT(page != nullptr);
  if (::pread(fd.get(), page.get(), kPage, 0) != static_cast<ssize_t>(kPage)) {
    os = errno;
    return std::nullopt;
  }
  return fd;
}

Result<> choose_direct(DrivePath& path, DirectIo wanted) {
  if (wanted == DirectIo::off) return {};
  int os = 0;
  std::optional<UniqueFd> direct = open_direct(path.lock.get(), os);
  if (direct) {
    path.fd = std::move(*direct);
    path.direct = true;
    return {};
  }
  if (wanted == DirectIo::on) {
    return fail(
        Errc::unsupported,
        fmt::format("the file system of {} refuses O_DIRECT; use another or set direct I/O to auto",
                    path.directory),
        os);
  }
  log::warn("the file system of {} refuses O_DIRECT: reads and writes go through the page cache",
            path.directory);
  return {};
}

Result<> check_capacity(std::uint64_t capacity) {
  if (capacity == 0 || capacity % kDriveGrain != 0 || capacity > (std::uint64_t{1} << 62U)) {
    return fail(Errc::invalid_argument,
                fmt::format("nvme.capacity {} must be a positive multiple of {}",
                            format_size(capacity),
                            format_size(kDriveGrain)));
  }
  return {};
}

/// The capacity to open with, given what the drive had.
Result<std::uint64_t> decide_capacity(const std::string& directory,
                                      std::uint64_t had,
                                      std::uint64_t wanted,
                                      Shrink shrink) {
  if (wanted >= had || shrink == Shrink::truncate) return wanted;
  if (shrink == Shrink::keep) return had;
  return fail(
      Errc::invalid_argument,
      fmt::format("the drive in {} has {} and nvme.capacity is now {}: shrinking drops what lies "
                  "beyond; restore the capacity or ask for the shrink",
                  directory,
                  format_size(had),
                  format_size(wanted)));
}

}  // namespace

Result<DrivePath> open_path(const std::string& directory,
                            std::uint64_t capacity,
                            const PathOptions& options) {
  SC_TRY(check_capacity(capacity));
  DrivePath path;
  path.directory = directory;
  SC_ASSIGN(path.lock, open_directory(directory));
  SC_ASSIGN(std::optional<Identity> identity, read_identity(path.lock.get(), directory));
  std::uint64_t target = capacity;
  if (identity) {
    SC_ASSIGN(target, decide_capacity(directory, identity->capacity, capacity, options.shrink));
  }

  path.fd.reset(::openat(path.lock.get(), kDataName, O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (!path.fd && errno == ENOENT) {
    path.fd.reset(::openat(
        path.lock.get(), kDataName, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    path.created = true;
  }
  if (!path.fd) return fail_errno(fmt::format("cannot open {}/{}", directory, kDataName));
  if (Result<> reserved = preallocate(path.fd.get(), directory, target); !reserved) {
    if (path.created) ::unlinkat(path.lock.get(), kDataName, 0);
    return tl::unexpected<Error>(std::move(reserved.error()));
  }
  // Without an identity nothing can have been recorded about the file: it is as good as new.
  if (!identity) path.created = true;
  path.uuid = identity ? identity->uuid : Id128{};
  if (path.created) {
    SC_ASSIGN(path.uuid, random_id());
  }
  path.capacity = identity ? std::max(target, identity->capacity) : target;
  if (path.created || identity->capacity < target) {
    // The reservation must be durable before the identity claims it.
    if (::fsync(path.fd.get()) != 0)
      return fail_errno(fmt::format("cannot sync {}/{}", directory, kDataName));
    SC_TRY(write_identity(path.lock.get(), directory, {path.uuid, target}));
    path.capacity = target;
  }
  if (path.capacity > target) SC_TRY(shrink_path(path, target));
  SC_TRY(choose_direct(path, options.direct));
  return path;
}

Result<> shrink_path(DrivePath& path, std::uint64_t capacity) {
  SC_TRY(check_capacity(capacity));
  if (capacity > path.capacity) {
    return fail(
        Errc::invalid_argument,
        fmt::format("the drive in {} has only {}", path.directory, format_size(path.capacity)));
  }
  // The identity first: after a crash in between the file is longer than it says, never shorter.
  SC_TRY(write_identity(path.lock.get(), path.directory, {path.uuid, capacity}));
  path.capacity = capacity;
  if (::ftruncate(path.fd.get(), static_cast<off_t>(capacity)) != 0) {
    return fail_errno(fmt::format("cannot truncate {}/{}", path.directory, kDataName));
  }
  return {};
}

}  // namespace statecached
