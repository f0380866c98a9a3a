#pragma once
// What the program statecache-engine does, a function each. All print a table, or one JSON object
// with `json`.

#include "client/engine/engine.hpp"

#include <string>
#include <vector>

namespace statecached::engine {

struct Options {
  std::string socket = "/run/statecached/control.sock";
  bool no_cache = false, json = false;
  std::uint32_t generate = 24;
  // talks
  std::string folder = ".";
  std::uint32_t talks = 16, turns = 5, active = 6, document = 2000;
  double seconds = 45;
  // bench
  std::uint32_t tokens = 4000, rounds = 12;
};

/// Exit code: 0, or 1 where something failed or a logit differed.
int chat(const Options& options, const Model& model, statecache::Session* session);
int talks(const Options& options, const Model& model, statecache::Session* session);
int bench_ttft(const Options& options, const Model& model, statecache::Session& session);
int bench_overhead(const Options& options, const Model& model, statecache::Session& session);

/// Bytes of the text files below a folder, in order of their paths, each cut to `most` bytes.
[[nodiscard]] std::vector<std::vector<Token>> documents_in(const std::string& folder,
                                                           std::size_t least,
                                                           std::size_t most);
[[nodiscard]] std::vector<Token> bytes_of(std::string_view text);
/// `size` bytes of text that no other number has: each line begins with it.
[[nodiscard]] std::vector<Token> text_of(std::uint64_t number, std::uint32_t size);
/// The same tokens generated, and the last logits bit for bit the same.
[[nodiscard]] bool same(const Turn& a, const Turn& b);

}  // namespace statecached::engine
