#pragma once
// Chooses the alpha of marconi_paper (marconi.md 4, mended): 0 until the tier is full for the first
// time. Then the tree is copied as it is before that first eviction and requests are logged; when
// there are enough of them, every alpha of a grid is tried on the log, in the background, and the
// one that hits most tokens is taken. From then on the hit rate is watched: when it leaves the
// range it had, the workload has drifted, and all is done again.
//
// Memory is bounded by kLogBytesMax: a log that reaches it is closed early. Nothing is waited for:
// an alpha takes effect at the first request after its trial is over. With the inline runner (null)
// all is deterministic.

#include "policy/replay.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <optional>

namespace statecached {

/// Runs a job somewhere, some time; null: at once, here.
using Background = std::function<void(std::function<void()>)>;

class Tuner {
 public:
  Tuner(double capacity, Background background)
      : capacity_(capacity),
        background_(std::move(background)) {}

  Tuner(const Tuner&) = delete;
  Tuner& operator=(const Tuner&) = delete;
  ~Tuner();  ///< a trial under way ends early

  /// True once: before the next eviction, hand over the tree (begin, then snapshot of each root).
  [[nodiscard]] bool wants_snapshot() const noexcept { return phase_ == Phase::waiting; }

  ReplayLog& begin();
  /// A request is over: its sequence, how long its prompt was and how much of it was hit.
  void request(NodeIx root,
               const ReplaySpace& space,
               std::span<const Token> tokens,
               std::uint32_t prompt,
               std::uint32_t hit);
  /// A new alpha, once.
  [[nodiscard]] std::optional<double> take();

  [[nodiscard]] double alpha() const noexcept { return alpha_; }

  static constexpr std::uint64_t kLogBytesMax = 64ULL << 20U;
  static constexpr std::uint64_t kWindowLeast = 50, kWindowMost = 4096;  ///< requests
  /// as many requests as filled the cache, times this
  static constexpr std::uint64_t kWindowOfFill = 4;
  static constexpr double kAlphaMost = 2.0, kAlphaStep = 0.1;

 private:
  enum class Phase : std::uint8_t { waiting, logging, trying, watching };

  struct Outcome {
    std::atomic<bool> done{false};
    std::atomic<bool> cancelled{false};
    double alpha = 0;
  };

  void try_all();
  void watch(std::uint32_t prompt, std::uint32_t hit);

  double capacity_;
  Background background_;
  Phase phase_ = Phase::waiting;
  std::uint64_t seen_ = 0;  ///< requests until the first eviction
  std::uint64_t window_ = 0;
  std::shared_ptr<ReplayLog> log_;
  std::shared_ptr<Outcome> outcome_;
  double alpha_ = 0;
  std::uint64_t watched_ = 0;
  double watched_input_ = 0, watched_hit_ = 0;
  std::optional<double> usual_;  ///< hit rate of the first window after a trial
};

}  // namespace statecached
