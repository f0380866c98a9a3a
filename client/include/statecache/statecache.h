#ifndef STATECACHE_STATECACHE_H
#define STATECACHE_STATECACHE_H
/* The C API of statecached: a prefix cache for the states and KV blocks of language models.
 *
 * Plain C99. It says the same as the C++ API (statecache/client.hpp), call by call; the guide is
 * CONNECT.md. Whatever fails, is refused or is lost means "compute it".
 *
 * Units     tokens for all positions and lengths, counted from the beginning of the sequence;
 *           microseconds for all times, which are limits from now on; bytes for all sizes.
 * Errors    functions return a statecache_code; 0 is success. statecache_strerror() names a code,
 *           statecache_last_error() says what was wrong with this thread's last call. Codes that
 *           any function may give: INVALID_ARGUMENT (null pointers and sizes that cannot be),
 *           CLOSED (the daemon has gone, or the process was forked: attach anew), BUSY (the ring is
 *           full; nothing was sent), NOT_FOUND (no such ticket, or one that has ended), NO_MEMORY.
 *           Outputs are written on success only. What the daemon alone can see is refused later:
 *           statecache_settle() tells.
 * Threads   every function may be called from any thread at the same time with the same session,
 *           except statecache_detach(). No function blocks but those named wait, settle, drain, the
 *           copies read_into and write_from, attach and admin, each with a time limit.
 * Ownership inputs are read before the call returns and stay the caller's. What an answer, a lease
 * or a
 *           slot list points to belongs to it until its _clear(); the memory behind extents belongs
 *           to the daemon and stays mapped until statecache_detach().
 * Versions  every struct begins with struct_size, which the caller sets to its own sizeof (the
 *           _INIT macros do): a program built against an older header goes on working with a newer
 *           library. Elements of an array all have the struct_size of the first one. New fields
 *           come at the end and mean "as before" when zero or absent. A larger struct than the
 *           library knows is accepted when what it does not know is zero, else UNSUPPORTED.
 *           statecache_digest, _extent and _ref have no struct_size and never change.
 */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define STATECACHE_C_API __attribute__((visibility("default")))
#else
#define STATECACHE_C_API
#endif
#ifdef __cplusplus
#define STATECACHE_NOEXCEPT noexcept
#else
#define STATECACHE_NOEXCEPT
#endif

#define STATECACHE_VERSION_MAJOR 0
#define STATECACHE_VERSION_MINOR 1
#define STATECACHE_VERSION_PATCH 0

/* Not known, or no limit; where a count or a position of tokens may be so. */
#define STATECACHE_UNKNOWN UINT32_MAX

/* ---- codes ----------------------------------------------------------------------------------- */

typedef enum statecache_code {
  STATECACHE_OK = 0,
  STATECACHE_INVALID_ARGUMENT = 1, /* can never work */
  STATECACHE_NOT_FOUND = 2,        /* no such ticket, socket or name; a ticket that was lost */
  STATECACHE_ALREADY_EXISTS = 3,
  STATECACHE_NO_SPACE = 4, /* out of capacity, quota or descriptors */
  STATECACHE_PERMISSION = 5,
  STATECACHE_UNSUPPORTED = 6, /* this library, machine or daemon cannot do it */
  STATECACHE_IO = 7,          /* a system call failed */
  STATECACHE_CORRUPT = 8,     /* the daemon sent what it must not send */
  STATECACHE_VERSION = 9,     /* the daemon speaks another version */
  STATECACHE_CLOSED = 10,     /* the daemon has gone, or the handle crossed a fork: compute it */
  STATECACHE_TIMEOUT = 11,
  STATECACHE_BUSY = 12, /* the ring is full, or the answer is not there yet */
  STATECACHE_INTERNAL = 13,
  STATECACHE_NO_MEMORY = 14 /* of this process; nothing was done */
} statecache_code;

/* A short description; never null, static, any value. */
STATECACHE_C_API const char* statecache_strerror(statecache_code code) STATECACHE_NOEXCEPT;
/* What was wrong with the last call of this thread that failed; "" when none did. Good until the
 * thread's next call that fails. */
