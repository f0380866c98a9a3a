// Tenants: what each has in which tier, what it may have, and which arena is whose.

#include "daemon/cache/cache_impl.hpp"

#include <algorithm>
#include <utility>

namespace statecached {

void CacheImpl::set_up_tenants() {
  for (const TenantOptions& tenant : options_.tenants) {
    TenantStatus status;
    status.options = tenant;
    tenants_.push_back(status);
  }
  if (tenants_.empty()) tenants_.emplace_back();
  const std::size_t regions = host_.count();
  SC_ASSERT(regions == 1 || regions == options_.regions.size());
  SC_ASSERT(regions == 1 || !present(Tier::device));  // one device memory cannot be told apart
  for (std::size_t region = 0; region < regions; ++region) {
    std::vector<bool> may;
    for (const TenantStatus& tenant : tenants_) {
      may.push_back(regions == 1 ||
                    tenant.options.trust_domain == options_.regions[region].trust_domain);
    }
    region_tenants_.push_back(std::move(may));
  }
  if (tenants_.size() == 1) return;
  for (const Tier tier : {Tier::device, Tier::host, Tier::nvme}) {
    auto victims = std::make_unique<TenantEviction>(
        tenants_.size(),
        options_.policy.name != PolicyName::marconi,
        [&] { return make_eviction(options_.policy, tier, &reuse_); },
        [this](NodeIx node) { return tenant_of(node); },
        [this, tier](std::uint32_t tenant) {
          return tenants_[tenant].bytes[index(tier)] > tenants_[tenant].options.quota;
        });
    tenant_victims_[index(tier)] = victims.get();
    victims->sees(index_);
    victims_[index(tier)] = std::move(victims);
  }
}

void CacheImpl::focus_on(std::size_t region) {
  if (host_.count() == 1) return;
  host_.focus(region);
  if (tenant_victims_[index(Tier::host)] == nullptr) return;
  tenant_victims_[index(Tier::host)]->scope(region == Regions::kAll ? std::vector<bool>{}
                                                                    : region_tenants_[region]);
}

std::size_t CacheImpl::region_of(NamespaceIx ns) const {
  for (std::size_t region = 0; region < options_.regions.size(); ++region) {
    if (options_.regions[region].trust_domain == spaces_[ns].trust_domain) return region;
  }
  return 0;  // of a domain that is configured no more: nobody attaches to it
}

/// Whose a segment is: who stored its tail.
std::uint32_t CacheImpl::tenant_of(NodeIx ix) const {
  const Node& node = index_.node(ix);
  return node.objects.empty() ? 0 : residents_[node.objects.back()].tenant;
}

/// Whom a row names. Who is configured no more, or has moved to another trust domain, is nobody.
std::uint32_t CacheImpl::tenant_named(std::uint32_t key, NamespaceIx ns) const {
  for (std::uint32_t t = 0; key != 0 && t < tenants_.size(); ++t) {
    const TenantOptions& tenant = tenants_[t].options;
    if (tenant.key == key && tenant.trust_domain == spaces_[ns].trust_domain) return t;
  }
  return default_tenant(ns);
}

/// Who answers for what nobody stored that is still known.
std::uint32_t CacheImpl::default_tenant(NamespaceIx ns) const {
  // The last is `default`, which has the domain of all that name none.
  for (std::size_t t = tenants_.size(); t-- > 0;) {
    if (tenants_[t].options.trust_domain == spaces_[ns].trust_domain)
      return static_cast<std::uint32_t>(t);
  }
  return static_cast<std::uint32_t>(tenants_.size() - 1);
}

/// Gives up segments of this tenant alone.
std::uint64_t CacheImpl::evict_own(std::uint32_t tenant,
                                   Tier tier,
                                   std::uint64_t bytes,
                                   Instant now) {
  TenantEviction* const victims = tenant_victims_[index(tier)];
  if (victims == nullptr) return evict(tier, bytes, now);
  std::vector<bool> alone(tenants_.size(), false);
  alone[tenant] = true;
  victims->scope(alone);
  const std::uint64_t freed = evict(tier, bytes, now);
  victims->scope({});
  return freed;
}

/// Whether a tenant may have so many more bytes in a tier, after giving up what it can of its own.
bool CacheImpl::make_quota_room(std::uint32_t tenant, Tier tier, std::uint64_t bytes, Instant now) {
  const std::uint64_t quota = tenants_.at(tenant).options.quota;
  if (quota == UINT64_MAX) return true;
  const auto over = [&] {
    const std::uint64_t would =
        tenants_[tenant].bytes[index(tier)] + tenants_[tenant].writing + bytes;
    return would > quota ? would - quota : 0;
  };
  if (over() > 0) {
    const std::uint64_t freed = evict_own(tenant, tier, over(), now);
    static_cast<void>(freed);
    // The scope of the caller's own search for room.
    if (host_.count() > 1 && tier == Tier::host) {
      for (std::size_t region = 0; region < region_tenants_.size(); ++region) {
        if (region_tenants_[region][tenant]) focus_on(region);
      }
    }
  }
  return over() == 0;
}

/// Loads and recovery may bring a tenant over its quota; here it comes back under it.
void CacheImpl::enforce_quotas(Instant now) {
  for (std::uint32_t t = 0; t < tenants_.size(); ++t) {
    const std::uint64_t quota = tenants_[t].options.quota;
    if (quota == UINT64_MAX) continue;
    // What it has only in memory cannot be given up: near its quota all of it goes to NVMe ahead of
    // time.
    const std::size_t h = index(Tier::host);
    if (tenant_victims_[h] != nullptr && present(Tier::nvme) &&
        tenants_[t].bytes[h] > quota / 4 * 3) {
      std::vector<bool> alone(tenants_.size(), false);
      alone[t] = true;
      tenant_victims_[h]->scope(alone);
      const NvmeWrite usual = std::exchange(options_.policy.nvme_write, NvmeWrite::through);
      write_behind(now);
      options_.policy.nvme_write = usual;
      tenant_victims_[h]->scope({});
    }
    for (const Tier tier : {Tier::device, Tier::host, Tier::nvme}) {
      const std::uint64_t has = tenants_[t].bytes[index(tier)];
      // Before the last row of the catalog nobody knows what hangs on what there.
      if (!present(tier) || has <= quota || (tier == Tier::nvme && recovery_ != nullptr)) continue;
      only_clean_ = true;
      const std::uint64_t freed = evict_own(t, tier, has - quota, now);
      only_clean_ = false;
      static_cast<void>(freed);  // what is held or not yet written goes later
    }
  }
}

std::vector<TenantStatus> CacheImpl::tenant_statuses() const {
  std::vector<TenantStatus> out = tenants_;
  for (const ClientInfo& client : clients_) {
    if (client.attached) ++out[client.member.tenant].clients;
  }
  for (ObjectIx o = 0; o < index_.object_slots(); ++o) {
    if (index_.object(o).state == ObjectState::visible) ++out[residents_[o].tenant].objects;
  }
  return out;
}

std::uint64_t CacheImpl::remove_tenant(std::uint32_t tenant, Instant now) {
  std::uint64_t count = 0;
  for (ObjectIx o = 0; o < index_.object_slots(); ++o) {
    if (index_.object(o).state != ObjectState::visible || residents_[o].tenant != tenant) continue;
    ++count;
    forget_below(o, Reason::removed, now);
  }
  return count;
}

}  // namespace statecached
