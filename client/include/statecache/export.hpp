#pragma once
// What libstatecache.so exports. Everything else of it is hidden.

#define STATECACHE_API __attribute__((visibility("default")))
#define STATECACHE_LOCAL __attribute__((visibility("hidden")))
