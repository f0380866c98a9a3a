#pragma once

#include <functional>

namespace statecached {

/// Called by a tier's own thread after it has queued a completion, so that the owner polls soon.
/// Must be callable from any thread and cheap.
using Waker = std::function<void()>;

}  // namespace statecached
