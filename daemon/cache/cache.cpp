#include "daemon/cache/cache.hpp"

#include "daemon/cache/cache_impl.hpp"

namespace statecached {

const char* to_string(Reason reason) noexcept {
  switch (reason) {
    case Reason::none:
      return "none";
    case Reason::capacity:
      return "capacity";
    case Reason::quota:
      return "quota";
    case Reason::tainted:
      return "tainted";
    case Reason::read_only:
      return "read_only";
    case Reason::parents_missing:
      return "parents_missing";
    case Reason::not_worth_it:
      return "not_worth_it";
    case Reason::bad_range:
      return "bad_range";
    case Reason::stale_slot:
      return "stale_slot";
    case Reason::too_large:
      return "too_large";
    case Reason::io_error:
      return "io_error";
    case Reason::corrupt:
      return "corrupt";
    case Reason::invalidated:
      return "invalidated";
    case Reason::client_died:
      return "client_died";
    case Reason::superseded:
      return "superseded";
    case Reason::replaced:
      return "replaced";
    case Reason::removed:
      return "removed";
    case Reason::soft_hold_expired:
      return "soft_hold_expired";
    case Reason::count_:
      break;
  }
  return "unknown";
}

const char* to_string(EventKind kind) noexcept {
  switch (kind) {
    case EventKind::stored:
      return "stored";
    case EventKind::durable:
      return "durable";
    case EventKind::demoted:
      return "demoted";
    case EventKind::promoted:
      return "promoted";
    case EventKind::dropped:
      return "dropped";
    case EventKind::refused:
      return "refused";
    case EventKind::count_:
      break;
  }
  return "unknown";
}

namespace {

std::vector<std::uint64_t> region_bytes(const CacheOptions& options) {
  std::vector<std::uint64_t> out;
  for (const RegionOptions& region : options.regions)
    out.push_back(region.bytes);
  if (out.empty()) out.push_back(options.host_bytes);
  return out;
}

}  // namespace

CacheImpl::CacheImpl(CacheOptions options, CacheSeams seams, CacheListener* listener)
    : options_(options),
      seams_(std::move(seams)),
      listener_(listener),
      device_(options.device_bytes),
      host_(region_bytes(options)),
      traits_(traits_of(options.policy.name)),
      victims_{make_eviction(options.policy, Tier::device, &reuse_),
               make_eviction(options.policy, Tier::host, &reuse_),
               make_eviction(options.policy, Tier::nvme, &reuse_)} {
  for (const auto& victims : victims_)
    victims->sees(index_);
  if (options_.policy.name == PolicyName::marconi_paper && !options_.policy.alpha) {
    const std::uint64_t bytes =
        options_.device_bytes > 0 ? options_.device_bytes : options_.host_bytes;
    tuner_ = std::make_unique<Tuner>(static_cast<double>(bytes), options_.background);
  }
  SC_ASSERT(options_.device_bytes > 0 || options_.host_bytes > 0);
  // Between several tiers the prior decides.
  traits_.learns = traits_.learns && !(options_.host_bytes > 0 &&
                                       (options_.device_bytes > 0 || !seams_.disks.empty()));
  if (traits_.learns) {
    index_.remember(kRememberedTokens);
  } else {
    reuse_.only_prior();
  }
  SC_ASSERT(seams_.disks.empty() == (seams_.catalog == nullptr));
  SC_ASSERT(seams_.disks.empty() || options_.host_bytes > 0);
  for (const Disk* disk : seams_.disks)
    disks_.emplace_back(disk->capacity());
  disk_backlog_.resize(disks_.size());
  disk_setbacks_.resize(disks_.size());
  health_.resize(disks_.size(), DiskHealth::good);
  load_time_ = LoadTime(options_.nvme_bytes_per_second);
  set_up_tenants();
}

Cache::Cache(CacheOptions options, CacheSeams seams, CacheListener* listener)
    : impl_(std::make_unique<CacheImpl>(options, std::move(seams), listener)) {}

Cache::~Cache() = default;

std::optional<double> Cache::alpha() const {
  const PolicyOptions& policy = impl_->options_.policy;
  if (policy.name != PolicyName::marconi_paper) return std::nullopt;
  return impl_->tuner_ ? impl_->tuner_->alpha() : policy.alpha;
}

Result<std::uint64_t> Cache::recover(Instant now, std::int64_t wall_now) {
  return impl_->recover(now, wall_now);
}

Result<> Cache::recover_begin(Instant now, std::int64_t wall_now) {
  return impl_->recover_begin(now, wall_now);
}

bool Cache::recovering() const noexcept {
  return impl_->recovery_ != nullptr;
}

std::uint64_t Cache::recovered() const noexcept {
  return impl_->recovered_;
}

void Cache::adopt(Instant now) {
  impl_->adopt(now);
  impl_->pump();
}

void Cache::settle(std::span<const Extent> in_use, bool all, Instant now) {
  impl_->settle(in_use, all, now);
}

KeptStatus Cache::kept() const {
  return impl_->kept();
}

Result<ClientIx> Cache::attach(const NamespaceSpec& spec, MemberInfo member, Instant now) {
  return impl_->attach(spec, std::move(member), now);
}

NamespaceIx Cache::namespace_of(ClientIx client) const {
  return impl_->clients_.at(client).space;
}

std::uint32_t Cache::generation(NamespaceIx ns) const {
  return impl_->spaces_.at(ns).generation;
}

const MemberInfo& Cache::member(ClientIx client) const {
  return impl_->clients_.at(client).member;
}

void Cache::detach(ClientIx client, Instant now) {
  impl_->detach(client, now);
}

Result<const Answer*> Cache::begin(ClientIx client,
                                   const TicketName& name,
                                   const BeginRequest& request,
                                   Instant now) {
  auto answer = impl_->begin(client, name, request, now);
  impl_->pump();
  return answer;
}

Result<const Answer*> Cache::refresh(ClientIx client, const TicketName& name, Instant now) {
  auto answer = impl_->refresh(client, name, now);
  impl_->pump();
  return answer;
}

Result<const Answer*> Cache::answer(const TicketName& name) const {
  const Ticket* ticket = impl_->find_ticket(name);
  if (ticket == nullptr) return fail(Errc::not_found, "no such ticket");
  return &ticket->answer;
}

Result<> Cache::join(ClientIx client, const TicketName& name, Instant now) {
  return impl_->join(client, name, now);
}

Result<const Lease*> Cache::acquire(ClientIx client,
                                    const TicketName& name,
                                    std::uint32_t at_most,
                                    Have have,
                                    Instant now) {
  return impl_->acquire(client, name, at_most, have, now);
}

const Lease* Cache::lease(const TicketName& name) const {
  const Ticket* ticket = impl_->find_ticket(name);
  return ticket != nullptr && ticket->lease ? &*ticket->lease : nullptr;
}

Result<> Cache::append(ClientIx client,
                       const TicketName& name,
                       std::span<const Token> tokens,
                       std::span<const Mark> marks,
                       std::uint32_t computed,
                       Instant now) {
  static_cast<void>(now);
  return impl_->append(name, client, tokens, marks, computed);
}

Result<> Cache::append_keys(ClientIx client,
                            const TicketName& name,
                            std::span<const Digest> keys,
                            std::uint32_t computed) {
  return impl_->append_keys(name, client, keys, computed);
}

Result<std::vector<SlotGrant>> Cache::reserve(ClientIx client,
                                              const TicketName& name,
                                              std::span<const WantItem> wants,
                                              Instant now) {
  std::vector<SlotGrant> out;
  SC_TRY(impl_->reserve(client, name, wants, now, out));
  return out;
}

Result<> Cache::reserve(ClientIx client,
                        const TicketName& name,
                        std::span<const WantItem> wants,
                        Instant now,
                        std::vector<SlotGrant>& out) {
  return impl_->reserve(client, name, wants, now, out);
}

bool Cache::commit(ClientIx client, const Filled& filled, Instant now) {
  return impl_->commit(client, filled, now);
}

bool Cache::hand(SlotId slot, ClientIx to) {
  return impl_->hand(slot, to);
}

bool Cache::stage(ClientIx client,
                  const Filled& filled,
                  StagedBytes bytes,
                  std::uint64_t token,
                  Instant now) {
  return impl_->stage(client, filled, std::move(bytes), token, now);
}

bool Cache::abandon(ClientIx client, SlotId slot, Instant now) {
  return impl_->abandon(client, slot, now);
}

Result<> Cache::taint(ClientIx client, const TicketName& name, Instant now) {
  static_cast<void>(now);
  SC_ASSIGN(Ticket * ticket, impl_->ticket_of(client, name));
  ticket->tainted = true;
  return {};
}

Result<> Cache::finish(ClientIx client,
                       const TicketName& name,
                       std::uint32_t computed,
                       std::uint32_t prefilled,
                       Nanos prefill,
                       Instant now) {
  static_cast<void>(computed);
  return impl_->finish(client, name, prefilled, prefill, now);
}

Result<> Cache::release(ClientIx client, const TicketName& name, Instant now) {
  return impl_->release(client, name, false, now);
}

Result<> Cache::cancel(ClientIx client, const TicketName& name, Instant now) {
  return impl_->release(client, name, true, now);
}

Result<> Cache::invalidate(ClientIx client, Instant now) {
  return impl_->invalidate(client, now);
}

std::span<const ClientIx> Cache::members(const TicketName& name) const {
  const Ticket* ticket = impl_->find_ticket(name);
  return ticket == nullptr ? std::span<const ClientIx>{}
                           : std::span<const ClientIx>(ticket->joined);
}

std::size_t Cache::step(Instant now) {
  return impl_->step(now);
}

bool Cache::busy() const noexcept {
  return impl_->busy();
}

void Cache::flush(std::function<void(const FlushReport&)> done, Instant now) {
  impl_->flush(std::move(done), now);
}

void Cache::verify(std::function<void(const VerifyReport&)> done) {
  impl_->verify(std::move(done));
}

void Cache::remove_namespace(NamespaceIx ns, std::function<void(std::uint64_t)> done, Instant now) {
  impl_->remove_namespace(ns, std::move(done), now);
}

void Cache::set_draining(bool draining) noexcept {
  impl_->draining_ = draining;
}

TierStatus Cache::tier(Tier tier) const {
  return impl_->tier_status(tier);
}

const CacheCounters& Cache::counters() const noexcept {
  return impl_->counters_;
}

std::vector<NamespaceStatus> Cache::namespaces() const {
  std::vector<NamespaceStatus> out;
  for (NamespaceIx ns = 0; ns < impl_->spaces_.size(); ++ns) {
    const SpaceInfo& space = impl_->spaces_[ns];
    NamespaceStatus status;
    status.ix = ns;
    status.name = impl_->display_name(ns);
    status.fingerprint = space.fingerprint;
    status.generation = space.generation;
    status.clients = space.clients;
    status.objects = space.objects;
    status.bytes = space.bytes;
    out.push_back(std::move(status));
  }
  std::erase_if(out, [&](const NamespaceStatus& status) {
    const SpaceInfo& space = impl_->spaces_[status.ix];
    return space.removed || space.spec.name.empty();
  });
  return out;
}

const Histogram& Cache::wait_error() const noexcept {
  return impl_->wait_error_;
}

std::vector<TenantStatus> Cache::tenants() const {
  return impl_->tenant_statuses();
}

std::uint64_t Cache::remove_tenant(std::uint32_t tenant, Instant now) {
  return impl_->remove_tenant(tenant, now);
}

std::string Cache::display_name(NamespaceIx ns) const {
  return impl_->display_name(ns);
}

Result<NamespaceIx> Cache::find_namespace(std::string_view name) const {
  return impl_->find_namespace(name);
}

std::vector<ObjectStatus> Cache::objects(std::optional<NamespaceIx> ns,
                                         std::optional<Tier> tier,
                                         Sort sort,
                                         std::size_t limit,
                                         Instant now) const {
  ListJob job;
  job.wish = {ns, tier, sort, limit};
  while (!impl_->list_some(job, now)) {
  }
  return std::move(job.found);
}

void Cache::list(const ListWish& wish, std::function<void(std::vector<ObjectStatus>)> done) {
  impl_->list(wish, std::move(done));
}

Result<std::vector<ExplainRow>> Cache::explain(NamespaceIx ns,
                                               std::span<const Token> tokens,
                                               Instant now) const {
  if (ns >= impl_->spaces_.size()) return fail(Errc::not_found, "no such namespace");
  if (impl_->spaces_[ns].spec.addressing == Addressing::keys) {
    return fail(
        Errc::unsupported,
        "this namespace is addressed by keys, not by tokens: name the object that ends the prefix");
  }
  const auto& domains = impl_->spaces_[ns].domains;
  const auto plain = domains.find(Domain{});
  if (plain == domains.end()) return std::vector<ExplainRow>{};
  std::vector<NodeIx> path;
  const Position end = impl_->index_.match({plain->second.root, 0}, {tokens, {}, 0}, &path);
  return impl_->explain(path, end, static_cast<std::uint32_t>(tokens.size()), ns, now);
}

Result<std::vector<ExplainRow>> Cache::explain(NamespaceIx ns,
                                               const ObjectId& id,
                                               Instant now) const {
  for (ObjectIx o = 0; o < impl_->index_.object_slots(); ++o) {
    const Object& object = impl_->index_.object(o);
    if (object.state != ObjectState::visible || object.space != ns || impl_->residents_[o].id != id)
      continue;
    std::vector<NodeIx> path;
    for (NodeIx n = object.node; impl_->index_.node(n).parent != kNil;
         n = impl_->index_.node(n).parent)
      path.insert(path.begin(), n);
    return impl_->explain(path, {object.node, object.end}, object.end, ns, now);
  }
  return fail(Errc::not_found,
              "no object of this namespace has this id: `statecachectl ls` lists them");
}

std::uint64_t Cache::bytes_held(ClientIx client) const {
  return impl_->clients_.at(client).leased_bytes;
}

std::uint64_t Cache::tickets() const noexcept {
  return impl_->tickets_.size();
}

Result<> Cache::audit() const {
  return impl_->audit();
}

}  // namespace statecached