STATECACHE_C_API const char* statecache_last_error(void) STATECACHE_NOEXCEPT;
/* Of the library that is loaded, as "0.1.0". Static. */
STATECACHE_C_API const char* statecache_version(void) STATECACHE_NOEXCEPT;

/* ---- what is cached -------------------------------------------------------------------------- */

typedef uint64_t statecache_ticket; /* local to the session; never 0, never used twice */
typedef uint64_t statecache_slot_id;

typedef struct statecache_digest {
  uint8_t bytes[32];
} statecache_digest;

/* Laid out as struct iovec is. */
typedef struct statecache_extent {
  void* data;
  size_t bytes;
} statecache_extent;

/* A ticket's name across processes of one engine: plain bytes. */
typedef struct statecache_ref {
  uint64_t low;
  uint64_t high;
} statecache_ref;

/* What resuming at position p needs of a group: all of [0, p); the last `window` tokens; a state at
 * p. */
typedef enum statecache_need {
  STATECACHE_EVERY = 0,
  STATECACHE_LAST = 1,
  STATECACHE_END = 2
} statecache_need;

typedef struct statecache_group {
  uint32_t struct_size;
  uint32_t need;    /* statecache_need */
  const char* name; /* 1 to 255 bytes, UTF-8 */
  /* block k holds tokens [k block_tokens, (k + 1) block_tokens); ignored for STATECACHE_END */
  uint32_t block_tokens;
  uint32_t window;     /* tokens, for STATECACHE_LAST */
  uint32_t lookahead;  /* an object that ends at e serves resuming at e - lookahead */
  uint16_t shards;     /* 1 to 64 */
  uint8_t contiguous;  /* 1: one shard must lie in one extent */
  uint8_t token_major; /* 1: a partial block needs only its share of max_bytes */
  uint64_t max_bytes;  /* largest payload of one shard of one object: all layers of the group */
} statecache_group;

#define STATECACHE_GROUP_INIT \
  { sizeof(statecache_group), STATECACHE_EVERY, NULL, 64, 0, 0, 1, 0, 1, 0 }

/* FLOPs of prefilling tokens a..b: c0 + c1 (b-a) + c2 (b^2-a^2), and the same with window_c2 for
 * groups whose attention is capped at `window` tokens. */
typedef struct statecache_cost {
  uint32_t struct_size;
  uint32_t window;
  double c0, c1, c2, window_c2;
} statecache_cost;

#define STATECACHE_COST_INIT \
  { sizeof(statecache_cost), 0, 0, 0, 0, 0 }

typedef enum statecache_addressing {
  STATECACHE_BY_TOKENS = 0, /* statecache_begin */
  STATECACHE_BY_KEYS = 1    /* statecache_begin_keys */
} statecache_addressing;

/* Namespaces with another content (anything but name and cost) share nothing. */
typedef struct statecache_namespace {
  uint32_t struct_size;
  uint32_t group_count;     /* 1 to 8 */
  const char* name;         /* for people */
  statecache_digest model;  /* weights, revision, quantisation ... */
  statecache_digest layout; /* strides, data types, build */
  const statecache_group* groups;
  uint32_t resume_grid;     /* resume only at multiples of it; 1 */
  uint32_t checkpoint_grid; /* checkpoints only at multiples of it; 1 */
  uint32_t
      checkpoints_per_chunk;   /* how many the engine can take in one chunk of a prefill; 0: any */
  uint32_t addressing;         /* statecache_addressing */
  uint32_t tokens_per_key;     /* keyed only: one key stands for so many tokens */
  uint32_t key_bytes;          /* keyed only: 16 to 32; the rest of each digest is zero */
  const statecache_cost* cost; /* null: all zero */
} statecache_namespace;

#define STATECACHE_NAMESPACE_INIT                                                                \
  {                                                                                              \
    sizeof(statecache_namespace), 0, NULL, {{0}}, {{0}}, NULL, 1, 1, 0, STATECACHE_BY_TOKENS, 0, \
        0, NULL                                                                                  \
  }

