#include "client/workload/continuation.hpp"

#include "base/prng.hpp"
#include "base/result.hpp"

#include <algorithm>
#include <limits>

namespace statecached {
namespace {

constexpr std::uint64_t kNone = std::numeric_limits<std::uint64_t>::max();
constexpr Token kVocabulary = 65536;

/// Tokens [0, kVocabulary) from a counter: any position can be made without those before it.
Token pseudo_random(std::uint64_t seed, std::uint64_t at) noexcept {
  return static_cast<Token>(mix64(seed + at) % kVocabulary);
}

}  // namespace

void ContinuationTokens::fill_block(std::uint64_t id, std::size_t from, std::span<Token> block) {
  const std::uint64_t seed = mix64(id ^ 0x626c6f636bULL);
  for (std::size_t i = from; i < block.size(); ++i)
    block[i] = pseudo_random(seed, i);
  // Siblings must part at their first token, so that it names the id; the numbers lie above the
  // vocabulary.
  if (from == 0 && !block.empty()) block[0] = kVocabulary + static_cast<Token>(id);
}

void ContinuationTokens::output(std::uint64_t index,
                                std::uint32_t length,
                                std::vector<Token>& out) {
  const std::uint64_t seed = mix64(index ^ 0x6f7574707574ULL);
  out.resize(length);
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = pseudo_random(seed, i);
}

ContinuationTokens::Open ContinuationTokens::take_predecessor(std::uint64_t key,
                                                              std::uint32_t input_length) {
  Open none;
  none.index = kNone;
  const auto found = open_.find(key);
  if (found == open_.end()) return none;
  auto& candidates = found->second;
  auto best = candidates.end();
  for (auto it = candidates.begin(); it != candidates.end(); ++it) {
    if (it->sum >= input_length) continue;
    // in order, so the earliest of equals
    if (best == candidates.end() || it->sum > best->sum) best = it;
  }
  if (best == candidates.end()) return none;
  Open taken = std::move(*best);
  candidates.erase(best);
  return taken;
}

ContinuationTokens::Continued ContinuationTokens::expand(std::uint64_t index,
                                                         std::uint32_t input_length,
                                                         std::uint32_t output_length,
                                                         std::span<const std::uint64_t> ids,
                                                         std::vector<Token>& input) {
  SC_ASSERT(ids.size() == (input_length + std::size_t{kTraceBlock} - 1) / kTraceBlock);
  const std::size_t full = input_length / kTraceBlock;
  std::size_t seen = 0;
  while (seen < full && blocks_.contains(ids[seen]))
    ++seen;

  input.resize(input_length);
  const std::size_t seen_tokens = seen * kTraceBlock;
  Open before = take_predecessor(seen == 0 ? 0 : ids[seen - 1] + 1, input_length);
  std::size_t carried_end = seen_tokens;
  if (before.index != kNone) {
    std::vector<Token> answer;
    output(before.index, before.output_length, answer);
    auto at = std::copy(before.tail.begin(),
                        before.tail.end(),
                        input.begin() + static_cast<std::ptrdiff_t>(seen_tokens));
    at = std::copy(answer.begin(), answer.end(), at);
    carried_end = static_cast<std::size_t>(at - input.begin());
  }

  for (std::size_t k = 0; k < ids.size(); ++k) {
    const std::size_t first = k * kTraceBlock;
    const std::size_t size = std::min<std::size_t>(kTraceBlock, input_length - first);
    const std::span<Token> block(input.data() + first, size);
    std::size_t carried = 0;
    if (k < seen) {
      const std::vector<Token>& start = blocks_.at(ids[k]);
      std::copy(start.begin(), start.end(), block.begin());
      carried = start.size();
    } else if (carried_end > first) {
      carried = std::min(carried_end - first, size);
    }
    fill_block(ids[k], carried, block);
    if (k >= seen && k < full) {
      blocks_.try_emplace(
          ids[k], block.begin(), block.begin() + static_cast<std::ptrdiff_t>(carried));
    }
  }

  Open open;
  open.index = index;
  open.sum = std::uint64_t{input_length} + output_length;
  open.output_length = output_length;
  open.tail.assign(input.begin() + static_cast<std::ptrdiff_t>(full * kTraceBlock), input.end());
  open_[full == 0 ? 0 : ids[full - 1] + 1].push_back(std::move(open));
  if (before.index == kNone) return {};
  return {true, before.index, static_cast<std::uint32_t>(before.sum)};
}

}  // namespace statecached
