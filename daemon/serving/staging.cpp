#include "daemon/serving/staging.hpp"

#include "base/units.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

namespace statecached {
namespace {

ExtentList extents_of(const PageRuns& runs) {
  ExtentList out;
  for (const PageRun& run : runs)
    out.push_back(to_extent(run));
  return out;
}

}  // namespace

Result<std::unique_ptr<StagingArea>> StagingArea::create(std::uint64_t bytes) {
  const std::uint64_t size = round_up(bytes, kPage);
  UniqueFd fd(::memfd_create("statecached-staging", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return fail_errno("memfd_create for a staging area");
  if (::fchmod(fd.get(), 0600) != 0) return fail_errno("fchmod of a staging area");
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0)
    return fail_errno("sizing a staging area");
  // Nobody pulls pages from under the copier.
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return fail_errno("sealing a staging area");
  void* const at = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) return fail_errno("mapping a staging area");
  Mapping mapping(at, size);
  static_cast<void>(::madvise(at, size, MADV_DONTFORK));
  static_cast<void>(::madvise(at, size, MADV_DONTDUMP));
  return std::unique_ptr<StagingArea>(new StagingArea(std::move(fd), std::move(mapping)));
}

bool StagingArea::place(SlotGrant& grant, std::uint32_t arena, bool contiguous) {
  PageRuns runs;
  if (!space_.allocate(round_up(grant.payload_bytes, kPage), contiguous, runs)) return false;
  grant.arena = arena;
  grant.runs = extents_of(runs);
  slots_[grant.slot] = std::move(runs);
  return true;
}

StagedBytes StagingArea::bytes_of(SlotId slot) const {
  const auto found = slots_.find(slot);
  if (found == slots_.end()) return {};
  return {mapping_, extents_of(found->second)};
}

void StagingArea::free(SlotId slot) {
  const auto found = slots_.find(slot);
  if (found == slots_.end()) return;
  space_.free(found->second);
  slots_.erase(found);
}

}  // namespace statecached