/* This process within the engine. Processes with the same `engine` may share tickets. */
typedef struct statecache_member {
  uint32_t struct_size;
  uint16_t rank;
  uint16_t world; /* processes of the engine that attach; 1 */
  statecache_digest engine;
  const uint16_t* shards; /* its shard of each group, below its `shards`; null: shard 0 of all */
  uint32_t shard_count;   /* 0, or the number of groups */
  uint32_t reserved;      /* zero */
  const char* program;    /* for people; may be null */
} statecache_member;

#define STATECACHE_MEMBER_INIT \
  { sizeof(statecache_member), 0, 1, {{0}}, NULL, 0, 0, NULL }

/* ---- a session ------------------------------------------------------------------------------- */

typedef struct statecache_session statecache_session;

/* Connects, opens the namespace (made when it is new) and maps the arenas. Call it after fork, once
 * a process. timeout_us limits the wait for the daemon; 0: 10 seconds. Codes: NOT_FOUND (no such
 * socket), PERMISSION, INVALID_ARGUMENT (statecache_last_error() says what of the spec), VERSION,
 * NO_SPACE, TIMEOUT. */
STATECACHE_C_API statecache_code statecache_attach(const char* socket_path,
                                                   const statecache_namespace* space,
                                                   const statecache_member* member,
                                                   int64_t timeout_us,
                                                   statecache_session** session)
    STATECACHE_NOEXCEPT;
/* Ends the connection and unmaps the arenas; null is allowed. No other call may be running. What
 * this process held comes back to the daemon when the process ends. */
STATECACHE_C_API void statecache_detach(statecache_session* session) STATECACHE_NOEXCEPT;
/* 0 once the daemon has gone: looks at the socket at each call. */
STATECACHE_C_API int statecache_connected(const statecache_session* session) STATECACHE_NOEXCEPT;
/* The namespace as people see it. Good until statecache_detach(). */
STATECACHE_C_API const char* statecache_name(const statecache_session* session) STATECACHE_NOEXCEPT;
/* Of the daemon's run. */
STATECACHE_C_API uint64_t statecache_epoch(const statecache_session* session) STATECACHE_NOEXCEPT;
/* 1: slots lie in the arena and are written in place. What is stored is read in place in either
 * case. */
STATECACHE_C_API int statecache_writable(const statecache_session* session) STATECACHE_NOEXCEPT;

typedef struct statecache_counters {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t posted;    /* records sent */
  uint64_t busy;      /* records not sent, the ring was full */
  uint64_t errors;    /* records that the daemon refused */
  uint64_t committed; /* slots accepted */
  uint64_t refused;   /* slots refused at commit */
  uint64_t returned;  /* granted slots that nobody was left to fill, given back */
} statecache_counters;

#define STATECACHE_COUNTERS_INIT \
  { sizeof(statecache_counters), 0, 0, 0, 0, 0, 0, 0 }
/* Of this session since attach. */
STATECACHE_C_API statecache_code statecache_get_counters(const statecache_session* session,
                                                         statecache_counters* out)
    STATECACHE_NOEXCEPT;

/* ---- find ------------------------------------------------------------------------------------ */

/* What else the state depends on: a LoRA, a tenant. Another domain shares nothing, from the first
 * token on. */
typedef struct statecache_domain {
  uint32_t struct_size;
  uint32_t reserved;
  statecache_digest adapter;
  statecache_digest salt;
} statecache_domain;

#define STATECACHE_DOMAIN_INIT             \
  {                                        \
    sizeof(statecache_domain), 0, {{0}}, { \
      { 0 }                                \
    }                                      \
  }

/* Tokens [at, at + length) stand for other content (an image). Sorted, not overlapping. */
typedef struct statecache_mark {
  uint32_t struct_size;
  uint32_t at;
  uint32_t length;
  uint32_t atomic; /* 1: never resumed strictly inside */
  statecache_digest content;
} statecache_mark;

#define STATECACHE_MARK_INIT            \
  {                                     \
    sizeof(statecache_mark), 0, 0, 0, { \
      { 0 }                             \
    }                                   \
  }

/* Already in the engine: KV of the first `every` tokens; the state after `end` tokens. */
typedef struct statecache_have {
  uint32_t struct_size;
  uint32_t every;
  uint32_t end;
} statecache_have;

