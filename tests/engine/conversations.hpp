#pragma once
// Random conversations with the small hybrid model, each logit compared, bit for bit, with what the
// same model computes without a cache. One thread.

#include "base/prng.hpp"
#include "client/engine/engine.hpp"

#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <vector>

namespace statecached::test {

using Tokens = std::vector<engine::Token>;

/// What happened, and what differed. Sums over processes when plain memory is copied.
struct Findings {
  std::uint64_t conversations = 0, turns = 0, prompt_tokens = 0, hit_tokens = 0;
  std::uint64_t logits = 0;     ///< rows of 256 compared
  std::uint64_t different = 0;  ///< of these: not the same bytes
  std::uint64_t hits = 0;
  std::uint64_t inside_block = 0;      ///< not at the end of a block
  std::uint64_t same_prompt = 0;       ///< a prompt asked for again, all but its last token
  std::uint64_t fork = 0, parent = 0;  ///< another end for a conversation, or for an open request
  /// exactly where a new question parts from others about its document
  std::uint64_t branch = 0;
  std::uint64_t others = 0;     ///< of what this process had never seen: another one stored it
  std::uint64_t restarted = 0;  ///< in a daemon that was killed and started
  /// hits, by the lowest tier that a part of them came from
  std::array<std::uint64_t, 3> by_tier{};
  std::uint64_t stored = 0, refused = 0, cache_errors = 0;
  char first_error[160] = {};

  void add(const Findings& other) {
    conversations += other.conversations;
    turns += other.turns;
    prompt_tokens += other.prompt_tokens;
    hit_tokens += other.hit_tokens;
    logits += other.logits;
    different += other.different;
    hits += other.hits;
    inside_block += other.inside_block;
    same_prompt += other.same_prompt;
    fork += other.fork;
    parent += other.parent;
    branch += other.branch;
    others += other.others;
    restarted += other.restarted;
    for (std::size_t t = 0; t < by_tier.size(); ++t)
      by_tier[t] += other.by_tier[t];
    stored += other.stored;
    refused += other.refused;
    cache_errors += other.cache_errors;
    if (first_error[0] == 0) std::memcpy(first_error, other.first_error, sizeof first_error);
  }

  [[nodiscard]] std::string text() const {
    const auto n = [](std::uint64_t value) { return std::to_string(value); };
    std::string out = n(conversations) + " conversations, " + n(turns) + " turns, " +
                      n(prompt_tokens) + " prompt tokens, ";
    out += n(hit_tokens) + " restored; hits " + n(hits) + " (device " + n(by_tier[0]) + ", host " +
           n(by_tier[1]);
    out += ", nvme " + n(by_tier[2]) + "; inside a block " + n(inside_block) +
           ", of the same prompt " + n(same_prompt);
    out += ", of forks " + n(fork) + ", of open parents " + n(parent) + ", at branch points " +
           n(branch);
    out += ", of another process's " + n(others) + ", after a restart " + n(restarted);
    out += "); objects stored " + n(stored) + ", refused " + n(refused) + "; errors " +
           n(cache_errors) + " " + first_error;
    out += "; rows of logits " + n(logits) + ", different " + n(different);
    return out;
  }
};

class Conversations {
 public:
  static constexpr std::uint32_t kBlock = 16;
  static constexpr std::size_t kLengthMax = 420;

  static engine::EngineOptions options(engine::Fault fault = engine::Fault::none) {
    engine::EngineOptions out;
    out.block_tokens = kBlock;
    out.chunk = 48;
    out.fault = fault;
    return out;
  }

  /// `content`: what the prompts are about: equal in processes that shall share. `choices`: what
  /// comes next. `whole`: the model with all heads, to compute the truth with.
  Conversations(engine::Engine& engine,
                const engine::Model& whole,
                std::uint64_t content,
                std::uint64_t choices)
      : engine_(engine),
        whole_(whole),
        truth_(whole),
        chance_(choices) {
    Prng words(content);
    for (Tokens& document : documents_) {
      document.resize(20 + words.below(150));
      for (engine::Token& token : document)
        token = static_cast<engine::Token>(words.below(256));
    }
  }

  Findings found;
  bool parents = true;  ///< also forks from tickets that are open still

  /// One turn of one conversation.
  void step() {
    const std::uint64_t dice = chance_.below(100);
    if (talks_.size() < 4 || dice < 35) {
      begin();
    } else if (dice < 47) {
      fork();
    } else if (dice < 57) {
      Talk& talk = talks_[chance_.below(talks_.size())];
      if (serve(talk, talk.prompt, {}).hit + 1 == talk.prompt) ++found.same_prompt;
    } else if (dice < 64 && parents) {
      from_parent();
    } else {
      Talk& talk = talks_[chance_.below(talks_.size())];
      say(talk.history, 1 + chance_.below(40));
      talk.prompt = talk.history.size();
      serve(talk, talk.prompt, {});
      trim(talk);
    }
  }

  /// Every conversation that is kept, asked for once more.
  void again() {
    for (Talk& talk : talks_)
      serve(talk, talk.prompt, {});
  }

 private:
  struct Talk {
    std::uint64_t adapter = 0, salt = 0;
    Tokens history;             ///< prompt, and what was generated
    std::size_t prompt = 0;     ///< of the last turn
    engine::Sequence computed;  ///< the truth: no cache
    std::vector<float> logits;  ///< the truth, a row a token of `computed`
  };

  void say(Tokens& history, std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i)
      history.push_back(static_cast<engine::Token>(chance_.below(256)));
  }

