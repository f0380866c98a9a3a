#pragma once
// Starts a thread that takes no signals: those belong to the thread that waits for them.

#include <pthread.h>

#include <csignal>
#include <thread>
#include <utility>

namespace statecached {

template <class Run>
[[nodiscard]] std::thread start_quiet_thread(Run run) {
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread(std::move(run));
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

}  // namespace statecached
