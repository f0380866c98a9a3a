#pragma once
// A multi-turn workload out of text that is on the machine: each text file below a folder (.md,
// .txt, .hpp, .cpp, .py, .toml, .cmake) is a conversation's document. Tokens are bytes. A
// conversation begins with a preamble that all share and its document; each turn asks about a
// passage and is answered with another, and its input is the whole history. Conversations
// interleave, and each document comes up in two of them, so that prefixes recur at different
// distances. Deterministic: it depends on the files only.

#include "client/workload/trace.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace statecached {

class DocumentSource final : public TraceSource {
 public:
  /// Errors: not_found when the folder holds no text.
  [[nodiscard]] static Result<std::unique_ptr<DocumentSource>> open(const std::string& folder);
  [[nodiscard]] Result<bool> next(TraceRequest& out) override;

  [[nodiscard]] std::uint64_t requests() const noexcept { return order_.size(); }

 private:
  struct Conversation {
    std::size_t document = 0;
    std::uint32_t turns = 0;  ///< made so far
    std::uint64_t last = kNoRequest;
    std::vector<Token> history;
  };

  DocumentSource() = default;
  void plan();

  std::vector<Token> preamble_;
  std::vector<std::vector<Token>> documents_;
  std::vector<Conversation> conversations_;
  std::vector<std::size_t> order_;  ///< which conversation has its next turn
  std::size_t at_ = 0;
};

}  // namespace statecached
