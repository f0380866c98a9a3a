#pragma once
// How many bytes of one kind (reads, or writes) a drive should have in flight. Pure: no clock, no
// I/O.
//
// Up to the knee of a drive's throughput curve more bytes in flight bring more throughput; beyond
// it they only lengthen the wait of the next demand read. The knee differs by a factor of ten
// between drives, so it is looked for while the drive works, and only in windows in which the limit
// was what held transfers back and nothing of the other kind was in flight. A trial is six pairs of
// windows, one at the limit and one at twice or half of it; pairs, since drives and machines have
// moods:
//   up:    kept when in four pairs it moved at least 5 % more bytes a second, then tried again
//   down:  kept when in five pairs it moved at most 3 % fewer, then tried again
// so that noise alone rather leads up. After both have failed, 256 windows (4 GiB) of rest, since
// each trial of less costs throughput. Whatever a trial says, the limit is never more than the
// drive moves in 4 ms at its best of late: a demand read may have to wait for what is under way.

#include "base/time.hpp"
#include "base/units.hpp"

#include <cstddef>
#include <cstdint>

namespace statecached {

class FlightBudget {
 public:
  static constexpr std::uint64_t kLeast = 512 * kKiB;
  static constexpr std::uint64_t kMost = 16 * kMiB;

  /// `fixed`: the limit stays as it is; rates are measured all the same.
  FlightBudget(std::uint64_t limit, bool fixed) noexcept : limit_(limit), fixed_(fixed) {}

  /// What may be in flight now: a transfer starts while fewer bytes are.
  [[nodiscard]] std::uint64_t limit() const noexcept { return trial_ ? candidate_ : limit_; }

  /// Bytes a second under full load, of late; 0 before anything was measured.
  [[nodiscard]] double rate() const noexcept { return rate_; }

  /// A transfer of this kind ended. `held_back`: others wait for room in the limit; `alone`:
  /// nothing of the other kind is in flight.
  void ended(std::uint64_t bytes, bool held_back, bool alone, Instant now) noexcept;

 private:
  enum class Direction : std::uint8_t { up, down };

  void end_window(double rate) noexcept;
  void judge() noexcept;
  void next_trial(Direction direction) noexcept;

  std::uint64_t limit_;
  bool fixed_;
  bool trial_ = false;  ///< this window runs at candidate_
  bool resting_ = false;
  Direction direction_ = Direction::up;
  std::uint64_t candidate_ = 0;
  std::size_t windows_ = 0;  ///< of this trial or rest
  double base_ = 0;          ///< rate of the pair's window at limit_
  std::size_t kept_ = 0;     ///< pairs that speak for the candidate
  bool open_ = false;
  Instant start_{};
  std::uint64_t settling_ = 0;  ///< bytes to let pass before the window begins
  std::uint64_t bytes_ = 0;
  double rate_ = 0;
  double best_ = 0;  ///< the best window's rate, fading
};

}  // namespace statecached
