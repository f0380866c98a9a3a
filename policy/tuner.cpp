#include "policy/tuner.hpp"

#include <algorithm>
#include <cmath>

namespace statecached {
namespace {

/// The workload has drifted when the hit rate of a window is this far from the usual: a share of
/// it, and in any case so many points.
constexpr double kDriftShare = 0.25, kDriftPoints = 0.03;

}  // namespace

Tuner::~Tuner() {
  if (outcome_) outcome_->cancelled.store(true, std::memory_order_relaxed);
}

ReplayLog& Tuner::begin() {
  if (window_ == 0) window_ = std::clamp(seen_ * kWindowOfFill, kWindowLeast, kWindowMost);
  phase_ = Phase::logging;
  log_ = std::make_shared<ReplayLog>(capacity_);
  return *log_;
}

void Tuner::request(NodeIx root,
                    const ReplaySpace& space,
                    std::span<const Token> tokens,
                    std::uint32_t prompt,
                    std::uint32_t hit) {
  switch (phase_) {
    case Phase::waiting:
      ++seen_;
      break;
    case Phase::logging:
      log_->add(root, space, tokens, prompt);
      if (log_->requests() >= window_ || log_->bytes() >= kLogBytesMax) try_all();
      break;
    case Phase::trying:
      break;
    case Phase::watching:
      watch(prompt, hit);
      break;
  }
}

void Tuner::try_all() {
  phase_ = Phase::trying;
  outcome_ = std::make_shared<Outcome>();
  auto job = [log = std::shared_ptr<const ReplayLog>(std::move(log_)), outcome = outcome_] {
    std::uint64_t most = 0;
    const int steps = static_cast<int>(std::lround(kAlphaMost / kAlphaStep));
    // of equals, the least
    for (int i = 0; i <= steps && !outcome->cancelled.load(std::memory_order_relaxed); ++i) {
      const std::uint64_t hit = log->replay(i * kAlphaStep);
      if (i > 0 && hit <= most) continue;
      most = hit;
      outcome->alpha = i * kAlphaStep;
    }
    outcome->done.store(true, std::memory_order_release);
  };
  log_.reset();
  if (background_) {
    background_(std::move(job));
  } else {
    job();
  }
}

std::optional<double> Tuner::take() {
  if (phase_ != Phase::trying || !outcome_->done.load(std::memory_order_acquire))
    return std::nullopt;
  phase_ = Phase::watching;
  alpha_ = outcome_->alpha;
  outcome_.reset();
  usual_.reset();
  watched_ = 0;
  watched_input_ = watched_hit_ = 0;
  return alpha_;
}

void Tuner::watch(std::uint32_t prompt, std::uint32_t hit) {
  watched_input_ += prompt;
  watched_hit_ += hit;
  if (++watched_ < window_) return;
  const double rate = watched_input_ > 0 ? watched_hit_ / watched_input_ : 0;
  watched_ = 0;
  watched_input_ = watched_hit_ = 0;
  if (!usual_) {
    usual_ = rate;
  } else if (std::abs(rate - *usual_) > std::max(kDriftPoints, kDriftShare * *usual_)) {
    phase_ = Phase::waiting;
  }
}

}  // namespace statecached
