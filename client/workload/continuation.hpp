#pragma once
// Tokens of a trace that gives only block ids (see trace.hpp).
//
// A request has n = input_length / 512 full blocks and a tail. Let d be its number of leading full
// blocks that were seen before. If an earlier request r, not continued yet, has exactly those d
// full blocks and r.input + r.output is less than this input (of several: the largest sum, then the
// earliest), this request continues r: its tokens from 512 d on begin with r's tail and r's output.
// Everything else is a pseudo-random function of the block's id, or, for outputs, of the request's
// index.
//
// Memory: the tail of every request not continued yet, and of each block that begins with another
// request's tokens only those.

#include "base/ids.hpp"

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace statecached {

inline constexpr std::uint32_t kTraceBlock = 512;

class ContinuationTokens {
 public:
  struct Continued {
    bool any = false;
    std::uint64_t index = 0;   ///< of r
    std::uint32_t tokens = 0;  ///< r.input + r.output
  };

  /// Fills `input` (input_length tokens). Requests must come in the order of the trace; there is
  /// one id for each started block.
  Continued expand(std::uint64_t index,
                   std::uint32_t input_length,
                   std::uint32_t output_length,
                   std::span<const std::uint64_t> ids,
                   std::vector<Token>& input);

  /// The output of a request: a function of its index.
  static void output(std::uint64_t index, std::uint32_t length, std::vector<Token>& out);

 private:
  struct Open {  ///< a request that nothing continues yet
    std::uint64_t index = 0;
    std::uint64_t sum = 0;
    std::uint32_t output_length = 0;
    std::vector<Token> tail;
  };

  /// The open request that this one continues, taken out of the list; index UINT64_MAX: none.
  [[nodiscard]] Open take_predecessor(std::uint64_t key, std::uint32_t input_length);
  static void fill_block(std::uint64_t id, std::size_t from, std::span<Token> block);

  /// Blocks seen, and the tokens that such a block begins with where they came from another
  /// request.
  std::unordered_map<std::uint64_t, std::vector<Token>> blocks_;
  /// By the last full block's id plus one; 0: requests without a full block.
  std::unordered_map<std::uint64_t, std::vector<Open>> open_;
};

}  // namespace statecached