  void begin() {
    if (talks_.size() >= 24)
      talks_.erase(talks_.begin() + static_cast<std::ptrdiff_t>(chance_.below(talks_.size())));
    Talk& talk = talks_.emplace_back();
    ++found.conversations;
    talk.adapter = chance_.below(4) == 0 ? 1 + chance_.below(2) : 0;
    talk.salt = chance_.below(8) == 0 ? 1 : 0;
    talk.computed = whole_.start(talk.adapter);
    const std::size_t document = chance_.below(documents_.size());
    talk.history = documents_[document];
    const std::size_t parting = talk.history.size();
    const bool new_here = seen_.insert({document, talk.adapter, talk.salt}).second;
    // A few questions come up again and again; others are new.
    if (chance_.below(3) == 0) {
      talk.history.push_back(static_cast<engine::Token>(chance_.below(3)));
    } else {
      say(talk.history, 1 + chance_.below(60));
    }
    talk.prompt = talk.history.size();
    const engine::Turn turn = serve(talk, talk.prompt, {});
    if (turn.hit == parting) ++found.branch;
    // By chance documents begin with the same byte or two.
    if (new_here && turn.hit >= 8) ++found.others;
    trim(talk);
  }

  void trim(const Talk& talk) {
    if (talk.history.size() > kLengthMax) talks_.erase(talks_.begin() + (&talk - talks_.data()));
  }

  /// Another end for the same beginning, cut anywhere.
  void fork() {
    Talk talk = talks_[chance_.below(talks_.size())];
    cut(talk, 1 + chance_.below(talk.history.size()));
    say(talk.history, 1 + chance_.below(30));
    talk.prompt = talk.history.size();
    ++found.conversations;
    if (serve(talk, talk.prompt, {}).hit != 0) ++found.fork;
    if (talks_.size() < 24) talks_.push_back(std::move(talk));
  }

  /// n continuations of one open request: only what is new travels.
  void from_parent() {
    Talk& base = talks_[chance_.below(talks_.size())];
    engine::Request open;
    open.keep_open = true;
    const std::size_t size = base.prompt;
    const engine::Turn turn = serve(base, size, open);
    if (turn.ticket == 0) return;
    for (int i = 0; i < 2; ++i) {
      Talk child = base;
      const std::size_t kept = 1 + chance_.below(size);
      cut(child, kept);
      say(child.history, 1 + chance_.below(20));
      child.prompt = child.history.size();
      engine::Request request;
      request.parent = turn.ticket;
      request.parent_tokens = static_cast<std::uint32_t>(kept);
      if (serve(child, child.prompt, request).hit != 0) ++found.parent;
    }
    engine_.close(turn.ticket);
  }

  /// The first `size` tokens only; the truth is computed anew when it is asked for.
  void cut(Talk& talk, std::size_t size) {
    talk.history.resize(size);
    talk.computed = whole_.start(talk.adapter);
    talk.logits.clear();
  }

  /// The truth for the first `size` tokens of the talk, in chunks of any size.
  void compute(Talk& talk, std::size_t size) {
    while (talk.computed.length < size) {
      const std::size_t from = talk.computed.length;
      const std::size_t part = std::min<std::size_t>(size - from, 1 + chance_.below(100));
      const std::size_t at = talk.logits.size();
      talk.logits.resize(at + part * engine::kVocabulary);
      truth_.run(talk.computed,
                 std::span(talk.history).subspan(from, part),
                 std::span(talk.logits).subspan(at));
    }
  }

  engine::Turn serve(Talk& talk, std::size_t size, engine::Request request) {
    request.prompt = std::span(talk.history).first(size);
    request.generate = static_cast<std::uint32_t>(1 + chance_.below(12));
    request.adapter = talk.adapter;
    request.salt = talk.salt;
    request.every_logit = true;
    engine::Turn turn = engine_.serve(request);
    ++found.turns;
    found.prompt_tokens += size;
    found.hit_tokens += turn.hit;
    found.stored += turn.stored;
    found.refused += turn.refused;
    found.cache_errors += turn.cache_errors;
    if (found.first_error[0] == 0 && !turn.first_error.empty())
      turn.first_error.copy(found.first_error, sizeof found.first_error - 1);
    if (turn.hit != 0) {
      ++found.hits;
      if (turn.inside_block != 0) ++found.inside_block;
      if (turn.lowest != statecache::Tier::none)
        ++found.by_tier[static_cast<std::size_t>(turn.lowest)];
    }
    // What the engine generated is the conversation from here on, right or wrong: compare along it.
    const bool continued = talk.history.size() > size;
    if (continued) cut(talk, size);
    talk.history.insert(talk.history.end(), turn.generated.begin(), turn.generated.end());
    compute(talk, talk.history.size() - 1);
    const std::size_t rows = talk.history.size() - 1 - turn.hit;
    for (std::size_t r = 0; r < rows && r * engine::kVocabulary < turn.logits.size(); ++r) {
      ++found.logits;
      if (std::memcmp(turn.logits.data() + r * engine::kVocabulary,
                      talk.logits.data() + (turn.hit + r) * engine::kVocabulary,
                      engine::kVocabulary * sizeof(float)) != 0)
        ++found.different;
    }
    if (turn.logits.size() != rows * engine::kVocabulary) ++found.different;
    return turn;
  }

  engine::Engine& engine_;
  const engine::Model& whole_;
  engine::Runner truth_;
  Prng chance_;
  std::array<Tokens, 12> documents_;
  std::set<std::array<std::uint64_t, 3>> seen_;  ///< document, adapter, salt
  std::vector<Talk> talks_;
};

}  // namespace statecached::test
