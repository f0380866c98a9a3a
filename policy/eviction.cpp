#include "policy/eviction.hpp"

#include "policy/paper.hpp"
#include "policy/victims.hpp"

namespace statecached {

PolicyTraits traits_of(PolicyName name) noexcept {
  switch (name) {
    case PolicyName::marconi: break;
    case PolicyName::lru: return {.whole_nodes = true, .refresh_path = true, .terms = PolicyTraits::Terms::none};
    case PolicyName::marconi_paper:
      return {.whole_nodes = true, .single_child = true, .wants_held = true, .terms = PolicyTraits::Terms::paper};
  }
  return {};
}

std::unique_ptr<EvictionPolicy> make_eviction(const PolicyOptions& options, Tier tier) {
  static_cast<void>(tier);
  if (options.name == PolicyName::marconi_paper) return std::make_unique<PaperScore>(options.alpha.value_or(0));
  return std::make_unique<Victims>(options.name == PolicyName::lru);
}

}  // namespace statecached
