#pragma once
// Several processes that compute one model, each with its share of all heads: what the scheduler
// (shard 0) tells the others, and the rows of heads that they exchange in each layer. Each has its
// own session, joins the scheduler's ticket, and reads and writes its own shard of every object.
//
// Threads and processes: make the Team before fork(); shard 0 calls everything but follow(), each
// of the others calls follow() alone. A worker that dies leaves the others waiting: this is an
// example, not a product.

#include "client/engine/sequence.hpp"

#include <memory>

namespace statecached::engine {

class Team {
 public:
  Team(const ModelConfig& config, std::uint32_t shards);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  [[nodiscard]] Gather gather(std::uint32_t shard);

  // ---- shard 0: each call is done when all workers have done it ----
  void begin(const statecache::TicketRef& ticket, std::uint64_t adapter);
  /// True: every worker has its part of the lease, and it is `depth` deep.
  [[nodiscard]] bool load(std::uint32_t depth, statecache::Micros patience);
  void reset(std::uint64_t adapter);
  /// Returns at once: shard 0 computes beside the others.
  void run(std::span<const Token> tokens);
  /// So many objects were granted: every worker fills its shard of them.
  [[nodiscard]] statecache::Status save(std::uint32_t objects, statecache::Micros patience);
  void end();
  void stop();

  // ---- the others ----
  void follow(const Model& model, statecache::Session& session);

 private:
  struct Shared;
  void order();
  void done();
  Shared* shared_ = nullptr;
  std::size_t bytes_ = 0;
  std::uint32_t shards_ = 1;
};

}  // namespace statecached::engine
