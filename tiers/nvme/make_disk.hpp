#pragma once
// The disk of one drive path, with the engine that the settings and the system allow.

#include "tiers/disk.hpp"
#include "tiers/memory.hpp"
#include "tiers/nvme/options.hpp"
#include "tiers/nvme/path.hpp"
#include "tiers/waker.hpp"

#include <memory>

namespace statecached {

/// `automatic` is io_uring, or threads with a warning where io_uring is refused. `io_uring` fails
/// with the reason instead. `memories` must outlive the disk, and be filled: they are registered
/// here. `waker` may be empty; it is called from the engine's threads until the disk is destroyed.
[[nodiscard]] Result<std::unique_ptr<Disk>> make_disk(DrivePath path,
                                                      const Memories& memories,
                                                      const DiskOptions& options,
                                                      Waker waker);

}  // namespace statecached
