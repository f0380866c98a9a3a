// What a request has stored so far stays until it is finished: the rest hangs on it. KV below which
// no state lies yet is worth the least of all, so without this it would be the first to go while
// the request goes on.

#include "daemon/cache/cache_impl.hpp"

namespace statecached {

/// Holds a whole block of an `every` group in place of the one before it. What comes before it on
/// the path cannot leave while it stays (closure), so one a group is enough.
void CacheImpl::hold_tail(Ticket& ticket, ObjectIx o, Instant now) {
  const Object& object = index_.object(o);
  if (object.state != ObjectState::visible || !object.full || ticket.finished || ticket.lost)
    return;
  std::size_t place = 0;  // of its group among the `every` groups
  const auto& groups = spaces_[ticket.space].spec.groups;
  for (std::size_t g = 0; g < object.group; ++g) {
    if (groups[g].need == Need::every) ++place;
  }
  ObjectIx& tail = ticket.tails[place];
  if (tail == o || (tail != kNil && index_.object(tail).end >= object.end)) return;
  hold(o, now);
  if (tail != kNil) unhold(tail, now);
  tail = o;
}

void CacheImpl::let_go_tails(Ticket& ticket, Instant now) {
  for (ObjectIx& tail : ticket.tails) {
    if (tail != kNil) unhold(tail, now);
    tail = kNil;
  }
}

}  // namespace statecached
