#include "policy/eviction.hpp"

#include "policy/victims.hpp"

namespace statecached {

PolicyTraits traits_of(PolicyName name) noexcept {
  switch (name) {
    case PolicyName::marconi: break;
    case PolicyName::lru: return {.whole_nodes = true, .refresh_path = true, .wants_terms = false};
  }
  return {};
}

std::unique_ptr<EvictionPolicy> make_eviction(const PolicyOptions& options, Tier tier) {
  static_cast<void>(tier);
  return std::make_unique<Victims>(options.name == PolicyName::lru);
}

}  // namespace statecached
