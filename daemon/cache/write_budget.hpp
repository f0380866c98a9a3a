#pragma once
// How much may still be written to the drives: a token bucket of bytes, filled at so many a day up
// to the burst, emptied by what the process really writes (the kernel's own accounts: data, the
// catalog's log and compaction, everything).
//
// Write-behind asks before it starts a batch and takes the batch's bytes; until the batch is over
// they count as written whether the accounts show them yet or not. An eighth of the burst is kept
// for what the catalog writes later.
//
// Which writes: with f the filled share of the bucket, the share f / (1 - f) x (refill rate /
// offered rate) of the bytes offered may be written; so the bucket rests half full, and all passes
// while it is nearly full. The price, in seconds saved for a byte, follows the quantile of the
// values offered that lets just this share pass (stochastic approximation: up by the share's
// complement when a value is above it, down by the share when it is below). What is not written may
// be dropped from memory unwritten, and is counted as held back.
//
// Threads: observe() and the status figures for any; the rest for one (the conductor).

#include "base/time.hpp"

#include <atomic>
#include <cstdint>
#include <deque>

namespace statecached {

struct WriteBudgetOptions {
  std::uint64_t bytes_per_day = 0;
  std::uint64_t burst = 0;  ///< not 0
};

struct WriteBudgetStatus {
  std::uint64_t bytes_per_day = 0, burst = 0;
  std::int64_t tokens = 0;    ///< may be negative: the catalog writes without asking
  std::uint64_t written = 0;  ///< by the process since its start
  std::uint64_t held_back_objects = 0, held_back_bytes = 0;
  double price = 0;  ///< seconds saved a byte that a write must bring
};

class WriteBudget {
 public:
  /// `tokens` of the burst are there at the start.
  WriteBudget(const WriteBudgetOptions& options, std::uint64_t tokens, Instant now) noexcept;

  /// All that the process has written so far. Never falls.
  void observe(std::uint64_t total) noexcept {
    observed_.store(total);
    looks_.fetch_add(1);
  }

  /// What a batch may have now.
  [[nodiscard]] std::uint64_t room(Instant now) noexcept;
  /// Takes the bytes if there is room for them.
  [[nodiscard]] bool take(std::uint64_t bytes, Instant now) noexcept;
  /// The batch is over: what it wrote is in the accounts, or never will be.
  void settle(std::uint64_t bytes) noexcept;
  /// Whether something that saves so many seconds a byte is worth a write now.
  [[nodiscard]] bool worth(double seconds_per_byte, std::uint64_t bytes, Instant now) noexcept;
  void held_back(std::uint64_t bytes) noexcept;

  [[nodiscard]] WriteBudgetStatus status() const noexcept;

 private:
  void refill(Instant now) noexcept;

  const WriteBudgetOptions options_;
  Instant refilled_;
  double tokens_;
  std::uint64_t seen_ = 0;      ///< of observed_, taken from the tokens
  std::uint64_t reserved_ = 0;  ///< of batches under way, or not yet surely in the accounts

  struct Settled {
    std::uint64_t bytes = 0;
    std::uint64_t look = 0;  ///< the number of looks at the accounts at the time
  };

  std::deque<Settled> settled_;
  double mean_ = 0;     ///< of what was offered, seconds a byte
  double offered_ = 0;  ///< bytes of late, fading
  double window_ = 0;   ///< seconds that they stand for
  Instant offered_at_;
  double price_ = 0;

  std::atomic<std::uint64_t> observed_{0}, looks_{0};
  std::atomic<std::int64_t> shown_tokens_{0};
  std::atomic<std::uint64_t> held_back_objects_{0}, held_back_bytes_{0};
  std::atomic<double> shown_price_{0};
};

}  // namespace statecached
