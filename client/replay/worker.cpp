#include "client/replay/worker.hpp"

#include "client/workload/model.hpp"

#include <algorithm>
#include <cstring>

namespace statecached {
namespace {

using statecache::Micros;
using WallClock = std::chrono::steady_clock;

double micros_since(WallClock::time_point start) {
  return std::chrono::duration<double, std::micro>(WallClock::now() - start).count();
}

std::uint64_t seed_of(const NamespaceSpec& spec) {
  const Digest fingerprint = spec.fingerprint();
  std::uint64_t seed = 0;
  std::memcpy(&seed, fingerprint.bytes.data(), sizeof seed);
  return seed;
}

}  // namespace

void ReplayTotals::add(const ReplayTotals& other) {
  requests += other.requests;
  input_tokens += other.input_tokens;
  hit_tokens += other.hit_tokens;
  for (std::size_t t = 0; t < kReplayTiers; ++t)
    hit_by_tier[t] += other.hit_by_tier[t];
  bytes_stored += other.bytes_stored;
  bytes_restored += other.bytes_restored;
  bytes_verified += other.bytes_verified;
  bytes_mismatched += other.bytes_mismatched;
  reservations += other.reservations;
  granted += other.granted;
  existing += other.existing;
  refused_reservations += other.refused_reservations;
  errors += other.errors;
  restore_seconds += other.restore_seconds;
  prefill_seconds_cold += other.prefill_seconds_cold;
  prefill_seconds += other.prefill_seconds;
  begin_us.insert(begin_us.end(), other.begin_us.begin(), other.begin_us.end());
  wait_us.insert(wait_us.end(), other.wait_us.begin(), other.wait_us.end());
  if (first_error.empty()) first_error = other.first_error;
}

ReplayWorker::ReplayWorker(const ReplaySettings& settings, statecache::Session& session)
    : settings_(settings),
      session_(session),
      patience_(static_cast<Micros::rep>(settings.wait_seconds * 1e6)),
      payload_(seed_of(settings.spec)) {
  for (std::size_t g = 0; g < settings.spec.groups.size() && !counted_group_; ++g) {
    if (settings.spec.groups[g].need == Need::every) counted_group_ = static_cast<std::uint16_t>(g);
  }
}

bool ReplayWorker::ok(const statecache::Status& status, const char* what) {
  if (status.ok()) return true;
  ++totals_.errors;
  if (totals_.first_error.empty()) totals_.first_error = std::string(what) + ": " + status.text;
  return false;
}

PayloadShape ReplayWorker::shape(std::uint16_t group,
                                 std::uint32_t first,
                                 std::uint32_t end) const {
  const Group& layout = settings_.spec.groups[group];
  const std::uint64_t unit =
      layout.need == Need::end ? layout.max_bytes : layout.max_bytes / layout.block_tokens;
  return {group, first, end, unit};
}

/// True: the piece is what it must be. Mismatches are counted by the byte.
bool ReplayWorker::check(const statecache::Piece& piece) {
  if (piece.group >= settings_.spec.groups.size() ||
      std::uint64_t{piece.first} + piece.valid > payload_.tokens()) {
    totals_.bytes_mismatched += piece.bytes;
    return false;
  }
  const PayloadShape expected = shape(piece.group, piece.first, piece.first + piece.valid);
  if (piece.bytes != expected.bytes()) {
    totals_.bytes_mismatched += piece.bytes;
    return false;
  }
  std::uint64_t at = 0;
  std::uint64_t wrong = 0;
  for (const statecache::Extent& extent : piece.where) {
    if (settings_.verify) {
      wrong += payload_.mismatches(expected, at, {extent.data, extent.bytes});
    } else {
      scratch_.resize(std::max(scratch_.size(), extent.bytes));
      std::memcpy(scratch_.data(), extent.data, extent.bytes);
    }
    at += extent.bytes;
  }
  totals_.bytes_restored += at;
  if (settings_.verify) totals_.bytes_verified += at;
  totals_.bytes_mismatched += wrong;
  return wrong == 0 && at == piece.bytes;
}

/// The tokens that may be resumed from: all pieces right and nothing missing, else 0.
std::uint32_t ReplayWorker::check(const statecache::Lease& lease) {
  if (lease.tokens == 0) return 0;
  const auto start = WallClock::now();
  const std::size_t groups = settings_.spec.groups.size();
  // end of what a group has, from its first piece on
  std::vector<std::uint32_t> reach(groups, kUnknown);
  std::array<std::uint64_t, kReplayTiers> by_tier{};
  bool good = true;
  for (const statecache::Piece& piece : lease.pieces) {
    if (!check(piece)) {
      good = false;
      continue;
    }
    std::uint32_t& end = reach[piece.group];
    const Need need = settings_.spec.groups[piece.group].need;
    const std::uint32_t first_needed = need == Need::every ? 0 : piece.first;
    good = good && piece.first == (end == kUnknown ? first_needed : end);
    end = piece.first + piece.valid;
    const auto tier = static_cast<std::size_t>(piece.tier);
    const bool counts = counted_group_ ? piece.group == *counted_group_ : need == Need::end;
    if (counts && tier < kReplayTiers) by_tier[tier] += counted_group_ ? piece.valid : lease.tokens;
  }
  for (const std::uint32_t end : reach)
    good = good && end == lease.tokens;
  totals_.restore_seconds += micros_since(start) * 1e-6;
  if (!good) {
    ok({statecache::Errc::corrupt,
        "a lease of " + std::to_string(lease.tokens) + " tokens without all of its state"},
       "restore");
    return 0;
  }
  for (std::size_t t = 0; t < kReplayTiers; ++t)
    totals_.hit_by_tier[t] += by_tier[t];
  return lease.tokens;
}

std::optional<statecache::Lease> ReplayWorker::restore(statecache::TicketId ticket,
                                                       WallClock::time_point begun) {
  const bool matched = ok(session_.settle(ticket, patience_), "begin");
  totals_.begin_us.push_back(micros_since(begun));
  if (!matched) return std::nullopt;
  const auto asked = WallClock::now();
  auto lease = session_.wait_lease(ticket, patience_);
  totals_.wait_us.push_back(micros_since(asked));
  if (!ok(lease.status(), "lease")) return std::nullopt;
  return std::move(lease).value();
}

void ReplayWorker::save(statecache::TicketId ticket, std::span<const TurnWant> wants) {
  std::vector<statecache::Want> batch;
  std::vector<statecache::Filled> filled;
  for (std::size_t at = 0; at < wants.size(); at += kWantsAtOnce) {
    batch.clear();
    filled.clear();
    for (const TurnWant& want : wants.subspan(at, std::min(kWantsAtOnce, wants.size() - at))) {
      batch.push_back({.group = want.group, .first = want.first, .end = want.end, .bytes = 0});
    }
    totals_.reservations += batch.size();
    if (!ok(session_.reserve(ticket, batch), "reserve")) return;
    const auto slots = session_.wait_slots(ticket, patience_);
    if (!ok(slots.status(), "reserve")) return;
    std::uint64_t bytes = 0;
    for (const statecache::Slot& slot : *slots) {
      if (slot.grant == statecache::Grant::exists || slot.grant == statecache::Grant::in_flight)
        ++totals_.existing;
      if (slot.grant == statecache::Grant::declined || slot.grant == statecache::Grant::no_space)
        ++totals_.refused_reservations;
      if (slot.grant != statecache::Grant::granted) continue;
      const PayloadShape content = shape(slot.group, slot.first, slot.end);
      std::uint64_t written = 0;
      for (const statecache::Extent& extent : slot.where) {
        payload_.fill(content, written, {extent.data, extent.bytes});
        written += extent.bytes;
      }
      bytes += written;
      filled.push_back({.slot = slot.id, .valid = 0});
    }
    totals_.granted += filled.size();
    if (!filled.empty() && ok(session_.commit(filled), "commit")) totals_.bytes_stored += bytes;
  }
}

bool ReplayWorker::run(const TraceRequest& request) {
  const auto prompt = static_cast<std::uint32_t>(request.input.size());
  const auto total = static_cast<std::uint32_t>(request.input.size() + request.output.size());
  payload_.clear();
  payload_.extend(request.input);
  payload_.extend(request.output);
  ++totals_.requests;
  totals_.input_tokens += prompt;

  statecache::Ask ask;
  ask.tokens = request.input;
  statecache::Limits limits;
  limits.hold = statecache::Hold::lease;
  const auto begun = WallClock::now();
  const auto ticket = session_.begin(ask, limits);
  std::uint32_t hit = 0;
  if (ok(ticket.status(), "begin")) {
    if (const auto lease = restore(*ticket, begun)) hit = check(*lease);
    const statecache::Answer answer = session_.poll(*ticket);
    if (answer.state != statecache::State::lost) {
      if (ok(session_.append(*ticket, request.output), "append")) {
        save(*ticket, turn_wants(settings_.spec, hit, total, answer.wishes));
      }
    }
    statecache::Report report;
    report.computed = total;
    report.prefilled = prompt - hit;
    report.prefill = Micros(static_cast<Micros::rep>(
        1e6 * prefill_seconds(settings_.spec.cost, hit, prompt, settings_.engine_flops)));
    ok(session_.finish(*ticket, report), "finish");
    ok(session_.release(*ticket), "release");
  }
  totals_.hit_tokens += hit;
  totals_.prefill_seconds_cold +=
      prefill_seconds(settings_.spec.cost, 0, prompt, settings_.engine_flops);
  totals_.prefill_seconds +=
      prefill_seconds(settings_.spec.cost, hit, prompt, settings_.engine_flops);
  return totals_.errors == 0 || session_.connected();
}

}  // namespace statecached
