// The policies of the simulator: the paper's against a plain model of the paper's rules that scans
// everything, all of them against their capacity, and what only simulations have (open loop, the
// future, pictures).

#include "base/prng.hpp"
#include "daemon/sim/plot.hpp"
#include "daemon/sim/simulate.hpp"
#include "policy/speed.hpp"
#include "policy/tuner.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>

namespace statecached {
namespace {

// bytes a token: one page, so that a block of one token pads to nothing
constexpr std::uint64_t kKv = 4096;
constexpr std::uint64_t kState = 64 * 4096;  // bytes a checkpoint

NamespaceSpec hybrid(std::uint32_t block) {
  NamespaceSpec spec;
  spec.name = "sim";
  spec.groups = {
      {.name = "attention", .need = Need::every, .block_tokens = block, .max_bytes = block * kKv},
      {.name = "recurrent", .need = Need::end, .max_bytes = kState}};
  spec.cost.c1 = 13e9;
  spec.cost.c2 = 65536;
  return spec;
}

struct Turn {
  std::vector<Token> input, output;
};

/// Talks that begin with one of a few long preambles, their turns interleaved; now and then one
/// falls silent.
std::vector<Turn> talks(std::uint64_t seed, std::uint32_t requests) {
  Prng chance(seed);
  std::vector<std::vector<Token>> preambles(4), open;
  for (std::size_t p = 0; p < preambles.size(); ++p) {
    for (std::uint64_t i = 0; i < 60 + 30 * p; ++i)
      preambles[p].push_back(static_cast<Token>(1000 * (p + 1) + i));
  }
  std::vector<Turn> out;
  Token fresh = 100'000;
  while (out.size() < requests) {
    if (open.size() < 3 || chance.chance(0.15))
      open.push_back(preambles[chance.below(preambles.size())]);
    const std::size_t at = chance.below(open.size());
    for (std::uint64_t i = 5 + chance.below(60); i > 0; --i)
      open[at].push_back(fresh++);
    Turn turn{open[at], {}};
    for (std::uint64_t i = 1 + chance.below(20); i > 0; --i)
      turn.output.push_back(fresh++);
    open[at].insert(open[at].end(), turn.output.begin(), turn.output.end());
    out.push_back(std::move(turn));
    if (chance.chance(0.08)) open.erase(open.begin() + static_cast<std::ptrdiff_t>(at));
  }
  return out;
}

class Trace {
 public:
  Trace(const std::vector<Turn>& turns, const std::string& name)
      : path_((std::filesystem::temp_directory_path() /
               ("statecached-" + name + "-" + std::to_string(getpid()) + ".jsonl"))
                  .string()) {
    std::ofstream file(path_);
    const auto list = [](const std::vector<Token>& tokens) {
      std::string text;
      for (const Token token : tokens)
        text += (text.empty() ? '[' : ',') + std::to_string(token);
      return text + (text.empty() ? "[]" : "]");
    };
    double ts = 0;
    int session = 0;  // of its own each: no request waits for another to be over
    for (const Turn& turn : turns) {
      file << "{\"session_id\":" << session++ << ",\"turn_id\":0,\"ts\":" << ts
           << ",\"input_tokens\":" << list(turn.input) << ",\"output_tokens\":" << list(turn.output)
           << "}\n";
      ts += 0.05;
    }
  }

  ~Trace() { std::filesystem::remove(path_); }

  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  [[nodiscard]] std::unique_ptr<TraceReader> open() const {
    auto reader = TraceReader::open(path_, 0);
    EXPECT_TRUE(reader);
    return reader ? std::move(*reader) : nullptr;
  }

 private:
  std::string path_;
};

SimResult run(const Trace& trace, SimSettings settings) {
  if (settings.policy.name == PolicyName::clairvoyant) {
    settings.future = std::make_shared<Future>();
    EXPECT_TRUE(fill(*settings.future, *trace.open()));
  }
  auto result = simulate(settings, *trace.open());
  EXPECT_TRUE(result) << result.error().text;
  return result ? *result : SimResult{};
}

SimSettings reference(PolicyName name, std::uint64_t capacity) {
  SimSettings out;
  out.spec = hybrid(1);
  out.policy.name = name;
  out.policy.admission = Admission::paper;
  out.device_bytes = capacity;
  out.compat_reference = true;
  return out;
}

/// The paper's cache by the letter: every node has a checkpoint, every choice looks at every node.
class PlainCache {
 public:
  PlainCache(std::uint64_t capacity, std::optional<double> alpha, Cost cost)
      : capacity_(capacity),
        alpha_(alpha),
        cost_(cost) {}

