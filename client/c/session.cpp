// The C API: attaching, asking, ending, operators. Lists of pieces, slots and points are in
// lists.cpp.

#include "client/c/structs.hpp"

#include "statecache/admin.hpp"

using namespace statecache;     // NOLINT(google-build-using-namespace): this file is its mirror
using namespace statecache::c;  // NOLINT(google-build-using-namespace)

namespace {

statecache_code to_spec(const statecache_namespace* from, NamespaceSpec& out) {
  statecache_namespace space = STATECACHE_NAMESPACE_INIT;
  SC_C_TRY(take(from, space));
  if (space.name == nullptr) return bad_argument("the namespace has no name");
  if (space.key_bytes > 255 || space.addressing > STATECACHE_BY_KEYS) {
    return bad_argument("addressing or key_bytes out of range");
  }
  out.name = space.name;
  out.model = to_digest(space.model);
  out.layout = to_digest(space.layout);
  std::vector<statecache_group> groups;
  SC_C_TRY(take_all(space.groups, space.group_count, groups));
  for (const statecache_group& group : groups) {
    if (group.name == nullptr) return bad_argument("a group has no name");
    if (group.need > STATECACHE_END) return bad_argument("a group with an unknown need");
    Group& to = out.groups.emplace_back();
    to.name = group.name;
    to.need = static_cast<Need>(group.need);
    to.block_tokens = group.block_tokens;
    to.window = group.window;
    to.lookahead = group.lookahead;
    to.max_bytes = group.max_bytes;
    to.shards = group.shards;
    to.contiguous = group.contiguous != 0;
    to.token_major = group.token_major != 0;
  }
  out.resume_grid = space.resume_grid;
  out.checkpoint_grid = space.checkpoint_grid;
  out.checkpoints_per_chunk = space.checkpoints_per_chunk;
  out.addressing = static_cast<Addressing>(space.addressing);
  out.tokens_per_key = space.tokens_per_key;
  out.key_bytes = static_cast<std::uint8_t>(space.key_bytes);
  if (space.cost != nullptr) {
    statecache_cost cost = STATECACHE_COST_INIT;
    SC_C_TRY(take(space.cost, cost));
    out.cost = Cost{cost.c0, cost.c1, cost.c2, cost.window_c2, cost.window};
  }
  return STATECACHE_OK;
}

statecache_code to_member(const statecache_member* from, Member& out) {
  statecache_member member = STATECACHE_MEMBER_INIT;
  SC_C_TRY(take(from, member));
  out.engine = to_digest(member.engine);
  out.rank = member.rank;
  out.world = member.world;
  if (member.shard_count != 0) {
    if (member.shards == nullptr) return null_pointer();
    out.shard.assign(member.shards, member.shards + member.shard_count);
  }
  if (member.program != nullptr) out.program = member.program;
  return STATECACHE_OK;
}

statecache_code to_domain(const statecache_domain* from, Domain& out) noexcept {
  if (from == nullptr) return STATECACHE_OK;
  statecache_domain domain = STATECACHE_DOMAIN_INIT;
  SC_C_TRY(take(from, domain));
  out = Domain{to_digest(domain.adapter), to_digest(domain.salt)};
  return STATECACHE_OK;
}

statecache_code to_limits(const statecache_limits* from, Limits& out) noexcept {
  if (from == nullptr) return STATECACHE_OK;
  statecache_limits limits = STATECACHE_LIMITS_INIT;
  SC_C_TRY(take(from, limits));
  if (limits.hold > STATECACHE_HOLD_LEASE) return bad_argument("an unknown hold");
  out.have = Have{limits.have_every, limits.have_end};
  out.hold = static_cast<Hold>(limits.hold);
  out.keep_back = limits.keep_back;
  out.at_most = limits.at_most;
  out.deadline = to_micros(limits.deadline_us);
  out.priority = limits.priority;
  out.members = limits.members;
  return STATECACHE_OK;
}

statecache_code to_marks(const statecache_mark* from, std::size_t count, std::vector<Mark>& out) {
  std::vector<statecache_mark> marks;
  SC_C_TRY(take_all(from, count, marks));
  for (const statecache_mark& mark : marks) {
    out.push_back(Mark{mark.at, mark.length, to_digest(mark.content), mark.atomic != 0});
  }
  return STATECACHE_OK;
}

statecache_code to_keys(const statecache_digest* from,
                        std::size_t count,
                        std::vector<Digest>& out) {
  if (count != 0 && from == nullptr) return bad_argument("a null array");
  out.reserve(count);
  for (std::size_t i = 0; i < count; ++i)
    out.push_back(to_digest(from[i]));
  return STATECACHE_OK;
}

statecache_code began(Result<TicketId> ticket, statecache_ticket* out) noexcept {
  if (!ticket) return failed(ticket.status());
  *out = *ticket;
  return STATECACHE_OK;
}

struct AdminArguments {
  std::vector<std::string> arguments;
  std::span<const Token> tokens;
};

statecache_code to_admin(const char* socket_path,
                         const char* command,
                         const char* const* arguments,
                         std::size_t argument_count,
                         const std::uint32_t* tokens,
                         std::size_t token_count,
                         AdminArguments& out) {
  const bool holes =
      (argument_count != 0 && arguments == nullptr) || (token_count != 0 && tokens == nullptr);
  if (socket_path == nullptr || command == nullptr || holes) return null_pointer();
  for (std::size_t i = 0; i < argument_count; ++i) {
    if (arguments[i] == nullptr) return null_pointer();
    out.arguments.emplace_back(arguments[i]);
  }
  if (token_count != 0) out.tokens = {tokens, token_count};
  return STATECACHE_OK;
}

std::chrono::milliseconds limit_or(std::int64_t us, std::chrono::milliseconds otherwise) noexcept {
  if (us <= 0) return otherwise;
  return std::chrono::ceil<std::chrono::milliseconds>(Micros(us));
}

}  // namespace

