#pragma once
// A daemon that knows no cache: it speaks the control protocol and the rings to one client, finds
// every prompt rounded down to 16 tokens, and grants every reservation of group 0. One thread of
// its own.

#include "base/unique_fd.hpp"
#include "client/wire/channel.hpp"
#include "client/wire/control.hpp"

#include <atomic>
#include <string>
#include <thread>
#include <unordered_map>

namespace statecached::fake {

inline constexpr std::size_t kArenaBytes = 1U << 20U;
inline constexpr std::uint64_t kPieceAt[2] = {8192, 4096};  ///< the two extents of every piece
inline constexpr std::uint64_t kPieceBytes = 6000;  ///< 4096 in the first, the rest in the second

class Daemon {
 public:
  explicit Daemon(bool writable = true);
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;
  ~Daemon();

  [[nodiscard]] const std::string& path() const { return path_; }

  /// Returns when nothing more is taken from the ring, until `silent` is cleared.
  void hush() {
    quiet_ = false;
    silent = true;
    while (!quiet_)
      std::this_thread::yield();
  }

  [[nodiscard]] std::span<std::byte> arena() const { return arena_.span(); }

  std::atomic<bool> silent{false};   ///< takes nothing from the ring; set by hush()
  std::atomic<bool> garbage{false};  ///< sends pieces that lie outside the arena
  std::atomic<bool> refuse{false};   ///< fails every reserve, append and begin
  /// answers begin as loading; the lease comes when this is false
  std::atomic<bool> withhold{false};
  std::atomic<bool> hang_up{false};  ///< closes the socket and ends
  std::atomic<std::uint64_t> abandoned{0};
  std::atomic<std::uint64_t> ended{0};  ///< finish, release, cancel

 private:
  void run();
  bool attach(int socket);
  void handle(const wire::Request& record, std::span<const std::byte> payload);
  void answer(std::uint32_t cookie, const TicketName& name, wire::State state);
  void lease(std::uint32_t cookie, const TicketName& name, std::uint32_t tokens);
  void reserve(const wire::Request& record, std::span<const std::byte> payload);
  void post(wire::Completion completion, std::span<const std::span<const std::byte>> parts);

  std::string path_;
  bool writable_;
  UniqueFd listener_;
  UniqueFd bell_;
  UniqueFd arena_fd_;
  Mapping arena_;
  wire::DaemonChannel channel_;
  std::unordered_map<TicketName, std::uint32_t> depths_;
  std::vector<TicketName> withheld_;
  std::uint64_t next_slot_ = 100;
  std::atomic<bool> stop_{false};
  std::atomic<bool> quiet_{false};
  std::thread thread_;
};

}  // namespace statecached::fake
