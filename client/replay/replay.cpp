#include "client/replay/replay.hpp"

#include "client/replay/worker.hpp"

#include <sys/random.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_set>

namespace statecached {
namespace {

using WallClock = std::chrono::steady_clock;

statecache::Digest to_client(const Digest& digest) {
  return digest.bytes;
}

statecache::NamespaceSpec to_client(const NamespaceSpec& spec) {
  statecache::NamespaceSpec out;
  out.name = spec.name;
  out.model = to_client(spec.model);
  out.layout = to_client(spec.layout);
  for (const Group& group : spec.groups) {
    out.groups.push_back({.name = group.name,
                          .need = static_cast<statecache::Need>(group.need),
                          .block_tokens = group.block_tokens,
                          .window = group.window,
                          .lookahead = group.lookahead,
                          .max_bytes = group.max_bytes,
                          .shards = group.shards,
                          .contiguous = group.contiguous,
                          .token_major = group.token_major});
  }
  out.resume_grid = spec.resume_grid;
  out.checkpoint_grid = spec.checkpoint_grid;
  out.checkpoints_per_chunk = spec.checkpoints_per_chunk;
  out.cost = {spec.cost.c0, spec.cost.c1, spec.cost.c2, spec.cost.window_c2, spec.cost.window};
  return out;
}

/// Hands out requests in the order of the trace, each when it is due and its turn before is over.
class Dispatcher {
 public:
  Dispatcher(TraceReader& trace, double speed) : trace_(trace), speed_(speed) {}

  /// False: there are no more.
  bool next(TraceRequest& request) {
    std::unique_lock lock(mutex_);
    if (stopped_ || !trace_.next(request)) return false;
    running_.insert(request.index);
    over_.wait(lock, [&] { return stopped_ || !running_.contains(request.after); });
    if (speed_ > 0) {
      const auto due =
          start_ + std::chrono::duration_cast<WallClock::duration>(
                       std::chrono::duration<double, std::milli>(request.timestamp_ms / speed_));
      over_.wait_until(lock, due, [&] { return stopped_; });
    }
    return !stopped_;
  }

  void done(std::uint64_t index, const ReplayProgress& increment) {
    const std::lock_guard lock(mutex_);
    running_.erase(index);
    progress_.requests += increment.requests;
    progress_.input_tokens += increment.input_tokens;
    progress_.hit_tokens += increment.hit_tokens;
    over_.notify_all();
  }

  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    over_.notify_all();
  }

  void leave() {
    const std::lock_guard lock(mutex_);
    ++left_;
    over_.notify_all();
  }

  /// Waits a little or until `workers` have left. True: they have.
  bool wait(std::uint32_t workers, ReplayProgress& progress) {
    std::unique_lock lock(mutex_);
    const bool all =
        over_.wait_for(lock, std::chrono::milliseconds(100), [&] { return left_ == workers; });
    progress = progress_;
    return all;
  }

  [[nodiscard]] bool stopped() {
    const std::lock_guard lock(mutex_);
    return stopped_;
  }

 private:
  TraceReader& trace_;
  const double speed_;
  const WallClock::time_point start_ = WallClock::now();
  std::mutex mutex_;
  std::condition_variable over_;
  std::unordered_set<std::uint64_t> running_;
  ReplayProgress progress_;
  std::uint32_t left_ = 0;
  bool stopped_ = false;
};

void work(Dispatcher& dispatcher, ReplayWorker& worker) {
  TraceRequest request;
  while (dispatcher.next(request)) {
    const std::uint64_t hits = worker.totals().hit_tokens;
    const bool connected = worker.run(request);
    dispatcher.done(request.index, {1, request.input.size(), worker.totals().hit_tokens - hits});
    if (!connected) dispatcher.stop();
  }
  dispatcher.leave();
}

Result<std::vector<statecache::Session>> attach_all(const ReplaySettings& settings) {
  statecache::Member member;
  member.program = "statecache-replay";
  if (getrandom(member.engine.data(), member.engine.size(), 0) !=
      static_cast<ssize_t>(member.engine.size())) {
    return fail_errno("cannot get random bytes");
  }
  std::vector<statecache::Session> sessions;
  for (std::uint32_t i = 0; i < std::max(settings.sessions, 1U); ++i) {
    auto session = statecache::Session::attach(settings.socket, to_client(settings.spec), member);
    if (!session) {
      const statecache::Status status = session.status();
      return fail(static_cast<Errc>(status.code),
                  "cannot attach to " + settings.socket + ": " + status.text);
    }
    sessions.push_back(std::move(session).value());
  }
  return sessions;
}

}  // namespace

Result<ReplayResult> replay(const ReplaySettings& settings,
                            TraceReader& trace,
                            const std::function<void(const ReplayProgress&)>& progress) {
  SC_ASSIGN(auto sessions, attach_all(settings));
  const auto start = WallClock::now();
  Dispatcher dispatcher(trace, settings.speed);
  std::vector<ReplayWorker> workers;
  for (std::uint32_t i = 0; i < settings.concurrency; ++i)
    workers.emplace_back(settings, sessions[i % sessions.size()]);
  std::vector<std::thread> threads;
  for (ReplayWorker& worker : workers)
    threads.emplace_back([&] { work(dispatcher, worker); });
  for (bool all = false; !all;) {
    ReplayProgress now;
    all = dispatcher.wait(settings.concurrency, now);
    if (progress) progress(now);
  }
  for (std::thread& thread : threads)
    thread.join();

  ReplayResult result;
  for (const ReplayWorker& worker : workers)
    result.totals.add(worker.totals());
  if (dispatcher.stopped())
    return fail(Errc::closed, "the daemon has gone: " + result.totals.first_error);
  if (trace.error() != nullptr) return tl::unexpected<Error>(*trace.error());
  std::uint64_t refused_records = 0;
  for (statecache::Session& session : sessions) {
    const statecache::Status drained = session.drain(std::chrono::seconds(30));
    if (!drained.ok()) {
      ++result.totals.errors;
      if (result.totals.first_error.empty()) result.totals.first_error = "drain: " + drained.text;
    }
    refused_records += session.counters().errors;
    result.refused_commits += session.counters().refused;
  }
  // A record that the daemon refused may have been seen by a worker or, after its last wait, by
  // nobody.
  result.totals.errors = std::max(result.totals.errors, refused_records);
  result.wall_seconds = std::chrono::duration<double>(WallClock::now() - start).count();
  return result;
}

}  // namespace statecached
