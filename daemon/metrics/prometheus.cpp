#include "daemon/metrics/prometheus.hpp"

#include <fmt/format.h>

#include <iterator>

namespace statecached {
namespace {

constexpr std::array kTierOrder{Tier::device, Tier::host, Tier::nvme};

/// Appends families; one instance a page.
class Page {
 public:
  void family(std::string_view name, std::string_view type, std::string_view help) {
    name_ = name;
    add("# HELP statecached_{} {}\n# TYPE statecached_{} {}\n", name, help, name, type);
  }

  template <class Value>
  void value(Value v) {
    add("statecached_{} {}\n", name_, v);
  }

  template <class Value>
  void value(std::string_view labels, Value v) {
    add("statecached_{}{{{}}} {}\n", name_, labels, v);
  }

  template <class Value>
  void single(std::string_view name, std::string_view type, std::string_view help, Value v) {
    family(name, type, help);
    value(v);
  }

  void counter(std::string_view name, std::string_view help, std::uint64_t v) {
    single(name, "counter", help, v);
  }

  void gauge(std::string_view name, std::string_view help, std::uint64_t v) {
    single(name, "gauge", help, v);
  }

  /// Nanoseconds in, seconds out.
  void histogram(std::string_view name, std::string_view help, const Histogram& h) {
    family(name, "histogram", help);
    static constexpr std::array<std::uint64_t, 12> kBounds{1'000,
                                                           2'500,
                                                           5'000,
                                                           10'000,
                                                           25'000,
                                                           50'000,
                                                           100'000,
                                                           250'000,
                                                           1'000'000,
                                                           10'000'000,
                                                           100'000'000,
                                                           1'000'000'000};
    for (const std::uint64_t bound : kBounds) {
      add("statecached_{}_bucket{{le=\"{}\"}} {}\n",
          name,
          static_cast<double>(bound) * 1e-9,
          h.count_up_to(bound));
    }
    add("statecached_{}_bucket{{le=\"+Inf\"}} {}\n", name, h.count());
    add("statecached_{}_sum {}\n", name, static_cast<double>(h.sum()) * 1e-9);
    add("statecached_{}_count {}\n", name, h.count());
  }

  [[nodiscard]] std::string take() { return std::move(text_); }

 private:
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
  }

