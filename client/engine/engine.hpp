#pragma once
// Serves prompts with a model and, where there is one, a statecached session: find, restore,
// prefill in chunks, save checkpoints where the plan asks, decode, save. Everything that an
// engine's connector has to do, in order, with the public API only. Whatever the cache refuses or
// loses is computed.
//
// Threads: one.

#include "client/engine/sequence.hpp"
#include "client/engine/workers.hpp"

#include <array>
#include <optional>
#include <set>

namespace statecached::engine {

/// What a broken engine would do. For the tests that show that they would notice.
enum class Fault : std::uint8_t {
  none,
  state_one_off,    ///< stores as the state after n tokens the one after n - 1
  domains_mixed,    ///< asks and stores without the request's domain
  block_truncated,  ///< writes only the first half of a KV block
};

struct Request {
  std::span<const Token> prompt;
  std::uint32_t generate = 1;  ///< tokens; at least 1
  std::uint64_t adapter = 0;   ///< another adapter, other logits: part of the domain
  std::uint64_t salt = 0;      ///< for who must not share: part of the domain
  /// the prompt begins with the first parent_tokens of this open ticket
  statecache::TicketId parent = 0;
  std::uint32_t parent_tokens = 0;
  bool keep_open = false;  ///< leave the ticket to Engine::close, to be a parent
  bool every_logit = false;
};

struct Turn {
  std::vector<Token> generated;
  std::uint32_t hit = 0;                   ///< tokens restored
  std::array<std::uint32_t, 3> by_tier{};  ///< of `hit`: KV that lay on device, host, NVMe
  std::uint32_t inside_block = 0;          ///< of `hit`: beyond its last whole block
  /// of `hit`: the lowest tier that any part of it lay in
  statecache::Tier lowest = statecache::Tier::device;
  double first_token = 0;  ///< seconds from the request to the first token
  double prefill = 0;      ///< of these: computing
  double cache = 0;        ///< in all, `find` to `end`: what computing did not take
  double find = 0;         ///< of these: begin, and waiting for the lease
  double load = 0;         ///< copying what was leased
  double reserve = 0;      ///< asking for space, and waiting for what is not answered yet
  double store = 0;        ///< copying into it, and commit
  double end = 0;          ///< append, finish, release
  double cache_cpu = 0;    ///< of `cache`: on the processor; the rest was waiting
  double whole = 0;
  std::uint32_t stored = 0, refused = 0;  ///< objects
  std::uint32_t cache_errors = 0;
  std::string first_error;
  statecache::TicketId ticket = 0;  ///< with keep_open
  std::vector<float> last_logits;   ///< of the last token computed
  std::vector<float> logits;        ///< with every_logit: of each token from `hit` on
};

struct EngineOptions {
  std::uint32_t chunk = 256;  ///< tokens prefilled at a time
  std::uint32_t block_tokens = 64;
  statecache::Micros patience = std::chrono::seconds(30);  ///< for what the daemon answers
  Fault fault = Fault::none;
};

class Engine {
 public:
  /// `session`: null to compute everything; opened with namespace_of(). `team`: the other workers,
  /// or null.
  Engine(const Model& model,
         statecache::Session* session,
         EngineOptions options = {},
         Team* team = nullptr);
  [[nodiscard]] Turn serve(const Request& request);
  void close(statecache::TicketId ticket);

 private:
  void restore(const Request& request, Turn& turn);
  void prefill(const Request& request, Turn& turn, std::span<const std::uint32_t> wishes);
  void decode(const Request& request, Turn& turn);
  void advance(std::span<const Token> tokens, const Request& request, Turn& turn);
  void reserve(Turn& turn, std::uint32_t here, bool last);
  void save(Turn& turn);
  void end(const Request& request, Turn& turn);
  [[nodiscard]] std::vector<statecache::Want> wants(std::uint32_t here, bool last);
  void fill(const statecache::Slot& slot, Turn& turn, std::vector<statecache::Filled>& filled);
  bool good(const statecache::Status& status, const char* what, Turn& turn);

  const Model& model_;
  statecache::Session* session_;
  EngineOptions options_;
  Team* team_;
  Runner runner_;
  Groups groups_;
  Sequence sequence_;
  Sequence stale_;  ///< with Fault::state_one_off
  std::vector<float> logits_;
  statecache::TicketId ticket_ = 0;
  std::uint32_t saved_ = 0;     ///< KV of so many tokens was offered
  std::uint32_t appended_ = 0;  ///< of what was generated, the daemon has so many
  bool asked_ = false;          ///< there is a reserve whose slots are not taken
  /// blocks of the window group that a checkpoint needs, still to be saved
  std::set<std::uint32_t> window_cells_;
};

[[nodiscard]] Token most_likely(std::span<const float> logits);
[[nodiscard]] statecache::Domain domain_of(std::uint64_t adapter, std::uint64_t salt);

}  // namespace statecached::engine