#define STATECACHE_HAVE_INIT \
  { sizeof(statecache_have), 0, 0 }

typedef enum statecache_hold {
  STATECACHE_HOLD_NONE = 0, /* a ticket only for saving */
  STATECACHE_HOLD_SOFT = 1, /* load it and protect it for a while */
  STATECACHE_HOLD_LEASE = 2 /* also give addresses */
} statecache_hold;

typedef struct statecache_limits {
  uint32_t struct_size;
  uint32_t hold;       /* statecache_hold */
  uint32_t have_every; /* as in statecache_have */
  uint32_t have_end;
  uint32_t keep_back; /* tokens always left to compute; 0 is taken as 1; ignored with keys */
  uint32_t at_most;   /* resume no deeper */
  /* from now; a prefetch (HOLD_SOFT) that cannot make it is not started. 0: none */
  int64_t deadline_us;
  uint16_t members; /* processes that will join; 0: all of the engine */
  uint8_t priority; /* 0 to 100; the daemon of this version takes no notice of it */
  uint8_t reserved[5];
} statecache_limits;

#define STATECACHE_LIMITS_INIT                                                                \
  {                                                                                           \
    sizeof(statecache_limits), STATECACHE_HOLD_SOFT, 0, 0, 1, STATECACHE_UNKNOWN, 0, 0, 50, { \
      0                                                                                       \
    }                                                                                         \
  }

typedef struct statecache_ask {
  uint32_t struct_size;
  uint32_t parent_tokens; /* the parent's first so many tokens come before `tokens` */
  const uint32_t* tokens; /* token ids */
  size_t token_count;
  const statecache_mark* marks; /* positions of the whole sequence */
  size_t mark_count;
  const statecache_domain* domain; /* null: the plain one */
  statecache_ticket parent;        /* 0: none */
} statecache_ask;

#define STATECACHE_ASK_INIT \
  { sizeof(statecache_ask), 0, NULL, 0, NULL, 0, NULL, 0 }

/* One key a page, each chained over all before it. `parent` is the key before the first; null where
 * the run begins the sequence (first_token 0) or where the engine does not know. Positions of the
 * ticket are tokens of the sequence from first_token on; where that is not known, tokens from the
 * run's beginning. What comes before the run is taken to be in the engine. */
typedef struct statecache_key_run {
  uint32_t struct_size;
  uint32_t first_token; /* STATECACHE_UNKNOWN: the engine does not know */
  const statecache_digest* keys;
  size_t key_count;
  const statecache_digest* parent;
  const statecache_domain* domain; /* null: the plain one */
} statecache_key_run;

#define STATECACHE_KEY_RUN_INIT \
  { sizeof(statecache_key_run), STATECACHE_UNKNOWN, NULL, 0, NULL, NULL }

/* Posts one record. The ticket answers PENDING until the daemon has matched. `limits` may be null:
 * as STATECACHE_LIMITS_INIT. INVALID_ARGUMENT: more tokens than the ring's area holds (use parent
 * and append); a namespace of keys. NOT_FOUND: no such parent. Every ticket must be ended: finish
 * and release, or cancel. */
STATECACHE_C_API statecache_code statecache_begin(statecache_session* session,
                                                  const statecache_ask* ask,
                                                  const statecache_limits* limits,
                                                  statecache_ticket* ticket) STATECACHE_NOEXCEPT;
/* The same for a namespace of keys. INVALID_ARGUMENT: a namespace of tokens; a key with bytes after
 * its key_bytes. */
STATECACHE_C_API statecache_code statecache_begin_keys(statecache_session* session,
                                                       const statecache_key_run* run,
                                                       const statecache_limits* limits,
                                                       statecache_ticket* ticket)
    STATECACHE_NOEXCEPT;

typedef enum statecache_state {
  STATECACHE_PENDING = 0,
  STATECACHE_LOADING = 1,
  STATECACHE_READY = 2,
  STATECACHE_FAILED = 3,
  STATECACHE_LOST = 4
} statecache_state;

