#pragma once

#include <cstdint>
#include <optional>

namespace statecached {

/// marconi: ours. marconi_paper: the paper's additive score. lru: the paper's baseline. s3fifo,
/// gdsf: known ones to compare with. clairvoyant: knows the rest of the trace (simulations alone).
enum class PolicyName : std::uint8_t { marconi, lru, marconi_paper, s3fifo, gdsf, clairvoyant };
[[nodiscard]] const char* to_string(PolicyName name) noexcept;

class Future;

/// Where checkpoints are wished for. paper: the end of the sequence, and the end of what a request
/// has in common with what is known. marconi: that only where sequences part, also the last grid
/// point before the prompt's end, and all only where worth more than what it displaces.
/// every_tokens: at all multiples of PolicyOptions::every_tokens. future: where a later request of
/// the trace parts from this one.
enum class Admission : std::uint8_t { paper, marconi, every_tokens, future };

/// What happens to a victim of a full tier: `priced`: moved down where that pays, else dropped;
/// always: moved down; never: dropped.
enum class Demotion : std::uint8_t { priced, always, never };

/// behind: written when it must leave the host tier (or soon must); through: written when
/// committed.
enum class NvmeWrite : std::uint8_t { behind, through };

struct PolicyOptions {
  PolicyName name = PolicyName::marconi;
  std::optional<double> alpha;  ///< weight of efficiency in marconi_paper's score; none: tuned
  Admission admission = Admission::marconi;
  std::uint32_t every_tokens = 0;  ///< Admission::every_tokens
  const Future* future = nullptr;  ///< clairvoyant and Admission::future; outlives the cache
  Demotion demotion = Demotion::priced;
  NvmeWrite nvme_write = NvmeWrite::behind;
  double clean_share = 0.25;  ///< of a memory tier that write-behind keeps free or backed below
};

}  // namespace statecached
