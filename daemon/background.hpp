#pragma once
// Work of no hurry, one job at a time, on a thread that yields to everything else.

#include <functional>
#include <thread>

namespace statecached {

class BackgroundThread {
 public:
  BackgroundThread() = default;
  BackgroundThread(const BackgroundThread&) = delete;
  BackgroundThread& operator=(const BackgroundThread&) = delete;
  ~BackgroundThread();
  /// Waits for the job before, if there still is one. From one thread.
  void run(std::function<void()> job);

 private:
  std::thread thread_;
};

}  // namespace statecached