  std::string name_;
  std::string text_;
};

std::string label(std::string_view key, std::string_view value) {
  return fmt::format("{}=\"{}\"", key, value);
}

template <class Get>
void by_tier(Page& page,
             std::string_view name,
             std::string_view type,
             std::string_view help,
             Get get) {
  page.family(name, type, help);
  for (const Tier tier : kTierOrder)
    page.value(label("tier", to_string(tier)), get(index(tier)));
}

void tiers(Page& page, const Snapshot& s) {
  by_tier(page, "tier_capacity_bytes", "gauge", "Size of a tier.", [&](std::size_t t) {
    return s.tiers[t].capacity;
  });
  by_tier(page,
          "tier_used_bytes",
          "gauge",
          "Allocated in a tier, padding included.",
          [&](std::size_t t) { return s.tiers[t].used; });
  by_tier(page, "tier_peak_bytes", "gauge", "Most ever allocated in a tier.", [&](std::size_t t) {
    return s.tiers[t].peak;
  });
  by_tier(
      page, "tier_held_bytes", "gauge", "Under leases and open reservations.", [&](std::size_t t) {
        return s.tiers[t].held_bytes;
      });
  by_tier(page, "tier_objects", "gauge", "Objects in a tier.", [&](std::size_t t) {
    return s.tiers[t].objects;
  });
}

void cache(Page& page, const CacheCounters& c) {
  page.counter("requests_total", "Requests begun.", c.requests);
  page.counter("input_tokens_total", "Tokens of all prompts.", c.input_tokens);
  by_tier(page,
          "hit_tokens_total",
          "counter",
          "Tokens leased, by the tier that had them.",
          [&](std::size_t t) { return c.hit_tokens[t]; });
  page.counter("leases_total", "Leases given.", c.leases);
  page.counter("reservations_total", "Objects that engines asked to store.", c.reservations);
  page.counter("grants_total", "Reservations granted.", c.grants);
  page.counter("commits_total", "Shards committed.", c.commits);
  page.counter("commits_refused_total", "Commits of unknown or stale slots.", c.commits_refused);
  page.family("refused_total", "counter", "Reservations refused, by reason.");
  for (std::size_t r = 1; r < c.refused.size(); ++r) {
    page.value(label("reason", to_string(static_cast<Reason>(r))), c.refused[r]);
  }
  page.family("evicted_total", "counter", "Objects that left a tier, by reason.");
  for (const Tier tier : kTierOrder) {
    for (std::size_t r = 1; r < c.refused.size(); ++r) {
      const std::uint64_t n = c.evicted[index(tier)][r];
      if (n == 0) continue;  // most pairs never happen; a series appears with its first event
      page.value(
          fmt::format(
              "tier=\"{}\",reason=\"{}\"", to_string(tier), to_string(static_cast<Reason>(r))),
          n);
    }
  }
  by_tier(page, "demoted_bytes_total", "counter", "Moved down into a tier.", [&](std::size_t t) {
    return c.bytes_demoted[t];
  });
  by_tier(page, "promoted_bytes_total", "counter", "Moved up into a tier.", [&](std::size_t t) {
    return c.bytes_promoted[t];
  });
  page.counter("stored_bytes_total", "Payload committed.", c.bytes_stored);
  page.counter("dropped_bytes_total", "Payload forgotten.", c.bytes_dropped);
  page.counter("nvme_written_bytes_total", "Written to the drives.", c.nvme_bytes_written);
  page.counter("nvme_read_bytes_total", "Read from the drives.", c.nvme_bytes_read);
  page.counter("checksum_failures_total",
               "Objects whose bytes were not what was stored.",
               c.checksum_failures);
  page.counter("io_errors_total", "Transfers that the drive failed.", c.io_errors);
  page.counter("loads_total", "Loads into the host tier.", c.loads);
  page.counter("load_failures_total", "Loads that failed.", c.load_failures);
  page.counter("evictions_total", "Objects evicted.", c.evictions);
  page.counter(
      "prefetched_unused_bytes_total", "Loaded ahead and never leased.", c.prefetched_unused_bytes);
  page.single(
      "prefill_flops_total", "counter", "FLOPs of prefilling all prompts from nothing.", c.flops);
  page.single("prefill_flops_saved_total",
              "counter",
              "FLOPs of prefill that hits made unnecessary.",
              c.flops_saved);
}

constexpr std::array<std::string_view, kOps> kOpNames{"unknown",
                                                      "begin",
                                                      "join",
                                                      "refresh",
                                                      "acquire",
                                                      "append",
                                                      "reserve",
                                                      "commit",
                                                      "abandon",
                                                      "taint",
                                                      "finish",
                                                      "release",
                                                      "cancel",
                                                      "invalidate"};

void serving(Page& page, const Snapshot& s) {
  page.family("records_total", "counter", "Records taken from the clients' rings, by operation.");
  for (std::size_t op = 0; op < kOps; ++op)
    page.value(label("op", kOpNames[op]), s.serving.records[op]);
  page.counter(
      "bad_records_total", "Records answered with invalid_argument.", s.serving.bad_records);
  page.counter("completions_total", "Completions sent.", s.serving.completions);
  page.counter(
      "backlogged_total", "Completions that found a client's ring full.", s.serving.backlogged);
  page.counter("clients_dropped_total",
               "Clients dropped for breaking the protocol.",
               s.serving.clients_dropped);
  page.counter("clients_attached_total", "Clients ever attached.", s.serving.attached);
  page.counter("sleeps_total", "Times the conductor went to sleep.", s.serving.sleeps);
  page.counter("control_garbage_total",
               "Control connections closed because of what they sent.",
               s.control_garbage);
  page.counter("control_refused_total", "Attaches refused.", s.control_refused);
  page.histogram("begin_seconds", "From taking a begin to posting its answer.", s.serving.begin_ns);
  page.histogram("turn_seconds", "Turns of the conductor that had work.", s.serving.turn_ns);
  page.histogram("conductor_step_seconds",
                 "Steps of the conductor: its thread's processor time.",
                 s.serving.step_cpu_ns);
  page.histogram(
      "conductor_step_wall_seconds", "The same steps on the wall.", s.serving.step_wall_ns);
  page.gauge("clients", "Clients attached.", s.clients);
  page.gauge("tickets", "Tickets open.", s.tickets);
}

void drives(Page& page, const Snapshot& s) {
  const auto each =
      [&](std::string_view name, std::string_view type, std::string_view help, auto get) {
        page.family(name, type, help);
        for (std::size_t i = 0; i < s.drives.size(); ++i)
          page.value(fmt::format("path=\"{}\"", i), get(s.drives[i]));
      };
  if (!s.drives.empty()) {
    each("drive_reads_total", "counter", "Reads of a drive path.", [](const DriveSnapshot& d) {
      return d.stats.reads;
    });
    each("drive_writes_total", "counter", "Writes of a drive path.", [](const DriveSnapshot& d) {
      return d.stats.writes;
    });
    each("drive_errors_total",
         "counter",
         "Failed transfers of a drive path.",
         [](const DriveSnapshot& d) { return d.stats.errors; });
    each("drive_bytes_written_total", "counter", "Data written.", [](const DriveSnapshot& d) {
      return d.stats.bytes_written;
    });
    each("drive_lifetime_bytes_written",
         "counter",
         "Data written since the drive's file was made.",
         [](const DriveSnapshot& d) { return d.lifetime_written; });
    each(
        "drive_health", "gauge", "0: good, 1: refuses writes, 2: out.", [](const DriveSnapshot& d) {
          return static_cast<std::uint64_t>(d.health);
        });
    each("drive_queued", "gauge", "Transfers accepted and not done.", [](const DriveSnapshot& d) {
      return d.stats.queued;
    });
  }
  page.counter("process_written_bytes_total",
               "Written by the process, by the kernel's accounts.",
               s.process_written);
  if (s.budget) {
    page.single("write_budget_tokens_bytes",
                "gauge",
                "What may still be written now.",
                static_cast<double>(s.budget->tokens));
    page.counter("write_budget_held_back_bytes_total",
                 "Not written because of the budget.",
                 s.budget->held_back_bytes);
  }
  if (s.has_catalog) {
    page.counter("catalog_batches_total", "Batches made durable.", s.catalog.batches);
    page.counter("catalog_rows_put_total", "Rows written.", s.catalog.rows_put);
    page.counter("catalog_rows_deleted_total", "Rows deleted.", s.catalog.rows_deleted);
    page.counter("catalog_rows_dropped_total",
                 "Rows that could not be decoded at start.",
                 s.catalog.rows_dropped);
  }
}

}  // namespace

std::string prometheus_text(const Snapshot& snapshot) {
  Page page;
  page.family("build_info", "gauge", "The version that runs.");
  page.value(label("version", snapshot.version), 1);
  page.single("uptime_seconds", "gauge", "Since the daemon started.", snapshot.uptime_s);
  page.gauge("draining", "1 while reservations are declined.", snapshot.draining ? 1 : 0);
  page.single("host_huge_page_share",
              "gauge",
              "Share of the host arena in huge pages.",
              snapshot.huge_page_share);
  tiers(page, snapshot);
  cache(page, snapshot.cache);
  serving(page, snapshot);
  drives(page, snapshot);
  return page.take();
}

}  // namespace statecached
