#include "policy/eviction.hpp"

#include "policy/baselines.hpp"
#include "policy/clairvoyant.hpp"
#include "policy/paper.hpp"
#include "policy/victims.hpp"

namespace statecached {

const char* to_string(PolicyName name) noexcept {
  switch (name) {
    case PolicyName::marconi:
      return "marconi";
    case PolicyName::lru:
      return "lru";
    case PolicyName::marconi_paper:
      return "marconi-paper";
    case PolicyName::s3fifo:
      return "s3fifo";
    case PolicyName::gdsf:
      return "gdsf";
    case PolicyName::clairvoyant:
      return "clairvoyant";
  }
  return "unknown";
}

PolicyTraits traits_of(PolicyName name) noexcept {
  switch (name) {
    case PolicyName::marconi:
      return {.learns = true};
    case PolicyName::lru:
      return {.whole_nodes = true, .refresh_path = true, .terms = PolicyTraits::Terms::none};
    case PolicyName::marconi_paper:
      return {.whole_nodes = true,
              .single_child = true,
              .wants_held = true,
              .terms = PolicyTraits::Terms::paper};
    case PolicyName::s3fifo:
      return {.whole_nodes = true, .single_child = true, .terms = PolicyTraits::Terms::none};
    case PolicyName::gdsf:
      return {.whole_nodes = true, .single_child = true};
    case PolicyName::clairvoyant:
      return {.whole_nodes = true, .single_child = true, .wants_paths = true};
  }
  return {};
}

std::unique_ptr<EvictionPolicy> make_eviction(const PolicyOptions& options,
                                              Tier tier,
                                              const Reuse* reuse) {
  static_cast<void>(tier);
  if (options.name == PolicyName::marconi_paper)
    return std::make_unique<PaperScore>(options.alpha.value_or(0));
  if (options.name == PolicyName::s3fifo) return std::make_unique<S3Fifo>();
  if (options.name == PolicyName::gdsf) return std::make_unique<GreedyDual>();
  if (options.name == PolicyName::clairvoyant) {
    SC_ASSERT(options.future != nullptr);
    return std::make_unique<Clairvoyant>(*options.future);
  }
  return std::make_unique<Victims>(options.name == PolicyName::lru ? nullptr : reuse);
}

}  // namespace statecached