typedef enum statecache_tier {
  STATECACHE_DEVICE = 0,
  STATECACHE_HOST = 1,
  STATECACHE_NVME = 2,
  STATECACHE_NOWHERE = 255
} statecache_tier;

/* One depth that the request could resume from. */
typedef struct statecache_point {
  uint32_t struct_size;
  uint32_t tokens;
  uint32_t tier; /* statecache_tier: the lowest that any part of it needs */
  uint32_t reserved;
  uint64_t bytes; /* to be loaded */
  int64_t ready_in_us;
  int64_t recompute_us; /* prefill of [0, tokens) instead */
} statecache_point;

/* point_size is the caller's sizeof(statecache_point): the elements have that stride. */
typedef struct statecache_answer {
  uint32_t struct_size;
  uint32_t point_size;
  uint32_t state;   /* statecache_state */
  uint32_t version; /* grows with every change */
  uint32_t best;    /* tokens of the depth that was chosen; 0: compute all */
  uint32_t usable;  /* deepest depth that is ready now */
  uint32_t stored;  /* tokens for which all groups of STATECACHE_EVERY have KV */
  uint32_t reserved;
  const statecache_point* points; /* ascending depth */
  size_t point_count;
  const uint32_t* wishes; /* checkpoints to take, most wanted first */
  size_t wish_count;
  void* owner; /* the library's; null before the first use */
} statecache_answer;

#define STATECACHE_ANSWER_INIT \
  { sizeof(statecache_answer), sizeof(statecache_point), 0, 0, 0, 0, 0, 0, NULL, 0, NULL, 0, NULL }

/* The latest answer, without a round trip. `have` may be null; depths that the engine has are left
 * out. An unknown ticket answers LOST. `answer` comes from STATECACHE_ANSWER_INIT or an earlier
 * call, whose arrays it frees. */
STATECACHE_C_API statecache_code statecache_poll(const statecache_session* session,
                                                 statecache_ticket ticket,
                                                 const statecache_have* have,
                                                 statecache_answer* answer) STATECACHE_NOEXCEPT;
/* As poll, once the state is READY, FAILED or LOST, or the time is over (which is not an error). */
STATECACHE_C_API statecache_code statecache_wait(const statecache_session* session,
                                                 statecache_ticket ticket,
                                                 int64_t timeout_us,
                                                 const statecache_have* have,
                                                 statecache_answer* answer) STATECACHE_NOEXCEPT;
/* Frees the arrays; null is allowed, and the struct may be used again. */
STATECACHE_C_API void statecache_answer_clear(statecache_answer* answer) STATECACHE_NOEXCEPT;
/* Matches again: what others stored since. Returns the first failure; the others were sent. */
STATECACHE_C_API statecache_code statecache_refresh(statecache_session* session,
                                                    const statecache_ticket* tickets,
                                                    size_t count) STATECACHE_NOEXCEPT;
/* Asks to lease the deepest ready depth of at most `at_most` tokens, and to drop the rest. What is
 * still loading is not waited for. The lease comes by statecache_wait_lease; one of 0 tokens when
 * nothing was ready. `have` may be null. */
STATECACHE_C_API statecache_code statecache_acquire(statecache_session* session,
                                                    statecache_ticket ticket,
                                                    uint32_t at_most,
                                                    const statecache_have* have)
    STATECACHE_NOEXCEPT;

/* ---- across processes, and reading ----------------------------------------------------------- */

/* Plain bytes to give to other processes of the engine, once the daemon has answered begin (wait,
 * wait_lease or settle): a join that overtakes it finds no such ticket. */
STATECACHE_C_API statecache_code statecache_get_ref(const statecache_session* session,
                                                    statecache_ticket ticket,
                                                    statecache_ref* ref) STATECACHE_NOEXCEPT;
/* Becomes a member of another process's ticket; its lease, when there is one, comes by
 * statecache_wait_lease, and slots for its shards when another member reserves (settle first).
 * ALREADY_EXISTS: this session has it. A name that the daemon does not know, or another engine's,
 * shows as LOST. */
STATECACHE_C_API statecache_code statecache_join(statecache_session* session,
                                                 const statecache_ref* ref,
                                                 statecache_ticket* ticket) STATECACHE_NOEXCEPT;