extern "C" {

statecache_code statecache_attach(const char* socket_path,
                                  const statecache_namespace* space,
                                  const statecache_member* member,
                                  int64_t timeout_us,
                                  statecache_session** session) noexcept {
  if (socket_path == nullptr || session == nullptr) return null_pointer();
  return guarded([&]() -> statecache_code {
    NamespaceSpec spec;
    Member self;
    SC_C_TRY(to_spec(space, spec));
    SC_C_TRY(to_member(member, self));
    const Micros timeout = timeout_us <= 0 ? Micros(std::chrono::seconds(10)) : Micros(timeout_us);
    auto attached = Session::attach(socket_path, spec, self, timeout);
    if (!attached) return failed(attached.status());
    *session = new statecache_session{std::move(*attached)};
    return STATECACHE_OK;
  });
}

void statecache_detach(statecache_session* session) noexcept {
  delete session;
}

int statecache_connected(const statecache_session* session) noexcept {
  return session != nullptr && session->session.connected() ? 1 : 0;
}

const char* statecache_name(const statecache_session* session) noexcept {
  return session == nullptr ? "" : session->session.name().c_str();
}

uint64_t statecache_epoch(const statecache_session* session) noexcept {
  return session == nullptr ? 0 : session->session.epoch();
}

int statecache_writable(const statecache_session* session) noexcept {
  return session != nullptr && session->session.writable() ? 1 : 0;
}

statecache_code statecache_get_counters(const statecache_session* session,
                                        statecache_counters* out) noexcept {
  if (session == nullptr) return null_pointer();
  statecache_counters ours = STATECACHE_COUNTERS_INIT;
  SC_C_TRY(open_output(out, ours));
  const Counters counters = session->session.counters();
  ours.posted = counters.posted;
  ours.busy = counters.busy;
  ours.errors = counters.errors;
  ours.committed = counters.committed;
  ours.refused = counters.refused;
  ours.returned = counters.returned;
  write_output(ours, out);
  return STATECACHE_OK;
}

statecache_code statecache_begin(statecache_session* session,
                                 const statecache_ask* ask,
                                 const statecache_limits* limits,
                                 statecache_ticket* ticket) noexcept {
  if (session == nullptr || ticket == nullptr) return null_pointer();
  return guarded([&]() -> statecache_code {
    statecache_ask from = STATECACHE_ASK_INIT;
    SC_C_TRY(take(ask, from));
    if (from.token_count != 0 && from.tokens == nullptr) return null_pointer();
    Ask to;
    std::vector<Mark> marks;
    SC_C_TRY(to_marks(from.marks, from.mark_count, marks));
    SC_C_TRY(to_domain(from.domain, to.domain));
    if (from.token_count != 0) to.tokens = {from.tokens, from.token_count};
    to.marks = marks;
    to.parent = from.parent;
    to.parent_tokens = from.parent_tokens;
    Limits with;
    SC_C_TRY(to_limits(limits, with));
    return began(session->session.begin(to, with), ticket);
  });
}

statecache_code statecache_begin_keys(statecache_session* session,
                                      const statecache_key_run* run,
                                      const statecache_limits* limits,
                                      statecache_ticket* ticket) noexcept {
  if (session == nullptr || ticket == nullptr) return null_pointer();
  return guarded([&]() -> statecache_code {
    statecache_key_run from = STATECACHE_KEY_RUN_INIT;
    SC_C_TRY(take(run, from));
    std::vector<Digest> keys;
    SC_C_TRY(to_keys(from.keys, from.key_count, keys));
    KeyRun to;
    SC_C_TRY(to_domain(from.domain, to.domain));
    to.keys = keys;
    if (from.parent != nullptr) to.parent = to_digest(*from.parent);
    to.first_token = from.first_token;
    Limits with;
    SC_C_TRY(to_limits(limits, with));
    return began(session->session.begin(to, with), ticket);
  });
}

statecache_code statecache_refresh(statecache_session* session,
                                   const statecache_ticket* tickets,
                                   size_t count) noexcept {
  if (session == nullptr || (count != 0 && tickets == nullptr)) return null_pointer();
  return failed(session->session.refresh(std::span<const TicketId>(tickets, count)));
}

statecache_code statecache_acquire(statecache_session* session,
                                   statecache_ticket ticket,
                                   uint32_t at_most,
                                   const statecache_have* have) noexcept {
  if (session == nullptr) return null_pointer();
  statecache_have from = STATECACHE_HAVE_INIT;
  if (have != nullptr) SC_C_TRY(take(have, from));
  return failed(session->session.acquire(ticket, at_most, Have{from.every, from.end}));
}

statecache_code statecache_get_ref(const statecache_session* session,
                                   statecache_ticket ticket,
                                   statecache_ref* ref) noexcept {
  if (session == nullptr || ref == nullptr) return null_pointer();
  const auto name = session->session.ref(ticket);
  if (!name) return failed(name.status());
  *ref = statecache_ref{name->low, name->high};
  return STATECACHE_OK;
}

statecache_code statecache_join(statecache_session* session,
                                const statecache_ref* ref,
                                statecache_ticket* ticket) noexcept {
  if (session == nullptr || ref == nullptr || ticket == nullptr) return null_pointer();
  return began(session->session.join(TicketRef{ref->low, ref->high}), ticket);
}

statecache_code statecache_append(statecache_session* session,
                                  statecache_ticket ticket,
                                  const uint32_t* tokens,
                                  size_t token_count,
                                  const statecache_mark* marks,
                                  size_t mark_count,
                                  uint32_t computed) noexcept {
  if (session == nullptr || (token_count != 0 && tokens == nullptr)) return null_pointer();
  return guarded([&]() -> statecache_code {
    std::vector<Mark> converted;
    SC_C_TRY(to_marks(marks, mark_count, converted));
    return failed(session->session.append(
        ticket, std::span<const Token>(tokens, token_count), converted, computed));
  });
}

statecache_code statecache_append_keys(statecache_session* session,
                                       statecache_ticket ticket,
                                       const statecache_digest* keys,
                                       size_t key_count,
                                       uint32_t computed) noexcept {
  if (session == nullptr) return null_pointer();
  return guarded([&]() -> statecache_code {
    std::vector<Digest> converted;
    SC_C_TRY(to_keys(keys, key_count, converted));
    return failed(session->session.append_keys(ticket, converted, computed));
  });
}

statecache_code statecache_taint(statecache_session* session, statecache_ticket ticket) noexcept {
  return session == nullptr ? null_pointer() : failed(session->session.taint(ticket));
}

statecache_code statecache_finish(statecache_session* session,
                                  statecache_ticket ticket,
                                  const statecache_report* report) noexcept {
  if (session == nullptr) return null_pointer();
  statecache_report from = STATECACHE_REPORT_INIT;
  if (report != nullptr) SC_C_TRY(take(report, from));
  return failed(session->session.finish(
      ticket, Report{from.computed, from.prefilled, to_micros(from.prefill_us)}));
}

statecache_code statecache_release(statecache_session* session, statecache_ticket ticket) noexcept {
  return session == nullptr ? null_pointer() : failed(session->session.release(ticket));
}

statecache_code statecache_cancel(statecache_session* session, statecache_ticket ticket) noexcept {
  return session == nullptr ? null_pointer() : failed(session->session.cancel(ticket));
}

statecache_code statecache_invalidate(statecache_session* session) noexcept {
  return session == nullptr ? null_pointer() : failed(session->session.invalidate());
}

statecache_code statecache_settle(statecache_session* session,
                                  statecache_ticket ticket,
                                  int64_t timeout_us) noexcept {
  return session == nullptr ? null_pointer()
                            : failed(session->session.settle(ticket, to_micros(timeout_us)));
}

statecache_code statecache_drain(statecache_session* session, int64_t timeout_us) noexcept {
  return session == nullptr ? null_pointer()
                            : failed(session->session.drain(to_micros(timeout_us)));
}

statecache_code statecache_admin(const char* socket_path,
                                 const char* command,
                                 const char* const* arguments,
                                 size_t argument_count,
                                 const uint32_t* tokens,
                                 size_t token_count,
                                 int64_t timeout_us,
                                 char** json) noexcept {
  if (json == nullptr) return null_pointer();
  return guarded([&]() -> statecache_code {
    AdminArguments with;
    SC_C_TRY(to_admin(socket_path, command, arguments, argument_count, tokens, token_count, with));
    const auto reply = admin(socket_path,
                             command,
                             with.arguments,
                             with.tokens,
                             limit_or(timeout_us, std::chrono::minutes(10)));
    if (!reply) return failed(reply.status());
    char* copy = new char[reply->size() + 1];
    std::memcpy(copy, reply->c_str(), reply->size() + 1);
    *json = copy;
    return STATECACHE_OK;
  });
}

void statecache_free(char* text) noexcept {
  delete[] text;
}

statecache_code statecache_admin_stream(const char* socket_path,
                                        const char* command,
                                        const char* const* arguments,
                                        size_t argument_count,
                                        const uint32_t* tokens,
                                        size_t token_count,
                                        int (*each)(void* user, const char* json),
                                        void* user,
                                        int64_t idle_us) noexcept {
  if (each == nullptr) return null_pointer();
  return guarded([&]() -> statecache_code {
    AdminArguments with;
    SC_C_TRY(to_admin(socket_path, command, arguments, argument_count, tokens, token_count, with));
    const auto tell = [&](std::string_view json) {
      return each(user, std::string(json).c_str()) != 0;
    };
    return failed(admin_stream(socket_path,
                               command,
                               with.arguments,
                               with.tokens,
                               tell,
                               limit_or(idle_us, std::chrono::hours(24))));
  });
}

}  // extern "C"
