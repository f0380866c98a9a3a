#include "daemon/background.hpp"

#include <pthread.h>
#include <sched.h>

#include <utility>

namespace statecached {

BackgroundThread::~BackgroundThread() {
  if (thread_.joinable()) thread_.join();
}

void BackgroundThread::run(std::function<void()> job) {
  if (thread_.joinable()) thread_.join();
  thread_ = std::thread([job = std::move(job)] {
    pthread_setname_np(pthread_self(), "background");
    const sched_param none{};
    static_cast<void>(pthread_setschedparam(pthread_self(), SCHED_IDLE, &none));
    job();
  });
}

}  // namespace statecached