/* This member's shard of one object under a lease. Never write through `where`. */
typedef struct statecache_piece {
  uint32_t struct_size;
  uint16_t group;
  uint16_t shard;
  uint32_t first; /* block: its first token; checkpoint: state after so many */
  uint32_t valid; /* block: tokens that count here; checkpoint: 0 */
  uint32_t tier;  /* statecache_tier: where it was at begin */
  uint32_t extent_count;
  uint64_t bytes; /* payload; the sum of `where` */
  const statecache_extent* where;
} statecache_piece;

/* piece_size is the caller's sizeof(statecache_piece). */
typedef struct statecache_lease {
  uint32_t struct_size;
  uint32_t piece_size;
  uint32_t tokens; /* resume here; 0: compute all */
  uint32_t reserved;
  const statecache_piece* pieces; /* token order */
  size_t piece_count;
  void* owner; /* the library's; null before the first use */
} statecache_lease;

#define STATECACHE_LEASE_INIT \
  { sizeof(statecache_lease), sizeof(statecache_piece), 0, 0, NULL, 0, NULL }

/* The lease that begin (HOLD_LEASE), acquire or join asked for. Codes: TIMEOUT; what the daemon
 * refused acquire with; NOT_FOUND when the ticket was lost; INVALID_ARGUMENT when none was asked
 * for. Clearing `lease` frees the list only: the lease itself ends by statecache_release(). */
STATECACHE_C_API statecache_code statecache_wait_lease(const statecache_session* session,
                                                       statecache_ticket ticket,
                                                       int64_t timeout_us,
                                                       statecache_lease* lease) STATECACHE_NOEXCEPT;
/* As statecache_answer_clear. */
STATECACHE_C_API void statecache_lease_clear(statecache_lease* lease) STATECACHE_NOEXCEPT;

/* The caller's memory for this member's shard of one object. */
typedef struct statecache_memory {
  uint32_t struct_size;
  uint16_t group;
  uint16_t reserved;
  uint32_t at;    /* first token of the block; tokens before the state */
  uint32_t valid; /* write_from: tokens in the block; ignored for a state */
  const statecache_extent*
      pieces; /* in order; together as large as the payload, or larger (read_into) */
  size_t piece_count;
} statecache_memory;

#define STATECACHE_MEMORY_INIT \
  { sizeof(statecache_memory), 0, 0, 0, 0, NULL, 0 }

/* Waits for the lease and copies pieces into the caller's memory. ok[i] (one byte each) is 0 where
 * there is no such piece or memory[i] is smaller than it; nothing is copied there. */
STATECACHE_C_API statecache_code statecache_read_into(const statecache_session* session,
                                                      statecache_ticket ticket,
                                                      const statecache_memory* memory,
                                                      size_t count,
                                                      int64_t timeout_us,
                                                      uint8_t* ok) STATECACHE_NOEXCEPT;

/* ---- grow and save --------------------------------------------------------------------------- */

/* The sequence goes on with these tokens; the state of the first `computed` tokens of all is
 * computed (STATECACHE_UNKNOWN: all), or will be when what is reserved of them is committed:
 * reserve reaches as far. Marks: positions of the whole sequence. */
STATECACHE_C_API statecache_code statecache_append(statecache_session* session,
                                                   statecache_ticket ticket,
                                                   const uint32_t* tokens,
                                                   size_t token_count,
                                                   const statecache_mark* marks,
                                                   size_t mark_count,
                                                   uint32_t computed) STATECACHE_NOEXCEPT;
/* The same with the keys of further pages. */
STATECACHE_C_API statecache_code statecache_append_keys(statecache_session* session,
                                                        statecache_ticket ticket,
                                                        const statecache_digest* keys,
                                                        size_t key_count,
                                                        uint32_t computed) STATECACHE_NOEXCEPT;

/* A block [first, end) with first a multiple of the group's block_tokens and at most block_tokens
 * long, or, with first == end, the state after `end` tokens (of a group that looks ahead: for
 * resuming at end - lookahead). */
typedef struct statecache_want {
  uint32_t struct_size;
  uint32_t group;
  uint32_t first;
  uint32_t end;
  uint64_t bytes; /* payload of one shard; 0: what the group's layout says */
} statecache_want;

