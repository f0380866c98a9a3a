#include "client/engine/engine.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <memory>

namespace statecached::engine {
namespace {

using Clock = std::chrono::steady_clock;
using statecache::Grant;

constexpr std::size_t kWantsAtOnce = 256;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Of this thread.
double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Adds the time until its end to one part of what the cache took.
class InCache {
 public:
  InCache(double& part, Turn& turn) : part_(part), turn_(turn) {}

  InCache(const InCache&) = delete;
  InCache& operator=(const InCache&) = delete;

  ~InCache() {
    part_ += seconds_since(start_);
    turn_.cache_cpu += cpu_seconds() - cpu_;
  }

 private:
  double& part_;
  Turn& turn_;
  Clock::time_point start_ = Clock::now();
  double cpu_ = cpu_seconds();
};

}  // namespace

Token most_likely(std::span<const float> logits) {
  return static_cast<Token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

statecache::Domain domain_of(std::uint64_t adapter, std::uint64_t salt) {
  statecache::Domain out;
  std::memcpy(out.adapter.data(), &adapter, sizeof adapter);
  std::memcpy(out.salt.data(), &salt, sizeof salt);
  return out;
}

Engine::Engine(const Model& model, statecache::Session* session, EngineOptions options, Team* team)
    : model_(model),
      session_(session),
      options_(options),
      team_(team),
      runner_(model, team == nullptr ? Gather{} : team->gather(model.slice().shard)),
      groups_(groups_of(model.config())) {}

bool Engine::good(const statecache::Status& status, const char* what, Turn& turn) {
  if (status.ok()) return true;
  ++turn.cache_errors;
  if (turn.first_error.empty()) turn.first_error = std::string(what) + ": " + status.text;
  return false;
}

/// Leases the deepest state of the prompt that pays and copies it here.
void Engine::restore(const Request& request, Turn& turn) {
  statecache::Ask ask;
  ask.tokens = request.prompt.subspan(request.parent_tokens);
  ask.parent = request.parent;
  ask.parent_tokens = request.parent_tokens;
  if (options_.fault != Fault::domains_mixed) ask.domain = domain_of(request.adapter, request.salt);
  statecache::Limits limits;
  limits.hold = statecache::Hold::lease;
  const auto lease = [&]() -> statecache::Result<statecache::Lease> {
    const InCache timed(turn.find, turn);
    const auto ticket = session_->begin(ask, limits);
    if (!ticket) return ticket.status();
    ticket_ = *ticket;
    return session_->wait_lease(ticket_, options_.patience);
  }();
  const InCache timed(turn.load, turn);
  bool whole = good(lease.status(), ticket_ == 0 ? "begin" : "lease", turn);
  if (ticket_ == 0) {
    if (team_ != nullptr) team_->reset(request.adapter);
    return;
  }
  if (team_ != nullptr) {
    // Only now: a worker that joins before the daemon has seen begin() finds no such ticket.
    const auto name = session_->ref(ticket_);
    if (good(name.status(), "ref", turn)) team_->begin(*name, request.adapter);
  }
  if (whole && lease->tokens > 0) {
    for (const statecache::Piece& piece : lease->pieces) {
      const std::uint32_t end = piece.first + piece.valid;
      whole = whole && engine::load(model_, sequence_, piece.group, piece.first, end, piece.where);
      const auto tier = static_cast<std::size_t>(piece.tier);
      turn.lowest = std::max(turn.lowest, piece.tier);
      if (piece.group == groups_.attention && tier < turn.by_tier.size())
        turn.by_tier[tier] += piece.valid;
    }
    turn.hit = lease->tokens;
  }
  // All workers or none: one that could not load makes everybody compute.
  const std::uint32_t depth = whole ? turn.hit : 0;
  const bool agreed = team_ == nullptr || team_->load(depth, options_.patience);
  if (depth == 0 || !agreed) {
    turn.hit = 0;
    turn.by_tier = {};
    sequence_ = model_.start(request.adapter);
    if (team_ != nullptr) team_->reset(request.adapter);
    if (whole && !agreed)
      good({statecache::Errc::internal, "a worker could not load its part"}, "load", turn);
    return;
  }
  sequence_.length = turn.hit;
  turn.inside_block = turn.hit % options_.block_tokens;
}

void Engine::advance(std::span<const Token> tokens, const Request& request, Turn& turn) {
  const auto run = [&](std::span<const Token> part) {
    if (part.empty()) return;
    if (team_ != nullptr) team_->run(part);
    if (!request.every_logit) {
      runner_.run(sequence_, part, logits_);
      return;
    }
    const std::size_t at = turn.logits.size();
    turn.logits.resize(at + part.size() * kVocabulary);
    runner_.run(sequence_, part, std::span(turn.logits).subspan(at));
    std::copy(turn.logits.end() - kVocabulary, turn.logits.end(), logits_.begin());
  };
  if (options_.fault != Fault::state_one_off) {
    run(tokens);
    return;
  }
  run(tokens.first(tokens.size() - 1));
  stale_ = sequence_;
  run(tokens.last(1));
  stale_.length = sequence_.length;
}

/// In chunks, cut at every position where a checkpoint is wished for: there the state is saved as
/// it passes. The space is asked for before the chunk is computed, so that the answer is there when
/// it is done.
void Engine::prefill(const Request& request, Turn& turn, std::span<const std::uint32_t> wishes) {
  std::set<std::uint32_t> stops(wishes.begin(), wishes.end());
  const auto size = static_cast<std::uint32_t>(request.prompt.size());
  while (sequence_.length < size) {
    const std::uint32_t here = sequence_.length;
    const auto stop = stops.upper_bound(here);
    std::uint32_t end = std::min(here + options_.chunk, size);
    if (stop != stops.end()) end = std::min(end, *stop);
    const bool last = end == size && request.generate == 1;
    if (last || (stop != stops.end() && end == *stop && end < size)) reserve(turn, end, last);
    const auto start = Clock::now();
    advance(request.prompt.subspan(here, end - here), request, turn);
    turn.prefill += seconds_since(start);
    if (!last) save(turn);
  }
}

/// The tokens that follow. Space for the end of the sequence is asked for before its last step, as
/// in prefill. (An engine that learns from a step that it was the last one asks then, and waits
/// when it has answered its user.)
void Engine::decode(const Request& request, Turn& turn) {
  while (turn.generated.size() < request.generate) {
    const Token next = turn.generated.back();
    if (ticket_ != 0 && turn.generated.size() + 1 == request.generate) {
      good(session_->append(ticket_, turn.generated), "append", turn);
      appended_ = static_cast<std::uint32_t>(turn.generated.size());
      reserve(turn, sequence_.length + 1, true);
    }
    advance({&next, 1}, request, turn);
    turn.generated.push_back(most_likely(logits_));
  }
  save(turn);
}

/// Blocks that are whole after `here` tokens (at the end: all), and the state there. Parents first.
std::vector<statecache::Want> Engine::wants(std::uint32_t here, bool last) {
  std::vector<statecache::Want> out;
  const std::uint32_t cell = options_.block_tokens;
  const auto add = [&](std::uint16_t group, std::uint32_t first, std::uint32_t end) {
    statecache::Want want;
    want.group = group;
    want.first = first;
    want.end = end;
    out.push_back(want);
  };
  const std::uint32_t until = last ? here : here - here % cell;
  for (std::uint32_t first = saved_ - saved_ % cell; first < until; first += cell)
    add(groups_.attention, first, std::min(first + cell, until));
  saved_ = std::max(saved_, until);
  if (groups_.window != Groups{}.window) {
    const std::uint32_t window = model_.config().window;
    const std::uint32_t from = here > window ? here - window : 0;
    for (std::uint32_t first = from - from % cell; first < here; first += cell)
      window_cells_.insert(first);
    while (!window_cells_.empty()) {
      const std::uint32_t first = *window_cells_.begin();
      const std::uint32_t end = std::min(first + cell, until);
      if (end <= first || (!last && end < first + cell)) break;  // a later save has it whole
      add(groups_.window, first, end);
      window_cells_.erase(window_cells_.begin());
    }
  }
  add(groups_.recurrent, here, here);
  return out;
}

void Engine::fill(const statecache::Slot& slot,
                  Turn& turn,
                  std::vector<statecache::Filled>& filled) {
  const bool stale = options_.fault == Fault::state_one_off && slot.group == groups_.recurrent;
  const Sequence& from = stale ? stale_ : sequence_;
  bool done = false;
  if (options_.fault == Fault::block_truncated && slot.group == groups_.attention) {
    const std::uint64_t bytes = payload_bytes(model_, slot.group, slot.end - slot.first);
    std::vector<std::byte> content(bytes);
    const statecache::Extent all{content.data(), bytes};
    done = store(model_, from, slot.group, slot.first, slot.end, {&all, 1});
    std::fill(
        content.begin() + static_cast<std::ptrdiff_t>(bytes / 2), content.end(), std::byte{0});
    std::size_t at = 0;
    for (const statecache::Extent& extent : slot.where) {
      const std::size_t part = std::min(extent.bytes, bytes - at);
      std::memcpy(extent.data, content.data() + at, part);
      at += part;
    }
  } else {
    done = store(model_, from, slot.group, slot.first, slot.end, slot.where);
  }
  if (!done) {
    good({statecache::Errc::internal, "a slot of another size than the state"}, "store", turn);
    good(session_->abandon({&slot.id, 1}), "abandon", turn);
    return;
  }
  filled.push_back({slot.id, 0});
  ++turn.stored;
}

void Engine::reserve(Turn& turn, std::uint32_t here, bool last) {
  if (ticket_ == 0) return;
  const InCache timed(turn.reserve, turn);
  const std::vector<statecache::Want> all = wants(here, last);
  for (std::size_t at = 0; at < all.size(); at += kWantsAtOnce) {
    const auto part = std::span(all).subspan(at, std::min(kWantsAtOnce, all.size() - at));
    if (!good(session_->reserve(ticket_, part), "reserve", turn)) break;
    asked_ = true;
  }
}

/// Fills what reserve() was granted with the sequence as it is now.
void Engine::save(Turn& turn) {
  if (!asked_) return;
  asked_ = false;
  const auto slots = [&] {
    const InCache timed(turn.reserve, turn);
    return session_->wait_slots(ticket_, options_.patience);
  }();
  const InCache timed(turn.store, turn);
  if (!good(slots.status(), "reserve", turn)) return;
  std::vector<statecache::Filled> filled;
  for (const statecache::Slot& slot : *slots) {
    if (slot.grant == Grant::granted) fill(slot, turn, filled);
    if (slot.grant == Grant::declined || slot.grant == Grant::no_space) ++turn.refused;
  }
  if (!filled.empty()) {
    good(session_->commit(filled), "commit", turn);
    if (team_ != nullptr)
      good(team_->save(static_cast<std::uint32_t>(filled.size()), options_.patience),
           "a worker's save",
           turn);
  }
}

void Engine::end(const Request& request, Turn& turn) {
  if (ticket_ == 0) return;
  const InCache timed(turn.end, turn);
  // The last token generated was never fed: its state is not computed.
  good(
      session_->append(ticket_, std::span(turn.generated).subspan(appended_), {}, sequence_.length),
      "append",
      turn);
  if (request.keep_open) {
    turn.ticket = ticket_;
  } else {
    statecache::Report report;
    report.computed = sequence_.length;
    report.prefilled = static_cast<std::uint32_t>(request.prompt.size()) - turn.hit;
    report.prefill =
        std::chrono::duration_cast<statecache::Micros>(std::chrono::duration<double>(turn.prefill));
    good(session_->finish(ticket_, report), "finish", turn);
    good(session_->release(ticket_), "release", turn);
  }
  if (team_ != nullptr) team_->end();
}

Turn Engine::serve(const Request& request) {
  Turn turn;
  const auto start = Clock::now();
  const auto size = static_cast<std::uint32_t>(request.prompt.size());
  sequence_ = model_.start(request.adapter);
  logits_.assign(kVocabulary, 0.0F);
  ticket_ = 0;
  appended_ = 0;
  asked_ = false;
  window_cells_.clear();
  std::vector<std::uint32_t> wishes;
  if (session_ != nullptr) {
    restore(request, turn);
    if (ticket_ != 0) {
      wishes = session_->poll(ticket_).wishes;
      std::erase_if(wishes, [&](std::uint32_t wish) { return wish <= turn.hit || wish >= size; });
    }
  }
  saved_ = turn.hit;
  prefill(request, turn, wishes);
  turn.generated.push_back(most_likely(logits_));
  turn.first_token = seconds_since(start);
  decode(request, turn);
  end(request, turn);
  turn.cache = turn.find + turn.load + turn.reserve + turn.store + turn.end;
  turn.last_logits = logits_;
  turn.whole = seconds_since(start);
  return turn;
}

void Engine::close(statecache::TicketId ticket) {
  if (session_ == nullptr || ticket == 0) return;
  static_cast<void>(session_->finish(ticket).ok());
  static_cast<void>(session_->release(ticket).ok());
}

}  // namespace statecached::engine