  std::uint64_t request(const Turn& turn) {
    ++clock_;
    Place found = match(turn.input);
    refresh(found);
    const std::uint64_t hit = found.depth;
    std::vector<Token> all = turn.input;
    all.insert(all.end(), turn.output.begin(), turn.output.end());
    clock_ += 2;
    pinned_ = found.node;
    found = match(all);
    refresh(found);
    const std::uint64_t known = found.depth + found.partial;
    const std::uint64_t need = (found.partial > 0 ? 2 : 1) * kState + kKv * (all.size() - known);
    if (bytes_ + need > capacity_) {
      ++clock_;
      make_room(need);
      found = match(all);
    }
    Node* at = found.node;
    if (found.partial > 0) at = split(*found.below, found.partial);
    if (at->depth < all.size())
      add(*at, {all.begin() + static_cast<std::ptrdiff_t>(at->depth), all.end()});
    return hit;
  }

  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  struct Node {
    Node* parent = nullptr;
    std::vector<Token> key;
    std::uint64_t depth = 0, used = 0;
    std::map<Token, std::unique_ptr<Node>> children;
  };

  struct Place {
    Node* node = nullptr;
    std::uint64_t depth = 0, partial = 0;
    Node* below = nullptr;
  };

  Place match(const std::vector<Token>& tokens) {
    Place at{&root_, 0, 0, nullptr};
    while (at.depth < tokens.size()) {
      const auto next = at.node->children.find(tokens[at.depth]);
      if (next == at.node->children.end()) return at;
      Node& child = *next->second;
      std::size_t same = 0;
      while (same < child.key.size() && at.depth + same < tokens.size() &&
             child.key[same] == tokens[at.depth + same])
        ++same;
      if (same < child.key.size()) {
        at.partial = same;
        at.below = &child;
        return at;
      }
      at.node = &child;
      at.depth += same;
    }
    return at;
  }

  void refresh(const Place& place) {
    if (alpha_) {
      place.node->used = clock_;
      return;
    }
    for (Node* n = place.node; n != nullptr; n = n->parent)
      n->used = clock_;
    if (place.below != nullptr) place.below->used = clock_;
  }

  Node* add(Node& parent, std::vector<Token> key) {
    auto node = std::make_unique<Node>();
    node->parent = &parent;
    node->depth = parent.depth + key.size();
    node->used = clock_;
    bytes_ += kState + kKv * key.size();
    const Token first = key.front();
    node->key = std::move(key);
    return (parent.children[first] = std::move(node)).get();
  }

  Node* split(Node& lower, std::size_t at) {
    Node& parent = *lower.parent;
    const Token first = lower.key.front();
    std::unique_ptr<Node> own = std::move(parent.children[first]);
    auto upper = std::make_unique<Node>();
    upper->parent = &parent;
    upper->key.assign(own->key.begin(), own->key.begin() + static_cast<std::ptrdiff_t>(at));
    upper->depth = parent.depth + at;
    upper->used = clock_;
    own->key.erase(own->key.begin(), own->key.begin() + static_cast<std::ptrdiff_t>(at));
    own->parent = upper.get();
    const Token next = own->key.front();
    Node* out = upper.get();
    upper->children[next] = std::move(own);
    parent.children[first] = std::move(upper);
    bytes_ += kState;
    return out;
  }

  void collect(Node& node, std::vector<Node*>& out) {
    for (auto& [token, child] : node.children) {
      if (child->children.empty() || (alpha_ && child->children.size() == 1))
        out.push_back(child.get());
      collect(*child, out);
    }
  }

