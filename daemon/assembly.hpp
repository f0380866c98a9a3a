#pragma once
// Settings to a running daemon: makes the tiers, the cache, the conductor and the control plane, in
// this order, and takes them down in the other. The only place that knows all of them.

#include "base/result.hpp"
#include "config/settings.hpp"

#include <memory>
#include <string>

namespace statecached {

class Assembly {
 public:
  /// Everything that can fail happens here: memory, drives, catalog, recovery, sockets.
  static Result<std::unique_ptr<Assembly>> create(const config::Settings& settings,
                                                  const std::string& version);
  ~Assembly();
  Assembly(const Assembly&) = delete;
  Assembly& operator=(const Assembly&) = delete;

  /// Serves, on threads of its own, until stop().
  void start();
  /// No more clients, reservations declined, what is committed written within limits.stop_time.
  void stop();
  /// One line for the log: sizes of the tiers, where it listens.
  [[nodiscard]] std::string summary() const;

 private:
  class Parts;
  explicit Assembly(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace statecached
