#pragma once
// The seam for work on bytes in memory: moving between memories, checksums, verification. The
// conductor submits; a copier thread (or a GPU's copy engines) does it; the simulator does nothing,
// in no time or in modelled time.

#include "base/time.hpp"
#include "base/unique_fd.hpp"
#include "tiers/memory.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace statecached {

/// XXH3-128 of one shard's payload, seeded with (low 64 bits of the object id) XOR (shard number).
struct Checksum {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  friend bool operator==(const Checksum&, const Checksum&) = default;
};

enum class CopyKind : std::uint8_t {
  checksum,  ///< compute the checksum of source
  verify,    ///< compute and compare with `expected`
  copy,      ///< source runs to destination runs, in order; both the same total
  /// the first payload_bytes of `foreign`, at source, to destination, and their checksum as written
  stage,
};

struct MemoryRun {
  MemoryRef at;
  std::uint64_t bytes = 0;
};

/// Work on one shard of one object. For checksum and verify `payload_bytes` may be less than the
/// runs (padding is not hashed).
struct CopyOp {
  std::uint64_t tag = 0;
  CopyKind kind = CopyKind::checksum;
  std::uint64_t seed = 0;
  std::uint64_t payload_bytes = 0;
  Checksum expected;
  std::vector<MemoryRun> source;
  std::vector<MemoryRun> destination;
  /// of stage: memory of somebody who may write it meanwhile
  std::shared_ptr<const Mapping> foreign = nullptr;
};

struct CopyDone {
  std::uint64_t tag = 0;
  bool ok = true;     ///< false: verify found other bytes, or the device failed
  Checksum checksum;  ///< of checksum, verify and stage
};

/// Threads as for Disk: one submitter and poller.
class CopyEngine {
 public:
  CopyEngine() = default;
  CopyEngine(const CopyEngine&) = delete;
  CopyEngine& operator=(const CopyEngine&) = delete;
  virtual ~CopyEngine() = default;
  [[nodiscard]] virtual bool submit(CopyOp& op) = 0;
  virtual std::size_t poll(std::vector<CopyDone>& out) = 0;
};

}  // namespace statecached
