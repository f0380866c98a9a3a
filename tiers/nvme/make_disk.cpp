#include "tiers/nvme/make_disk.hpp"

#include "base/log.hpp"
#include "tiers/nvme/thread_disk.hpp"
#include "tiers/nvme/uring_disk.hpp"

#include <utility>

namespace statecached {
namespace {

Result<> check_options(const DiskOptions& options) {
  const SchedulerLimits& limits = options.limits;
  if (options.queue_ops == 0 || options.threads == 0 || limits.read_bytes == 0 ||
      limits.write_bytes == 0 || limits.transfers == 0 || limits.transfers > 4096 ||
      limits.transfer_runs == 0 || limits.transfer_runs > 1024 || limits.transfer_bytes < kPage ||
      limits.transfer_bytes % kPage != 0 || limits.transfer_bytes > kGiB) {
    return fail(Errc::invalid_argument, "the limits of the disk engine are out of range");
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Disk>> make_disk(DrivePath path,
                                        const Memories& memories,
                                        const DiskOptions& options,
                                        Waker waker) {
  SC_TRY(check_options(options));
  if (options.engine != DiskEngine::threads) {
    auto uring = UringDisk::create(std::move(path), memories, options, waker);
    if (uring) return std::unique_ptr<Disk>(std::move(*uring));
    if (options.engine == DiskEngine::io_uring) {
      return tl::unexpected<Error>(std::move(uring.error()));
    }
    log::warn("{}; {} is served by threads instead", uring.error().message(), path.directory);
  }
  return std::unique_ptr<Disk>(
      ThreadDisk::create(std::move(path), memories, options, std::move(waker)));
}

}  // namespace statecached
