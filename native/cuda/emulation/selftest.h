// What the files of the emulator's own test share. An expectation that fails within a kernel throws, which
// the emulator turns into a failure of the launch.
#pragma once
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace isopolicy::cuda::selftest {

std::vector<std::pair<std::string, void (*)()>>& tests();

// What the launch failed with, or "".
std::string failureOf(unsigned threads, size_t sharedBytes, const std::function<void()>& body);
void run(unsigned threads, size_t sharedBytes, const std::function<void()>& body, unsigned blocks = 1,
         unsigned cluster = 1);
void expectFailure(const std::string& failure, const std::string& words);
// For the launches that follow.
void order(const char* name);
float randomValue();  // in [-1, 1)

template <class A, class B>
void expectEqual(const A& got, const B& expected, const char* what) {
  if (!(got == A(expected)))
    throw std::runtime_error(std::string(what) + ": expected " + std::to_string(expected) + ", got " +
                             std::to_string(got));
}
inline void expectNear(double got, double expected, double tolerance, const char* what) {
  if (!(std::fabs(got - expected) <= tolerance))
    throw std::runtime_error(std::string(what) + ": expected " + std::to_string(expected) + ", got " +
                             std::to_string(got));
}

#define TEST(name)                                                                  \
  static void name##Test();                                                         \
  static const bool name##Listed = (tests().emplace_back(#name, name##Test), true); \
  static void name##Test()

}  // namespace isopolicy::cuda::selftest
