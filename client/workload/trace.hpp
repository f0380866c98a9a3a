#pragma once
// Requests of a trace, as tokens, one after another. Three sources, told apart by what they are:
//
//  - lines with `hash_ids` (the Mooncake form): one id for each 512-token block of the input. Equal
//    ids are equal content; the content of a block is a function of its id, fixed when the id first
//    appears. A request that is the next turn of an earlier one (see continuation.hpp) takes that
//    one's tail and output over, so that prefixes reach past the last full block, as they do in the
//    conversation the trace was taken from.
//  - lines with `input_tokens` and `output_tokens`: the tokens themselves.
//  - a folder: its text files become multi-turn conversations (documents.hpp).
//
// Files may be gzip or plain. Nothing is kept but what a later request may still need.
// A reader belongs to one thread.

#include "base/ids.hpp"
#include "base/result.hpp"

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace statecached {

inline constexpr std::uint64_t kNoRequest = std::numeric_limits<std::uint64_t>::max();

struct TraceRequest {
  std::uint64_t index = 0;  ///< position in the trace, from 0
  double timestamp_ms = 0;  ///< since the start of the trace
  /// tokens of the earlier request, its output included, whose next turn this is
  std::uint32_t continues = 0;
  /// the request that must be over before this one is asked: its turn before
  std::uint64_t after = kNoRequest;
  std::vector<Token> input;
  std::vector<Token> output;
  friend bool operator==(const TraceRequest&, const TraceRequest&) = default;
};

/// Where the requests come from; implemented by each form.
class TraceSource {
 public:
  TraceSource() = default;
  TraceSource(const TraceSource&) = delete;
  TraceSource& operator=(const TraceSource&) = delete;
  virtual ~TraceSource() = default;
  /// False: the end. Errors: corrupt (with the line's number), io.
  [[nodiscard]] virtual Result<bool> next(TraceRequest& out) = 0;
};

class TraceReader {
 public:
  /// `limit` requests at most; 0: all. Errors: not_found, corrupt (unknown form).
  [[nodiscard]] static Result<std::unique_ptr<TraceReader>> open(const std::string& path,
                                                                 std::uint64_t limit);

  /// False: the end, the limit, or an error (see error()). Reuses the vectors of `out`.
  [[nodiscard]] bool next(TraceRequest& out);

  /// Set when next() stopped because the trace is damaged.
  [[nodiscard]] const Error* error() const noexcept { return failed_ ? &error_ : nullptr; }

  /// Requests the trace holds (counted when it was opened), at most `limit`: for a progress bar.
  [[nodiscard]] std::uint64_t requests() const noexcept { return requests_; }

 private:
  explicit TraceReader(std::unique_ptr<TraceSource> source) : source_(std::move(source)) {}

  std::unique_ptr<TraceSource> source_;
  std::uint64_t requests_ = 0;
  std::uint64_t given_ = 0;
  bool failed_ = false;
  Error error_;
};

}  // namespace statecached
