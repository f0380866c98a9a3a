#pragma once
// Copy engines of the host: a thread that moves and hashes bytes, and the simulator's twin that
// does neither; and the checksum itself, for everybody who has to compute the same.

#include "base/prng.hpp"
#include "base/queue.hpp"
#include "kernels/fused_copy.hpp"
#include "tiers/copy_engine.hpp"
#include "tiers/memory.hpp"
#include "tiers/waker.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

namespace statecached {

/// XXH3-128 of the bytes, seeded as tiers/copy_engine.hpp says.
[[nodiscard]] Checksum checksum_of(std::span<const std::byte> bytes, std::uint64_t seed);

/// Copies like memcpy; from 256 KiB with stores that leave the cache to the engines, where the CPU
/// has them. The ranges must not overlap.
void copy_bytes(std::byte* to, const std::byte* from, std::size_t bytes) noexcept;

struct CopyThreadOptions {
  std::size_t depth = 256;  ///< operations accepted and not yet polled
};

/// One thread that serves operations in order. submit() and poll() belong to one thread; the waker
/// is called from the copier's. The destructor lets the operation at hand end and drops the rest;
/// bytes of the memories must outlive it.
class CopyThread final : public CopyEngine {
 public:
  CopyThread(Memories memories, Waker waker, CopyThreadOptions options = {});
  ~CopyThread() override;

  [[nodiscard]] bool submit(CopyOp& op) override;
  std::size_t poll(std::vector<CopyDone>& out) override;

 private:
  void run();
  [[nodiscard]] CopyDone serve(const CopyOp& op);
  [[nodiscard]] Checksum stage(const CopyOp& op) noexcept;

  const Memories memories_;
  const Waker waker_;
  const std::size_t depth_;
  FusedCopy fused_;  // of the thread
  // Of the submitter: accepted and not polled. It never exceeds what done_ holds, so that the
  // thread always has room for a completion and cannot lose one or wait for the poller.
  std::size_t outstanding_ = 0;
  SpscQueue<CopyOp> queued_;
  SpscQueue<CopyDone> done_;
  std::atomic<std::uint32_t> posted_{0};  // counts submissions; the idle thread sleeps on it
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

struct InstantCopiesOptions {
  std::uint64_t seed = 1;
  double failure_chance = 0;  ///< of an operation to come back not ok
  std::size_t depth = 4096;   ///< operations accepted and not yet polled
};

/// Moves nothing and takes no time: each operation is complete at the next poll. A checksum is a
/// function of seed and payload size alone, so what was stored verifies and what was misnamed does
/// not. One thread; the same options give the same run.
class InstantCopies final : public CopyEngine {
 public:
  explicit InstantCopies(InstantCopiesOptions options = {})
      : options_(options),
        prng_(options.seed) {}

  [[nodiscard]] bool submit(CopyOp& op) override;
  std::size_t poll(std::vector<CopyDone>& out) override;

  void set_failure_chance(double chance) noexcept { options_.failure_chance = chance; }

  [[nodiscard]] static Checksum checksum(std::uint64_t seed, std::uint64_t payload_bytes) noexcept;

 private:
  InstantCopiesOptions options_;
  Prng prng_;
  std::vector<CopyDone> done_;
};

}  // namespace statecached
