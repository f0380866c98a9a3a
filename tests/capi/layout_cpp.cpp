// Prints sizes and offsets of the C++ API's structs, and its constants: a part of the ABI dump. A
// field that is missing here is found out: there may be no hole before a field or after the last
// one but for alignment.

#include "statecache/admin.hpp"
#include "statecache/client.hpp"

#include <cstddef>
#include <cstdio>
#include <cstdlib>

#pragma GCC diagnostic ignored "-Winvalid-offsetof"

namespace {

std::size_t after = 0;  // the end of the last field
const char* type = "";

void begin(const char* name, std::size_t size) {
  std::printf("struct statecache::%s %zu\n", name, size);
  type = name;
  after = 0;
}

void field(const char* name, std::size_t at, std::size_t size, std::size_t align) {
  std::printf("  statecache::%s.%s %zu %zu\n", type, name, at, size);
  if (at >= after + align) {
    std::fprintf(stderr, "statecache::%s: what lies before %s?\n", type, name);
    std::exit(1);
  }
  after = at + size;
}

void end(std::size_t size, std::size_t align) {
  if (size < after + align) return;
  std::fprintf(stderr, "statecache::%s: what lies at its end?\n", type);
  std::exit(1);
}

}  // namespace

#define BEGIN(name)             \
  do {                          \
    using T = statecache::name; \
  begin(#name, sizeof(T))
#define F(name) field(#name, offsetof(T, name), sizeof(T::name), alignof(decltype(T::name)))
#define END                   \
  end(sizeof(T), alignof(T)); \
  }                           \
  while (false)
#define E(name) \
  std::printf("constant statecache::%s %lld\n", #name, static_cast<long long>(statecache::name))
// Private insides: a program has them in its own memory.
#define WHOLE(...) std::printf("struct %s %zu\n", #__VA_ARGS__, sizeof(__VA_ARGS__))

int main() {
  BEGIN(Group);
  F(name);
  F(need);
  F(block_tokens);
  F(window);
  F(lookahead);
  F(max_bytes);
  F(shards);
  F(contiguous);
  F(token_major);
  END;
  BEGIN(Cost);
  F(c0);
  F(c1);
  F(c2);
  F(window_c2);
  F(window);
  END;
  BEGIN(NamespaceSpec);
  F(name);
  F(model);
  F(layout);
  F(groups);
  F(resume_grid);
  F(checkpoint_grid);
  F(checkpoints_per_chunk);
  F(cost);
  F(addressing);
  F(tokens_per_key);
  F(key_bytes);
  END;
  BEGIN(Member);
  F(engine);
  F(rank);
  F(world);
  F(shard);
  F(program);
  END;
  BEGIN(Domain);
  F(adapter);
  F(salt);
  END;
  BEGIN(Mark);
  F(at);
  F(length);
  F(content);
  F(atomic);
  END;
  BEGIN(Have);
  F(every);
  F(end);
  END;
  BEGIN(Limits);
  F(have);
  F(hold);
  F(keep_back);
  F(at_most);
  F(deadline);
  F(priority);
  F(members);
  END;
  BEGIN(Ask);
  F(tokens);
  F(marks);
  F(domain);
  F(parent);
  F(parent_tokens);
  END;
  BEGIN(KeyRun);
  F(keys);
  F(parent);
  F(first_token);
  F(domain);
  END;
  BEGIN(Point);
  F(tokens);
  F(tier);
  F(bytes);
  F(ready_in);
  F(recompute);
  END;
  BEGIN(Answer);
  F(state);
  F(version);
  F(best);
  F(usable);
  F(stored);
  F(points);
  F(wishes);
  END;
  BEGIN(Extent);
  F(data);
  F(bytes);
  END;
  BEGIN(Piece);
  F(group);
  F(shard);
  F(first);
  F(valid);
  F(tier);
  F(bytes);
  F(where);
  END;
  BEGIN(Want);
  F(group);
  F(first);
  F(end);
  F(bytes);
  END;
  BEGIN(Slot);
  F(id);
  F(group);
  F(shard);
  F(first);
  F(end);
  F(grant);
  F(bytes);
  F(where);
  END;
  BEGIN(Filled);
  F(slot);
  F(valid);
  END;
  BEGIN(Memory);
  F(group);
  F(at);
  F(valid);
  F(pieces);
  END;
  BEGIN(Lease);
  F(tokens);
  F(pieces);
  END;
  BEGIN(Report);
  F(computed);
  F(prefilled);
  F(prefill);
  END;
  BEGIN(TicketRef);
  F(low);
  F(high);
  END;
  BEGIN(Counters);
  F(posted);
  F(busy);
  F(errors);
  F(committed);
  F(refused);
  F(returned);
  END;
  BEGIN(Status);
  F(code);
  F(text);
  END;
  WHOLE(statecache::Extents);
  WHOLE(statecache::Session);
  WHOLE(statecache::Result<statecache::TicketId>);
  WHOLE(statecache::Result<statecache::Session>);
  WHOLE(statecache::Result<statecache::Lease>);
  E(kUnknown);
  E(Need::every);
  E(Need::last);
  E(Need::end);
  E(Addressing::tokens);
  E(Addressing::keys);
  E(Hold::none);
  E(Hold::soft);
  E(Hold::lease);
  E(State::pending);
  E(State::loading);
  E(State::ready);
  E(State::failed);
  E(State::lost);
  E(Tier::device);
  E(Tier::host);
  E(Tier::nvme);
  E(Tier::none);
  E(Grant::pending);
  E(Grant::granted);
  E(Grant::exists);
  E(Grant::in_flight);
  E(Grant::declined);
  E(Grant::no_space);
  E(Errc::ok);
  E(Errc::invalid_argument);
  E(Errc::not_found);
  E(Errc::already_exists);
  E(Errc::no_space);
  E(Errc::permission);
  E(Errc::unsupported);
  E(Errc::io);
  E(Errc::corrupt);
  E(Errc::version);
  E(Errc::closed);
  E(Errc::timeout);
  E(Errc::busy);
  E(Errc::internal);
  return 0;
}
