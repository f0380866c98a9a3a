#pragma once
// Who goes first where several tenants share a tier: while one has more than its quota, its least
// valuable segment; else the least valuable of all that may be asked. Within a tenant the policy
// decides as ever.
//
// One tier of one cache; one thread.

#include "policy/eviction.hpp"

#include <functional>
#include <memory>
#include <vector>

namespace statecached {

class TenantEviction final : public EvictionPolicy {
 public:
  using Make = std::function<std::unique_ptr<EvictionPolicy>()>;
  using Owner = std::function<std::uint32_t(NodeIx)>;  ///< below `tenants`
  /// it has more than its quota in this tier
  using Over = std::function<bool(std::uint32_t tenant)>;

  /// by_age: tenants are compared by age alone; else by the keep values that their policies know.
  TenantEviction(std::size_t tenants, bool by_age, const Make& make, Owner owner, Over over)
      : by_age_(by_age),
        owner_(std::move(owner)),
        over_(std::move(over)) {
    for (std::size_t t = 0; t < tenants; ++t)
      parts_.push_back(make());
    scope_.assign(tenants, true);
  }

  /// Only these may be asked from now on; empty: all.
  void scope(const std::vector<bool>& tenants) {
    if (tenants.empty()) {
      scope_.assign(parts_.size(), true);
    } else {
      scope_ = tenants;
    }
  }

  void put(const Candidate& candidate, Instant now) override {
    const std::uint32_t tenant = owner_(candidate.node);
    if (candidate.node >= seats_.size()) seats_.resize(candidate.node + std::size_t{1});
    Seat& seat = seats_[candidate.node];
    if (seat.tenant != tenant) erase(candidate.node);
    seat = {tenant, candidate.last_use};
    parts_[tenant]->put(candidate, now);
  }

  void erase(NodeIx node) override {
    if (node >= seats_.size() || seats_[node].tenant == kNobody) return;
    parts_[seats_[node].tenant]->erase(node);
    seats_[node].tenant = kNobody;
  }

  [[nodiscard]] bool contains(NodeIx node) const noexcept override {
    return node < seats_.size() && seats_[node].tenant != kNobody &&
           parts_[seats_[node].tenant]->contains(node);
  }

  [[nodiscard]] std::uint64_t bytes(Lane lane) const noexcept override {
    std::uint64_t out = 0;
    for (std::size_t t = 0; t < parts_.size(); ++t) {
      if (scope_[t]) out += parts_[t]->bytes(lane);
    }
    return out;
  }

  [[nodiscard]] NodeIx best(Lane lane, Instant now) override {
    NodeIx found = kNil;
    double least = 0;
    bool found_over = false;
    for (std::uint32_t t = 0; t < parts_.size(); ++t) {
      if (!scope_[t]) continue;
      const NodeIx node = parts_[t]->best(lane, now);
      if (node == kNil) continue;
      const bool over = over_(t);
      const double value =
          by_age_ ? -seconds(now - seats_[node].last_use) : parts_[t]->best_value();
      if (found != kNil && (found_over != over ? found_over : value >= least)) continue;
      found = node;
      found_over = over;
      least = value;
    }
    best_value_ = by_age_ ? 0 : least;
    return found;
  }

  [[nodiscard]] double best_value() const noexcept override { return best_value_; }

  void sees(const Index& index) override {
    for (const auto& part : parts_)
      part->sees(index);
  }

  void passed(NodeIx node) override {
    if (node < seats_.size() && seats_[node].tenant != kNobody)
      parts_[seats_[node].tenant]->passed(node);
  }

  void set_alpha(double alpha) override {
    for (const auto& part : parts_)
      part->set_alpha(alpha);
  }

  void tick(std::uint64_t clock) override {
    for (const auto& part : parts_)
      part->tick(clock);
  }

 private:
  static constexpr std::uint32_t kNobody = 0xffffffff;

  struct Seat {
    std::uint32_t tenant = kNobody;
    Instant last_use{};
  };

  bool by_age_;
  double best_value_ = 0;
  Owner owner_;
  Over over_;
  std::vector<std::unique_ptr<EvictionPolicy>> parts_;
  std::vector<Seat> seats_;
  std::vector<bool> scope_;
};

}  // namespace statecached
