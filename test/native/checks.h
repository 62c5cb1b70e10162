// A few lines of test framework for the C++ pieces: checks that say where, tests that register
// themselves.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

struct Test {
  std::string name;
  std::function<void()> run;
};

inline std::vector<Test>& allTests() {
  static std::vector<Test> tests;
  return tests;
}

struct Registered {
  Registered(std::string name, std::function<void()> run) {
    allTests().push_back({std::move(name), std::move(run)});
  }
};

#define CONCAT_(a, b) a##b
#define CONCAT(a, b) CONCAT_(a, b)
#define TEST(name)                                                               \
  static void CONCAT(test_, __LINE__)();                                         \
  static const Registered CONCAT(registered_, __LINE__)(name, CONCAT(test_, __LINE__)); \
  static void CONCAT(test_, __LINE__)()
#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) {                                                              \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);        \
      exit(1);                                                                       \
    }                                                                                \
  } while (0)
