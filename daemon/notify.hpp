#pragma once

namespace statecached {

/// Tells the service manager ("READY=1"); nothing where there is none.
void notify(const char* state) noexcept;

}  // namespace statecached
