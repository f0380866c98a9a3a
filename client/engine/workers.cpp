#include "client/engine/workers.hpp"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>

namespace statecached::engine {
namespace {

constexpr std::size_t kTokensAtOnce = 512;
constexpr statecache::Micros kPatience = std::chrono::seconds(30);
constexpr std::size_t kRows = 64;  // of the runner's chunks

enum class Order : std::uint32_t { begin, load, reset, run, save, end, stop };

}  // namespace

struct Team::Shared {
  pthread_barrier_t barrier;
  Order order = Order::end;
  std::uint64_t adapter = 0;
  std::uint64_t ticket_low = 0, ticket_high = 0;
  std::uint32_t number = 0;
  std::uint32_t tokens = 0;
  std::int64_t patience_us = 0;
  std::atomic<std::uint32_t> failed{0};
  Token token[kTokensAtOnce] = {};

  // Behind it: kRows rows of the widest layer.
  [[nodiscard]] float* rows() { return reinterpret_cast<float*>(this + 1); }
};

Team::Team(const ModelConfig& config, std::uint32_t shards) : shards_(shards) {
  const std::size_t widest = std::max(std::size_t{config.query_heads} * config.head,
                                      std::size_t{config.state_heads} * config.state_head);
  bytes_ = sizeof(Shared) + kRows * widest * sizeof(float);
  void* memory = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  shared_ = new (memory) Shared;
  pthread_barrierattr_t attributes;
  ::pthread_barrierattr_init(&attributes);
  ::pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  ::pthread_barrier_init(&shared_->barrier, &attributes, shards);
  ::pthread_barrierattr_destroy(&attributes);
}

Team::~Team() {
  ::munmap(shared_, bytes_);
}

void Team::order() {
  ::pthread_barrier_wait(&shared_->barrier);
}

void Team::done() {
  ::pthread_barrier_wait(&shared_->barrier);
}

Gather Team::gather(std::uint32_t shard) {
  return [this, shard](float* rows, std::size_t stride, std::size_t own, std::size_t tokens) {
    float* common = shared_->rows();
    for (std::size_t t = 0; t < tokens; ++t)
      std::memcpy(
          common + t * stride + shard * own, rows + t * stride + shard * own, own * sizeof(float));
    ::pthread_barrier_wait(&shared_->barrier);
    std::memcpy(rows, common, tokens * stride * sizeof(float));
    ::pthread_barrier_wait(&shared_->barrier);
  };
}

void Team::begin(const statecache::TicketRef& ticket, std::uint64_t adapter) {
  shared_->order = Order::begin;
  shared_->ticket_low = ticket.low;
  shared_->ticket_high = ticket.high;
  shared_->adapter = adapter;
  order();
  done();
}

bool Team::load(std::uint32_t depth, statecache::Micros patience) {
  shared_->order = Order::load;
  shared_->number = depth;
  shared_->patience_us = patience.count();
  shared_->failed = 0;
  order();
  done();
  return shared_->failed == 0;
}

void Team::reset(std::uint64_t adapter) {
  shared_->order = Order::reset;
  shared_->adapter = adapter;
  order();
  done();
}

void Team::run(std::span<const Token> tokens) {
  if (tokens.size() > kTokensAtOnce) std::abort();
  shared_->order = Order::run;
  shared_->tokens = static_cast<std::uint32_t>(tokens.size());
  std::copy(tokens.begin(), tokens.end(), shared_->token);
  order();
}

statecache::Status Team::save(std::uint32_t objects, statecache::Micros patience) {
  shared_->order = Order::save;
  shared_->number = objects;
  shared_->patience_us = patience.count();
  shared_->failed = 0;
  order();
  done();
  if (shared_->failed == 0) return {};
  return {statecache::Errc::internal, "a worker did not get its slots"};
}

void Team::end() {
  shared_->order = Order::end;
  order();
  done();
}

void Team::stop() {
  shared_->order = Order::stop;
  order();
}

namespace {

/// One worker's part of a conversation.
class Follower {
 public:
  Follower(const Model& model, statecache::Session& session, Gather gather)
      : model_(model),
        session_(session),
        runner_(model, std::move(gather)),
        sequence_(model.start()) {}

  void begin(const statecache::TicketRef& name, std::uint64_t adapter) {
    reset(adapter);
    const auto ticket = session_.join(name);
    ticket_ = ticket ? *ticket : 0;
    // Until the daemon knows that it takes part, nothing that is reserved comes to it.
    if (ticket_ != 0) static_cast<void>(session_.settle(ticket_, kPatience).ok());
  }

  void reset(std::uint64_t adapter) { sequence_ = model_.start(adapter); }

  bool load(std::uint32_t depth, statecache::Micros patience) {
    if (ticket_ == 0) return false;
    const auto lease = session_.wait_lease(ticket_, patience);
    if (!lease || lease->tokens != depth) return false;
    for (const statecache::Piece& piece : lease->pieces) {
      if (!engine::load(
              model_, sequence_, piece.group, piece.first, piece.first + piece.valid, piece.where))
        return false;
    }
    sequence_.length = depth;
    return true;
  }

  void run(std::span<const Token> tokens) { runner_.run(sequence_, tokens, {}); }

  bool save(std::uint32_t objects, statecache::Micros patience) {
    if (ticket_ == 0) return false;
    // They come unasked: the scheduler reserved them.
    const auto deadline = std::chrono::steady_clock::now() + patience;
    for (;;) {
      const auto here = session_.slots(ticket_);
      if (!here) return false;
      if (here->size() >= objects) break;
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::yield();
    }
    const auto slots = session_.wait_slots(ticket_, patience);
    if (!slots) return false;
    std::vector<statecache::Filled> filled;
    for (const statecache::Slot& slot : *slots) {
      if (!store(model_, sequence_, slot.group, slot.first, slot.end, slot.where)) return false;
      filled.push_back({slot.id, 0});
    }
    return session_.commit(filled).ok();
  }

  void end() {
    if (ticket_ == 0) return;
    static_cast<void>(session_.finish(ticket_).ok());
    static_cast<void>(session_.release(ticket_).ok());
    ticket_ = 0;
  }

 private:
  const Model& model_;
  statecache::Session& session_;
  Runner runner_;
  Sequence sequence_;
  statecache::TicketId ticket_ = 0;
};

}  // namespace

void Team::follow(const Model& model, statecache::Session& session) {
  Follower self(model, session, gather(model.slice().shard));
  for (;;) {
    order();
    Shared& s = *shared_;
    const statecache::Micros patience(s.patience_us);
    bool ok = true;
    switch (s.order) {
      case Order::begin:
        self.begin({s.ticket_low, s.ticket_high}, s.adapter);
        break;
      case Order::load:
        ok = s.number == 0 || self.load(s.number, patience);
        break;
      case Order::reset:
        self.reset(s.adapter);
        break;
      case Order::run:
        self.run({s.token, s.tokens});
        continue;
      case Order::save:
        ok = self.save(s.number, patience);
        break;
      case Order::end:
        self.end();
        break;
      case Order::stop:
        return;
    }
    if (!ok) ++s.failed;
    done();
  }
}

}  // namespace statecached::engine
