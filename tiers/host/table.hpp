#pragma once
// The second memory beside the host arena: what lies in the arena, and which processes may be using
// it. It is handed to the service manager with the arena, so that a daemon that comes back after
// any end finds both (design.md 8). Everything in it is written by the daemon alone; no client gets
// it.
//
//   page 0        Header
//   clients_at    ClientEntry[clients]
//   slots_at      SlotEntry[slots]        one for each row
//   heap_at       rows: catalog key and value, which carry their own checksum
//
// A row counts once its slot says `live`, which is stored last; it ends with that word. So a daemon
// killed between any two stores leaves only whole rows, or rows whose checksum tells.
//
// Threads: one (the conductor's, or before it runs). Ownership: fd and mapping.

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "tiers/catalog.hpp"
#include "tiers/space.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace statecached {

/// A process that was attached. `session` is a number of its own choice that stays over its
/// reattaching.
struct KeptClient {
  std::uint64_t session = 0;
  std::int32_t pid = 0;
  std::uint64_t started = 0;  ///< of the process, as /proc says it
  bool holds = false;         ///< it may be reading or writing the arena
};

class HostTable {
 public:
  static constexpr std::uint32_t kNone = 0xffffffff;
  static constexpr std::uint32_t kClients = 65'536;

  /// For host memory of so many bytes; `layout` names how arenas make it up. Memory is taken as it
  /// fills.
  [[nodiscard]] static Result<HostTable> create(std::uint64_t arena_bytes, std::uint64_t layout);
  /// What an earlier daemon left. Errors: corrupt (not a table, or of another arena), version.
  [[nodiscard]] static Result<HostTable> adopt(UniqueFd fd,
                                               std::uint64_t arena_bytes,
                                               std::uint64_t layout);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  /// Lists a row. kNone: no room, or the row breaks a limit; it is then not found after a restart.
  [[nodiscard]] std::uint32_t put(const NamespaceRow& row);
  [[nodiscard]] std::uint32_t put(const DomainRow& row);
  [[nodiscard]] std::uint32_t put(const ObjectRow& row);
  /// From here on it counts no more. kNone: nothing.
  void erase(std::uint32_t slot) noexcept;
  /// Every whole row and its slot, in no order. What is torn is erased.
  [[nodiscard]] std::vector<std::pair<std::uint32_t, CatalogRow>> rows();

  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }

  /// kNone: the table is full; then `holds` is assumed of everybody who cannot be named.
  [[nodiscard]] std::uint32_t add_client(const KeptClient& client);
  void set_holds(std::uint32_t entry, bool holds) noexcept;
  void remove_client(std::uint32_t entry) noexcept;
  [[nodiscard]] std::vector<std::pair<std::uint32_t, KeptClient>> clients() const;

 private:
  struct Header;
  struct ClientEntry;
  struct SlotEntry;

  HostTable(UniqueFd fd, Mapping mapping, std::uint64_t arena_bytes);

  [[nodiscard]] std::uint32_t put(const std::string& key, const Result<std::string>& value);
  [[nodiscard]] Header& header() const noexcept;
  [[nodiscard]] ClientEntry& client(std::uint32_t entry) const noexcept;
  [[nodiscard]] SlotEntry& slot(std::uint32_t slot) const noexcept;
  /// Rebuilds what is kept beside the mapping from what it says.
  void index();

  UniqueFd fd_;
  Mapping mapping_;
  std::uint32_t slots_ = 0;
  std::uint64_t heap_at_ = 0;
  Space heap_;  ///< a page of it stands for kUnit bytes
  std::vector<std::uint32_t> free_slots_;
  std::uint32_t fresh_slot_ = 0;    ///< this and all after it were never used
  std::uint32_t clients_used_ = 0;  ///< entries beyond were never used
  std::uint64_t count_ = 0;
};

}  // namespace statecached