  void make_room(std::uint64_t need) {
    while (bytes_ + need > capacity_) {
      std::vector<Node*> all;
      collect(root_, all);
      const auto recency = [&](const Node* n) {
        return 1.0 / static_cast<double>(clock_ - n->used);
      };
      const auto value = [&](const Node* n) {
        return cost_.flops(n->parent->depth, n->depth) /
               static_cast<double>(kState + kKv * n->depth);
      };
      const auto normal = [&](const auto& of, const Node* n) {
        double low = of(all.front()), high = low;
        for (const Node* m : all) {
          low = std::min(low, of(m));
          high = std::max(high, of(m));
        }
        return high > low ? (of(n) - low) / (high - low) : 1.0;
      };
      Node* victim = nullptr;
      double least = 0;
      for (Node* n : all) {
        if (n == pinned_) continue;
        const double score =
            alpha_ ? normal(recency, n) + *alpha_ * normal(value, n) : static_cast<double>(n->used);
        if (victim != nullptr && score >= least) continue;
        victim = n;
        least = score;
      }
      if (victim == nullptr) return;
      drop(*victim);
    }
  }

  void drop(Node& node) {
    Node& parent = *node.parent;
    const Token first = node.key.front();
    bytes_ -= kState;
    if (node.children.empty()) {
      bytes_ -= kKv * node.key.size();
      parent.children.erase(first);
      return;
    }
    std::unique_ptr<Node> child = std::move(node.children.begin()->second);
    child->key.insert(child->key.begin(), node.key.begin(), node.key.end());
    child->used = std::max(child->used, node.used);
    child->parent = &parent;
    parent.children[first] = std::move(child);
  }

