#include "tiers/host/copier.hpp"

#include "base/copy.hpp"
#include "base/units.hpp"

#include <pthread.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

namespace statecached {
namespace {

/// Of work that is queued behind each other, so many bytes are done before the owner is woken: at
/// memory speed a fifth of a millisecond.
constexpr std::uint64_t kRingBytes = 4 * kMiB;

Checksum to_checksum(XXH128_hash_t hash) noexcept {
  return {.low = hash.low64, .high = hash.high64};
}

struct FreeState {
  void operator()(XXH3_state_t* state) const noexcept { XXH3_freeState(state); }
};

Checksum checksum_runs(const Memories& memories, const CopyOp& op) {
  std::uint64_t left = op.payload_bytes;
  if (!op.source.empty() && left <= op.source.front().bytes) {
    return checksum_of(bytes_at(memories, op.source.front().at, left), op.seed);
  }
  const std::unique_ptr<XXH3_state_t, FreeState> state(XXH3_createState());
  SC_ASSERT(state != nullptr);
  XXH3_128bits_reset_withSeed(state.get(), op.seed);
  for (const MemoryRun& run : op.source) {
    const std::uint64_t bytes = std::min(left, run.bytes);
    XXH3_128bits_update(state.get(), bytes_at(memories, run.at, bytes).data(), bytes);
    left -= bytes;
  }
  SC_ASSERT(left == 0);
  return to_checksum(XXH3_128bits_digest(state.get()));
}

void copy_runs(const Memories& memories, const CopyOp& op) {
  auto to = op.destination.begin();
  std::uint64_t filled = 0;  // of *to
  for (const MemoryRun& run : op.source) {
    std::uint64_t read = 0;
    while (read < run.bytes) {
      while (to != op.destination.end() && filled == to->bytes) {
        ++to;
        filled = 0;
      }
      SC_ASSERT(to != op.destination.end());
      const std::uint64_t bytes = std::min(run.bytes - read, to->bytes - filled);
      const MemoryRef source{.arena = run.at.arena, .offset = run.at.offset + read};
      const MemoryRef target{.arena = to->at.arena, .offset = to->at.offset + filled};
      copy_bytes(bytes_at(memories, target, bytes).data(),
                 bytes_at(memories, source, bytes).data(),
                 bytes);
      read += bytes;
      filled += bytes;
    }
  }
}

std::uint64_t total(const std::vector<MemoryRun>& runs) noexcept {
  std::uint64_t bytes = 0;
  for (const MemoryRun& run : runs)
    bytes += run.bytes;
  return bytes;
}

void assert_well_formed(const CopyOp& op) {
  if (op.kind == CopyKind::copy) {
    SC_ASSERT(total(op.source) == total(op.destination));
  } else if (op.kind == CopyKind::stage) {
    SC_ASSERT(op.payload_bytes <= total(op.source) && op.payload_bytes <= total(op.destination));
  } else {
    SC_ASSERT(op.payload_bytes <= total(op.source));
  }
}

}  // namespace

Checksum checksum_of(std::span<const std::byte> bytes, std::uint64_t seed) {
  return to_checksum(XXH3_128bits_withSeed(bytes.data(), bytes.size(), seed));
}

void copy_bytes(std::byte* to, const std::byte* from, std::size_t bytes) noexcept {
  if (bytes >= kStreamFrom) {
    copy_streaming(to, from, bytes);
  } else if (bytes > 0) {
    std::memcpy(to, from, bytes);
  }
}

CopyThread::CopyThread(Memories memories, Waker waker, CopyThreadOptions options)
    : memories_(std::move(memories)),
      waker_(std::move(waker)),
      depth_(options.depth),
      queued_(options.depth),
      done_(options.depth),
      thread_([this] { run(); }) {
  SC_ASSERT(depth_ > 0);
  (void)::pthread_setname_np(thread_.native_handle(), "sc-copier");
}

CopyThread::~CopyThread() {
  stopping_.store(true, std::memory_order_release);
  posted_.fetch_add(1, std::memory_order_release);
  posted_.notify_one();
  thread_.join();
}

bool CopyThread::submit(CopyOp& op) {
  if (outstanding_ == depth_) return false;
  assert_well_formed(op);
  const bool pushed = queued_.push(std::move(op));
  SC_ASSERT(pushed);
  ++outstanding_;
  posted_.fetch_add(1, std::memory_order_release);
  posted_.notify_one();
  return true;
}

std::size_t CopyThread::poll(std::vector<CopyDone>& out) {
  std::size_t count = 0;
  while (auto done = done_.pop()) {
    out.push_back(*done);
    ++count;
  }
  outstanding_ -= count;
  return count;
}

void CopyThread::run() {
  while (true) {
    // Read before the queue is looked at: a submission after that look changes it, and wait()
    // returns.
    const std::uint32_t seen = posted_.load(std::memory_order_acquire);
    std::uint64_t unrung = 0;  // bytes done since the waker was called: waking costs a lot of CPU
    while (!stopping_.load(std::memory_order_acquire)) {
      const auto op = queued_.pop();
      if (!op) break;
      const bool pushed = done_.push(serve(*op));
      SC_ASSERT(pushed);
      unrung += std::max<std::uint64_t>(op->payload_bytes, 1);
      if (!queued_.empty() && unrung < kRingBytes) continue;
      unrung = 0;
      if (waker_) waker_();
    }
    if (stopping_.load(std::memory_order_acquire)) return;
    posted_.wait(seen, std::memory_order_acquire);
  }
}

Checksum CopyThread::stage(const CopyOp& op) noexcept {
  SC_ASSERT(op.foreign != nullptr);
  fused_.start(op.seed, op.payload_bytes);
  auto from = op.source.begin();
  auto to = op.destination.begin();
  std::uint64_t read = 0;    // of *from
  std::uint64_t filled = 0;  // of *to
  for (std::uint64_t left = op.payload_bytes; left > 0;) {
    const std::uint64_t bytes = std::min({left, from->bytes - read, to->bytes - filled});
    const std::uint64_t at = from->at.offset + read;
    SC_ASSERT(at <= op.foreign->size() && bytes <= op.foreign->size() - at);
    const MemoryRef target{.arena = to->at.arena, .offset = to->at.offset + filled};
    fused_.add(bytes_at(memories_, target, bytes).data(), op.foreign->data() + at, bytes);
    left -= bytes;
    read += bytes;
    filled += bytes;
    if (read == from->bytes) {
      ++from;
      read = 0;
    }
    if (filled == to->bytes) {
      ++to;
      filled = 0;
    }
  }
  const Hash128 hash = fused_.finish();
  return {.low = hash.low, .high = hash.high};
}

CopyDone CopyThread::serve(const CopyOp& op) {
  CopyDone done{.tag = op.tag, .ok = true, .checksum = {}};
  if (op.kind == CopyKind::stage) {
    done.checksum = stage(op);
    return done;
  }
  if (op.kind == CopyKind::copy) {
    copy_runs(memories_, op);
    return done;
  }
  done.checksum = checksum_runs(memories_, op);
  if (op.kind == CopyKind::verify) done.ok = done.checksum == op.expected;
  return done;
}

Checksum InstantCopies::checksum(std::uint64_t seed, std::uint64_t payload_bytes) noexcept {
  const std::uint64_t low = mix64(seed ^ mix64(payload_bytes));
  return {.low = low, .high = mix64(low ^ seed)};
}

bool InstantCopies::submit(CopyOp& op) {
  if (done_.size() == options_.depth) return false;
  assert_well_formed(op);
  CopyDone done{.tag = op.tag, .ok = true, .checksum = {}};
  if (op.kind != CopyKind::copy) done.checksum = checksum(op.seed, op.payload_bytes);
  if (op.kind == CopyKind::verify) done.ok = done.checksum == op.expected;
  if (options_.failure_chance > 0 && prng_.chance(options_.failure_chance)) done.ok = false;
  done_.push_back(done);
  op = CopyOp{};
  return true;
}

std::size_t InstantCopies::poll(std::vector<CopyDone>& out) {
  const std::size_t count = done_.size();
  out.insert(out.end(), done_.begin(), done_.end());
  done_.clear();
  return count;
}

}  // namespace statecached
