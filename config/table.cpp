#include "config/table.hpp"

#include <array>

namespace statecached::config {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

constexpr std::array<std::string_view, 3> kSwitch{"auto", "on", "off"};
constexpr std::array<std::string_view, 2> kTrust{"same-user", "none"};
constexpr std::array<std::string_view, 3> kEngine{"auto", "io_uring", "threads"};
constexpr std::array<std::string_view, 4> kBackend{"auto", "cuda", "emulated", "none"};
constexpr std::array<std::string_view, 6> kPolicy{"marconi",
                                                  "marconi-paper",
                                                  "lru",
                                                  "s3fifo",
                                                  "gdsf",
                                                  "clairvoyant"};
constexpr std::array<std::string_view, 3> kAdmission{"auto", "paper", "marconi"};
constexpr std::array<std::string_view, 3> kDemotion{"priced", "always", "never"};
constexpr std::array<std::string_view, 2> kNvmeWrite{"behind", "through"};
constexpr std::array<std::string_view, 3> kShrink{"refuse", "keep", "truncate"};
constexpr std::array<std::string_view, 4> kLevel{"debug", "info", "warn", "error"};

constexpr std::uint64_t kTierMin = 2 * kMiB;  // one huge page, one grain of a drive
constexpr std::uint64_t kTierMax = 1024 * kTiB;

constexpr auto kSettings = std::to_array<Setting>({
    {"paths",
     "state_dir",
     "Where the catalog lives, and the NVMe tier unless nvme.paths says otherwise.",
     [](Settings& s) { return text_field(s.paths.state_dir); }},
    {"paths",
     "runtime_dir",
     "Where the control socket is made.",
     [](Settings& s) { return text_field(s.paths.runtime_dir); }},

    {"socket",
     "path",
     "The control socket. Empty: control.sock in paths.runtime_dir.",
     [](Settings& s) { return text_field(s.socket.path); }},
    {"socket",
     "mode",
     "Its file mode: with the group, who may connect.",
     [](Settings& s) { return mode_field(s.socket.mode); }},
    {"socket",
     "group",
     "Its group, by name or number. Empty: that of the daemon.",
     [](Settings& s) { return text_field(s.socket.group); }},
    {"socket",
     "trust",
     "same-user: clients with the daemon's own user, and tenants marked trusted, write host memory "
     "in place.\n"
     "none: every client writes to a staging area, which the daemon copies in.",
     [](Settings& s) { return choice_field(s.socket.trust, kTrust); }},

    {"host",
     "capacity",
     "Shared memory for state, all of it allocated at start.",
     [](Settings& s) { return size_field(s.host.capacity, kTierMin, kTierMax, {}); }},
    {"host",
     "huge_pages",
     "2 MiB pages: auto (where the kernel gives them), on (or do not start), off.",
     [](Settings& s) { return choice_field(s.host.huge_pages, kSwitch); }},
    {"host",
     "numa",
     "Memory node to take it from: auto or a number.",
     [](Settings& s) { return node_field(s.host.numa); }},
    {"host",
     "register_buffers",
     "Registering it with io_uring, which needs locked memory: auto, on, off.",
     [](Settings& s) { return choice_field(s.host.register_buffers, kSwitch); }},

    {"nvme",
     "paths",
     "One directory a drive. Empty: nvme in paths.state_dir.",
     [](Settings& s) { return list_field(s.nvme.paths); }},
    {"nvme",
     "capacity",
     "Preallocated, in equal parts on all paths. 0: no NVMe tier.",
     [](Settings& s) { return size_field(s.nvme.capacity, kTierMin, kTierMax, {}); }},
    {"nvme",
     "write_budget_per_day",
     "Most bytes written a day, to protect the drives: unlimited or a size.",
     [](Settings& s) {
       return size_field(s.nvme.write_budget_per_day, kMiB, kTierMax, "unlimited", kUnlimited);
     }},
    {"nvme",
     "write_burst",
     "What of the budget may be written at once: auto (1/144 of it, ten minutes' worth) or a size.",
     [](Settings& s) {
       return size_field(s.nvme.write_burst, kMiB, kTierMax, "auto", kAutomatic);
     }},
    {"nvme",
     "engine",
     "auto: io_uring, or threads where it is forbidden; io_uring; threads.",
     [](Settings& s) { return choice_field(s.nvme.engine, kEngine); }},
    {"nvme",
     "direct",
     "O_DIRECT: auto (where the file system has it), on, off.",
     [](Settings& s) { return choice_field(s.nvme.direct, kSwitch); }},
    {"nvme",
     "defer_taskrun",
     "Completions only when we ask for them (Linux 6.1): auto, on, off.",
     [](Settings& s) { return choice_field(s.nvme.defer_taskrun, kSwitch); }},
    {"nvme",
     "threads",
     "Threads a drive, for engine threads.",
     [](Settings& s) { return number_field(s.nvme.threads, 1, 256); }},
    {"nvme",
     "shrink",
     "When capacity is less than what the drive was made with: refuse to start, keep the old size, "
     "or\n"
     "truncate, which forgets what lies beyond.",
     [](Settings& s) { return choice_field(s.nvme.shrink, kShrink); }},

    {"device",
     "capacity",
     "Memory of each GPU, taken from the engine's own cache. 0: no device tier.",
     [](Settings& s) { return size_field(s.device.capacity, kTierMin, kTierMax, {}); }},
    {"device",
     "backend",
     "auto: CUDA where it is; cuda; emulated (host memory, for tests); none.",
     [](Settings& s) { return choice_field(s.device.backend, kBackend); }},

    {"policy",
     "name",
     "What to forget first: marconi (least seconds saved a byte), marconi-paper (the paper's "
     "score),\n"
     "lru, s3fifo, gdsf.",
     [](Settings& s) { return choice_field(s.policy.name, kPolicy); }},
    {"policy",
     "alpha",
     "Weight of efficiency against recency in marconi-paper's score: auto (tuned) or a number.",
     [](Settings& s) { return optional_real_field(s.policy.alpha); }},
    {"policy",
     "admission",
     "Where checkpoints are wished for: auto (paper for lru and\n"
     "marconi-paper, else marconi), paper, marconi.",
     [](Settings& s) { return choice_field(s.policy.admission, kAdmission); }},
    {"policy",
     "demotion",
     "Victims go one tier down: priced (where it pays), always, never.",
     [](Settings& s) { return choice_field(s.policy.demotion, kDemotion); }},
    {"policy",
     "nvme_write",
     "State is written to NVMe: behind (before it must leave memory) or through (at commit).",
     [](Settings& s) { return choice_field(s.policy.nvme_write, kNvmeWrite); }},
    {"policy",
     "engine_tflops",
     "TFLOP/s that an engine achieves, until it has reported prefill times.",
     [](Settings& s) { return positive_field(s.policy.engine_tflops); }},

    {"limits",
     "clients",
     "Processes attached at once.",
     [](Settings& s) { return number_field(s.limits.clients, 1, 65536); }},
    {"limits",
     "lease_bytes_max",
     "What one client may hold on lease: auto (half of host.capacity) or a size.",
     [](Settings& s) {
       return size_field(s.limits.lease_bytes_max, kMiB, kTierMax, "auto", kAutomatic);
     }},
    {"limits",
     "lease_age_warn",
     "A lease older than this is named in the log; it is never broken.",
     [](Settings& s) {
       return duration_field(s.limits.lease_age_warn, milliseconds(1), hours(24 * 365));
     }},
    {"limits",
     "reservation_age",
     "A reservation older than this no longer keeps others from writing the same.",
     [](Settings& s) {
       return duration_field(s.limits.reservation_age, milliseconds(1), hours(24));
     }},
    {"limits",
     "soft_hold_age",
     "How long state that a request matched is protected before it is acquired.",
     [](Settings& s) {
       return duration_field(s.limits.soft_hold_age, milliseconds(1), hours(24));
     }},
    {"limits",
     "transfer_timeout",
     "A read or copy that takes longer counts as failed.",
     [](Settings& s) {
       return duration_field(s.limits.transfer_timeout, milliseconds(1), hours(24));
     }},
    {"limits",
     "stop_time",
     "How long a graceful stop may go on writing what is worth keeping.",
     [](Settings& s) { return duration_field(s.limits.stop_time, milliseconds(0), hours(24)); }},
    {"limits",
     "inflight",
     "Requests that one client may have open.",
     [](Settings& s) { return number_field(s.limits.inflight, 1, 65536); }},
    {"limits",
     "staging",
     "Staging area of each client that may not write host memory in place.",
     [](Settings& s) { return size_field(s.limits.staging, kMiB, kTierMax, {}); }},

    {"metrics",
     "listen",
     "Prometheus text: empty (off), \"/path/of/a/socket\", or \"127.0.0.1:port\".",
     [](Settings& s) { return text_field(s.metrics.listen); }},

    {"log",
     "level",
     "debug, info, warn or error.",
     [](Settings& s) { return choice_field(s.log.level, kLevel); }},
});

constexpr auto kTenantSettings = std::to_array<TenantSetting>({
    {"users",
     "Whose processes count to it, by name or number.",
     [](Tenant& t) { return list_field(t.users); }},
    {"groups", "The same by group.", [](Tenant& t) { return list_field(t.groups); }},
    {"trust_domain",
     "Tenants of one domain share memory and matches. Empty: the domain of all others.",
     [](Tenant& t) { return text_field(t.trust_domain); }},
    {"trusted", "May write host memory in place.", [](Tenant& t) { return bool_field(t.trusted); }},
    {"quota",
     "Most bytes it may keep in each tier: unlimited or a size.",
     [](Tenant& t) { return size_field(t.quota, 0, kTierMax, "unlimited", kUnlimited); }},
});

}  // namespace

std::span<const Setting> settings_table() noexcept {
  return kSettings;
}

std::span<const TenantSetting> tenant_table() noexcept {
  return kTenantSettings;
}

}  // namespace statecached::config