  std::uint64_t capacity_;
  std::optional<double> alpha_;
  Cost cost_;
  Node root_;
  Node* pinned_ = nullptr;
  std::uint64_t bytes_ = 0, clock_ = 0;
};

class Capacities : public testing::TestWithParam<std::uint64_t> {};

TEST_P(Capacities, ThePapersPoliciesDoWhatAPlainModelOfThemDoes) {
  const std::uint64_t capacity = GetParam() * kMiB;
  for (const std::uint64_t seed : {1ULL, 2ULL}) {
    const std::vector<Turn> turns = talks(seed, 250);
    const Trace trace(turns, "paper");
    for (const std::optional<double> alpha :
         {std::optional<double>{}, std::optional(0.0), std::optional(0.5), std::optional(1.0)}) {
      SCOPED_TRACE(testing::Message() << "seed " << seed << " alpha " << alpha.value_or(-1));
      SimSettings settings =
          reference(alpha ? PolicyName::marconi_paper : PolicyName::lru, capacity);
      settings.policy.alpha = alpha;
      std::vector<std::uint64_t> hits;
      settings.each = [&](const SimRow& row) {
        hits.push_back(row.hit_tokens);
        EXPECT_LE(row.bytes[0], capacity);
      };
      const SimResult result = run(trace, settings);
      PlainCache plain(capacity, alpha, settings.spec.cost);
      std::uint64_t sum = 0, apart = 0;
      for (std::size_t i = 0; i < turns.size(); ++i) {
        const std::uint64_t hit = plain.request(turns[i]);
        sum += hit;
        if (hit != hits.at(i)) ++apart;
      }
      // Equal scores may fall differently: rarely, and never by much.
      EXPECT_LE(apart, turns.size() / 25);
      EXPECT_NEAR(static_cast<double>(result.hit_tokens),
                  static_cast<double>(sum),
                  0.01 * static_cast<double>(result.input_tokens));
      EXPECT_GT(result.counters.evictions, 0U);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Capacities, testing::Values(8, 16));

TEST(Policies, NoneEverHoldsMoreThanItsCapacity) {
  const Trace trace(talks(5, 200), "peak");
  for (const PolicyName name : {PolicyName::marconi,
                                PolicyName::marconi_paper,
                                PolicyName::lru,
                                PolicyName::s3fifo,
                                PolicyName::gdsf,
                                PolicyName::clairvoyant}) {
    for (const std::uint32_t block : {1U, 16U}) {
      for (const Admission admission :
           {Admission::paper, Admission::marconi, Admission::every_tokens}) {
        SCOPED_TRACE(testing::Message() << to_string(name) << " block " << block << " admission "
                                        << static_cast<int>(admission));
        SimSettings settings = reference(name, 6 * kMiB);
        settings.spec = hybrid(block);
        settings.policy.admission = admission;
        settings.policy.every_tokens = 16;
        settings.compat_reference = block == 1;
        std::uint64_t steps = 0;
        settings.each = [&](const SimRow& row) {
          ++steps;
          EXPECT_LE(row.bytes[0], 6 * kMiB);
        };
        const SimResult result = run(trace, settings);
        EXPECT_EQ(steps, 200U);
        EXPECT_LE(result.bytes_peak[0], 6 * kMiB);  // at any moment, not only between requests
        EXPECT_GT(result.counters.evictions, 0U);
      }
    }
  }
}

TEST(Policies, WhoKnowsTheFutureHitsMost) {
  const Trace trace(talks(7, 300), "future");
  SimSettings settings = reference(PolicyName::clairvoyant, 8 * kMiB);
  settings.policy.admission = Admission::future;
  const std::uint64_t most = run(trace, settings).hit_tokens;
  for (const PolicyName name :
       {PolicyName::marconi, PolicyName::lru, PolicyName::s3fifo, PolicyName::gdsf}) {
    EXPECT_GE(most, run(trace, reference(name, 8 * kMiB)).hit_tokens) << to_string(name);
  }
}

TEST(Policies, CheckpointsEverywhereHitWhereTheyArePaidFor) {
  const Trace trace(talks(8, 100), "blocks");
  SimSettings settings = reference(PolicyName::lru, 4 * kGiB);
  settings.spec = hybrid(16);
  const SimResult few = run(trace, settings);
  settings.policy.admission = Admission::every_tokens;
  settings.policy.every_tokens = 16;
  const SimResult many = run(trace, settings);
  EXPECT_GT(many.bytes_peak[0], few.bytes_peak[0] + few.bytes_peak[0] / 4);
  EXPECT_GT(many.hit_tokens, few.hit_tokens);  // the preambles, already the second time
}

TEST(Tuning, ATrialFindsWhatTheCacheWouldHaveHit) {
  const std::vector<Turn> turns = talks(11, 250);
  const Trace trace(turns, "trial");
  const ReplaySpace costs{hybrid(1).cost, kKv, kState};
  ReplayLog log(12.0 * kMiB);
  for (const Turn& turn : turns) {
    std::vector<Token> all = turn.input;
    all.insert(all.end(), turn.output.begin(), turn.output.end());
    log.add(0, costs, all, static_cast<std::uint32_t>(turn.input.size()));
  }
  EXPECT_EQ(log.requests(), turns.size());
  for (const double alpha : {0.0, 0.5, 1.0}) {
    SimSettings settings = reference(PolicyName::marconi_paper, 12 * kMiB);
    settings.policy.alpha = alpha;
    const SimResult real = run(trace, settings);
    EXPECT_NEAR(static_cast<double>(log.replay(alpha)),
                static_cast<double>(real.hit_tokens),
                0.01 * static_cast<double>(real.input_tokens))
        << alpha;
  }
}

TEST(Tuning, TakesTheBestOfTheGridInTheBackgroundAndAgainWhenTheWorkloadDrifts) {
  const ReplaySpace costs{hybrid(1).cost, kKv, kState};
  std::vector<std::function<void()>> jobs;
  Tuner tuner(8.0 * kMiB, [&](std::function<void()> job) { jobs.push_back(std::move(job)); });
  const std::vector<Turn> turns = talks(13, 400);
  std::size_t at = 0;
  const auto ask = [&](std::uint32_t hit) {
    const Turn& turn = turns[at++ % turns.size()];
    tuner.request(0,
                  costs,
                  turn.input,
                  static_cast<std::uint32_t>(turn.input.size()),
                  std::min(hit, static_cast<std::uint32_t>(turn.input.size())));
  };
  for (int i = 0; i < 5; ++i)
    ask(0);
  ASSERT_TRUE(tuner.wants_snapshot());
  static_cast<void>(tuner.begin());
  EXPECT_FALSE(tuner.wants_snapshot());
  for (int i = 0; i < 50; ++i)
    ask(100000);
  ASSERT_EQ(jobs.size(), 1U);
  EXPECT_FALSE(tuner.take().has_value());  // not over yet
  jobs.front()();
  const auto alpha = tuner.take();
  ASSERT_TRUE(alpha.has_value());
  ReplayLog log(8.0 * kMiB);
  for (std::size_t i = 5; i < 55; ++i)
    log.add(0, costs, turns[i].input, static_cast<std::uint32_t>(turns[i].input.size()));
  for (int i = 0; i <= 20; ++i)
    EXPECT_GE(log.replay(*alpha), log.replay(0.1 * i)) << i;
  for (int i = 0; i < 100; ++i)
    ask(100000);
  EXPECT_FALSE(tuner.wants_snapshot());  // as usual
  for (int i = 0; i < 50; ++i)
    ask(0);
  EXPECT_TRUE(tuner.wants_snapshot());  // nothing is hit any more
}

TEST(Tuning, TheSimulatorTunesAndRepeatsItself) {
  const Trace trace(talks(17, 400), "auto");
  const SimResult a = run(trace, reference(PolicyName::marconi_paper, 8 * kMiB));
  const SimResult b = run(trace, reference(PolicyName::marconi_paper, 8 * kMiB));
  ASSERT_TRUE(a.alpha.has_value());
  EXPECT_EQ(a.alpha, b.alpha);
  EXPECT_EQ(a.hit_tokens, b.hit_tokens);
}

TEST(OpenLoop, ABusierEngineMakesRequestsWait) {
  const Trace trace(talks(19, 200), "open");
  SimSettings settings = reference(PolicyName::lru, 64 * kMiB);
  settings.compat_reference = false;
  settings.engine_flops = 20e12;
  const SimResult closed = run(trace, settings);
  settings.open_loop = true;
  const auto demand = measure(*trace.open(), settings.spec.cost, settings.engine_flops);
  ASSERT_TRUE(demand);
  const auto at_load = [&](double load) {
    settings.stretch = demand->prefill_seconds / (load * demand->seconds);
    return run(trace, settings);
  };
  const SimResult calm = at_load(0.1), busy = at_load(3);
  EXPECT_EQ(calm.requests, 200U);
  EXPECT_EQ(busy.requests, 200U);
  EXPECT_GT(busy.ttft_ms.p95, calm.ttft_ms.p95);
  EXPECT_GE(calm.ttft_ms.p95, closed.ttft_ms.p95);
  EXPECT_LE(calm.engine_busy, 0.11);
  EXPECT_GT(busy.engine_busy, calm.engine_busy);
}

TEST(Plot, NamesItsLinesAndKeepsThemInside) {
  const std::string svg =
      plot_svg("Title <1>",
               "sub",
               {{"lru", {{1e9, 0.1}, {8e9, 0.5}}}, {"marconi", {{1e9, 0.2}, {8e9, 0.6}}}});
  EXPECT_NE(svg.find(">lru<"), std::string::npos);
  EXPECT_NE(svg.find(">marconi<"), std::string::npos);
  EXPECT_NE(svg.find("Title &lt;1&gt;"), std::string::npos);
  EXPECT_NE(svg.find("logarithmic"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(plot_svg("", "", {{"one", {{1e9, 0.0}}}}).find("nan"), std::string::npos);
}

TEST(EngineSpeed, LearnsFromLongPrefillsMoreThanFromShortOnes) {
  EngineSpeed speed(400e12);
  EXPECT_DOUBLE_EQ(speed.rate(), 400e12);
  for (int i = 0; i < 100; ++i) {
    speed.add(100e12, 1.0);
    speed.add(1e9, 0.001);  // mostly overhead
  }
  EXPECT_NEAR(speed.rate(), 100e12, 1e12);
  speed.add(0, 1);
  speed.add(1, 0);
  EXPECT_NEAR(speed.rate(), 100e12, 1e12);
}

}  // namespace
}  // namespace statecached