#define STATECACHE_WANT_INIT \
  { sizeof(statecache_want), 0, 0, 0, 0 }

typedef enum statecache_grant {
  STATECACHE_GRANT_PENDING = 0,
  STATECACHE_GRANTED = 1,   /* write, then commit */
  STATECACHE_EXISTS = 2,    /* stored already */
  STATECACHE_IN_FLIGHT = 3, /* another is writing it */
  STATECACHE_DECLINED =
      4, /* not worth keeping, tainted, read-only, out of range, or what it hangs on is missing */
  STATECACHE_FULL = 5 /* all that is there is in use, or not yet saved elsewhere */
} statecache_grant;

/* The answer to one want (this member's shard), or, unasked, the shard of an object that another
 * member of the ticket reserved. */
typedef struct statecache_slot {
  uint32_t struct_size;
  uint16_t group;
  uint16_t shard;
  statecache_slot_id id; /* 0 unless granted */
  uint32_t first;
  uint32_t end;
  uint32_t grant; /* statecache_grant */
  uint32_t extent_count;
  uint64_t bytes; /* payload; the sum of `where` */
  const statecache_extent* where;
} statecache_slot;

/* slot_size is the caller's sizeof(statecache_slot). */
typedef struct statecache_slots {
  uint32_t struct_size;
  uint32_t slot_size;
  const statecache_slot* items;
  size_t count;
  void* owner; /* the library's; null before the first use */
} statecache_slots;

#define STATECACHE_SLOTS_INIT \
  { sizeof(statecache_slots), sizeof(statecache_slot), NULL, 0, NULL }

typedef struct statecache_filled {
  uint32_t struct_size;
  uint32_t valid; /* tokens really written; 0: as reserved */
  statecache_slot_id slot;
} statecache_filled;

#define STATECACHE_FILLED_INIT \
  { sizeof(statecache_filled), 0, 0 }

/* Asks for space: all shards of an object or none. The answers come by statecache_wait_slots, for
 * the other members of the ticket unasked. May be called before the state is computed. What is out
 * of range is answered DECLINED. */
STATECACHE_C_API statecache_code statecache_reserve(statecache_session* session,
                                                    statecache_ticket ticket,
                                                    const statecache_want* wants,
                                                    size_t count) STATECACHE_NOEXCEPT;
/* Answered and not yet taken by statecache_wait_slots, without waiting. `slots` comes from
 * STATECACHE_SLOTS_INIT or an earlier call, whose array it frees. */
STATECACHE_C_API statecache_code statecache_peek_slots(const statecache_session* session,
                                                       statecache_ticket ticket,
                                                       statecache_slots* slots) STATECACHE_NOEXCEPT;
/* Waits until every reserve of this ticket is answered, and takes the answers: one a want, in
 * order. Codes: TIMEOUT (nothing is taken); what the daemon refused a reserve with. */
STATECACHE_C_API statecache_code statecache_wait_slots(statecache_session* session,
                                                       statecache_ticket ticket,
                                                       int64_t timeout_us,
                                                       statecache_slots* slots) STATECACHE_NOEXCEPT;
/* As statecache_answer_clear. Slots that are neither committed nor abandoned stay reserved. */
STATECACHE_C_API void statecache_slots_clear(statecache_slots* slots) STATECACHE_NOEXCEPT;
/* These slots are written; an object becomes visible when all its shards are. Needs no ticket.
 * Refusals (the reservation was too old, or invalidated) are counted, see statecache_get_counters.
 * */
STATECACHE_C_API statecache_code statecache_commit(statecache_session* session,
                                                   const statecache_filled* filled,
                                                   size_t count) STATECACHE_NOEXCEPT;
/* These slots will not be written any more. Only after own traffic into them has ended. */
STATECACHE_C_API statecache_code statecache_abandon(statecache_session* session,
                                                    const statecache_slot_id* slots,
                                                    size_t count) STATECACHE_NOEXCEPT;
