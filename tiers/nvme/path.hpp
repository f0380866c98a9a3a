#pragma once
// One drive path: a directory that holds
//   statecached.data      the bytes, preallocated to the configured capacity and never extended by
//   writes statecached.identity  which drive this is (uuid, format version, capacity), replaced
//   atomically
// The directory is locked (flock) for as long as the DrivePath lives, so that two daemons cannot
// share it. Called at start and from tools, by one thread.

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "base/units.hpp"

#include <cstdint>
#include <string>

namespace statecached {

/// Capacity is a multiple of this: the host arena's huge page, and a size every file system aligns
/// to.
inline constexpr std::uint64_t kDriveGrain = 2 * kMiB;

enum class DirectIo : std::uint8_t { automatic, on, off };

/// What to do when the drive was larger than the configured capacity.
enum class Shrink : std::uint8_t {
  refuse,  ///< Errc::invalid_argument
  /// opens with the old capacity; shrink_path() later, once nothing lies beyond the new one
  keep,
  truncate,  ///< drops the bytes beyond, now
};

struct PathOptions {
  DirectIo direct = DirectIo::automatic;
  Shrink shrink = Shrink::refuse;
};

struct DrivePath {
  std::string directory;
  UniqueFd fd;    ///< the data file, read and write, O_DIRECT when `direct`
  UniqueFd lock;  ///< the directory, exclusively locked
  Id128 uuid;     ///< new when the data file was created: rows of another uuid say nothing about it
  std::uint64_t capacity = 0;
  bool direct = false;
  bool created = false;
};

/// Opens the drive in `directory`, creating the directory (not its parents) and what is missing in
/// it. Errors: busy (another process has it), no_space (with what is needed and free), permission,
/// invalid_argument (capacity), unsupported (no preallocation, or no O_DIRECT when it is demanded),
/// version and corrupt (the identity file).
[[nodiscard]] Result<DrivePath> open_path(const std::string& directory,
                                          std::uint64_t capacity,
                                          const PathOptions& options = {});

/// Gives the bytes beyond `capacity` back to the file system.
[[nodiscard]] Result<> shrink_path(DrivePath& path, std::uint64_t capacity);

}  // namespace statecached
