#include "daemon/notify.hpp"

#include <systemd/sd-daemon.h>

namespace statecached {

void notify(const char* state) noexcept {
  ::sd_notify(0, state);
}

}  // namespace statecached