/* Reserves, waits for the slots, copies and commits, for memory[i] of exactly the object's payload.
 * ok[i] (one byte each): committed, or stored already. INVALID_ARGUMENT: no such group, the same
 * object twice. */
STATECACHE_C_API statecache_code statecache_write_from(statecache_session* session,
                                                       statecache_ticket ticket,
                                                       const statecache_memory* memory,
                                                       size_t count,
                                                       int64_t timeout_us,
                                                       uint8_t* ok) STATECACHE_NOEXCEPT;
/* The tokens no longer determine the state (context shift): nothing more is stored under the
 * ticket. */
STATECACHE_C_API statecache_code statecache_taint(statecache_session* session,
                                                  statecache_ticket ticket) STATECACHE_NOEXCEPT;

/* ---- end: each may be repeated, and is OK for a ticket that has ended ------------------------ */

typedef struct statecache_report {
  uint32_t struct_size;
  uint32_t computed;  /* tokens whose state was computed, all in all */
  uint32_t prefilled; /* of the prompt */
  uint32_t reserved;
  int64_t prefill_us; /* time it took; teaches the daemon what recomputing costs */
} statecache_report;

#define STATECACHE_REPORT_INIT \
  { sizeof(statecache_report), 0, 0, 0, 0 }

/* No more appends and reserves; slots that were granted may still be committed. `report` may be
 * null. */
STATECACHE_C_API statecache_code statecache_finish(statecache_session* session,
                                                   statecache_ticket ticket,
                                                   const statecache_report* report)
    STATECACHE_NOEXCEPT;
/* This member reads no more: its pieces may be overwritten from here on. With finish, the end of
 * the ticket. */
STATECACHE_C_API statecache_code statecache_release(statecache_session* session,
                                                    statecache_ticket ticket) STATECACHE_NOEXCEPT;
/* Stops loading; then as finish and release. */
STATECACHE_C_API statecache_code statecache_cancel(statecache_session* session,
                                                   statecache_ticket ticket) STATECACHE_NOEXCEPT;
/* New weights: nothing that is stored so far is found again. Leases stay readable. */
STATECACHE_C_API statecache_code statecache_invalidate(statecache_session* session)
    STATECACHE_NOEXCEPT;

/* Waits until all that was posted for the ticket is answered. Codes: TIMEOUT; else the first thing
 * the daemon refused since the last settle. */
STATECACHE_C_API statecache_code statecache_settle(statecache_session* session,
                                                   statecache_ticket ticket,
                                                   int64_t timeout_us) STATECACHE_NOEXCEPT;
/* Waits until everything posted by this session is answered. Codes: TIMEOUT. */
STATECACHE_C_API statecache_code statecache_drain(statecache_session* session,
                                                  int64_t timeout_us) STATECACHE_NOEXCEPT;

/* ---- operators ------------------------------------------------------------------------------- */

/* One command of statecachectl; *json is its reply, a string to give to statecache_free. timeout_us
 * 0: ten minutes. Codes: NOT_FOUND, CLOSED, TIMEOUT, INVALID_ARGUMENT (unknown command), what the
 * daemon refuses with. */
STATECACHE_C_API statecache_code statecache_admin(const char* socket_path,
                                                  const char* command,
                                                  const char* const* arguments,
                                                  size_t argument_count,
                                                  const uint32_t* tokens,
                                                  size_t token_count,
                                                  int64_t timeout_us,
                                                  char** json) STATECACHE_NOEXCEPT;
/* Frees what statecache_admin gave; null is allowed. */
STATECACHE_C_API void statecache_free(char* text) STATECACHE_NOEXCEPT;
/* As above for commands that answer more than once: `each` gets every reply, in order and on this
 * thread, and returns 0 to stop listening (which is OK). idle_us limits the time between two
 * replies; 0: a day. */
STATECACHE_C_API statecache_code statecache_admin_stream(const char* socket_path,
                                                         const char* command,
                                                         const char* const* arguments,
                                                         size_t argument_count,
                                                         const uint32_t* tokens,
                                                         size_t token_count,
                                                         int (*each)(void* user, const char* json),
                                                         void* user,
                                                         int64_t idle_us) STATECACHE_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif /* STATECACHE_STATECACHE_H */
