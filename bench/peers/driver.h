// What the C++ drivers share. A driver is a child process of `npm run bench -- --peers`: it reads a request a
// line from stdin and writes one line for each to stdout (bench/peers/driver.ts is the other side):
//
//     (at the start)                          hello VERSION
//     prepare OP DTYPE SETS DIM DIM ...       ready NOTE, or none REASON where the library has no such thing
//     time MILLISECONDS                       samples MS MS ...   (milliseconds of one run, one figure a
//     sample) drop                                    dropped
//
// Input sets are taken in turn, as our own kernels' are, and a sample is as many runs as last two
// milliseconds.
#pragma once
#include <immintrin.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace peers {

enum class Type { fp32, fp16, bf16 };

inline size_t sizeOf(Type type) { return type == Type::fp32 ? 4 : 2; }

struct Question {
  std::string op;
  Type type;
  int sets;
  std::vector<long> dims;
};

struct Work {
  std::function<void(int set)> run;
  std::string note;  // the implementation that was chosen, where the library tells
};

// The library has nothing for a question; the reason goes to the report.
struct NotOffered : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline uint16_t toBf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float fromBf16(uint16_t x) {
  const uint32_t bits = uint32_t(x) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

inline void put(void* at, Type type, long i, float x) {
  if (type == Type::fp32)
    static_cast<float*>(at)[i] = x;
  else
    static_cast<uint16_t*>(at)[i] = type == Type::bf16 ? toBf16(x) : uint16_t(_cvtss_sh(x, 0));
}

inline float get(const void* at, Type type, long i) {
  if (type == Type::fp32) return static_cast<const float*>(at)[i];
  const uint16_t bits = static_cast<const uint16_t*>(at)[i];
  return type == Type::bf16 ? fromBf16(bits) : _cvtsh_ss(bits);
}

// Uniform values around 0; beyond the first hundred thousand (an odd number) they repeat, which is made much
// faster.
inline void fill(void* at, Type type, long count, uint32_t seed, float scale = 1) {
  constexpr long kPeriod = 100003;
  uint32_t state = seed * 2654435761u + 12345;
  for (long i = 0; i < count && i < kPeriod; i++) {
    state = state * 1664525u + 1013904223u;
    put(at, type, i, scale * float(int32_t(state) >> 8) / float(1 << 23));
  }
  auto* bytes = static_cast<char*>(at);
  for (long i = kPeriod; i < count; i += kPeriod)
    std::memcpy(bytes + size_t(i) * sizeOf(type), bytes, size_t(std::min(kPeriod, count - i)) * sizeOf(type));
}

// Memory on huge pages where the system gives them (GLIBC_TUNABLES asks for it), as our tensors are.
class Buffer {
 public:
  Buffer(Type type, long count)
      : type_(type),
        count_(count),
        data_(std::aligned_alloc(64, (size_t(count) * sizeOf(type) + 63) / 64 * 64)) {
    if (!data_) throw std::bad_alloc();
  }
  Buffer(Type type, long count, uint32_t seed, float scale = 1) : Buffer(type, count) {
    fill(data_, type, count, seed, scale);
  }
  Buffer(Buffer&& other) noexcept : type_(other.type_), count_(other.count_), data_(other.data_) {
    other.data_ = nullptr;
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }
  void* data() const { return data_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  float at(long i) const { return get(data_, type_, i); }
  long count() const { return count_; }

 private:
  Type type_;
  long count_;
  void* data_;
};

// One set of a product y = x W^T: x [m, k], W [n, k], y [m, n].
struct Product {
  long m, n, k;
  Buffer x, weight;
  Product(const Question& q, int set)
      : m(q.dims.at(0)),
        n(q.dims.at(1)),
        k(q.dims.at(2)),
        x(q.type, m * k, uint32_t(2 * set + 1)),
        weight(q.type, n * k, uint32_t(2 * set + 2), 1 / std::sqrt(float(k))) {}

  // A library that is faster because it computes something else is no peer: one element is held against fp64.
  void check(const void* y, Type type) const {
    const long row = m - 1, column = n / 2 + 1 < n ? n / 2 + 1 : 0;
    double want = 0, size = 0;
    for (long i = 0; i < k; i++) {
      const double product = double(x.at(row * k + i)) * weight.at(column * k + i);
      want += product;
      size += std::abs(product);
    }
    const double got = get(y, type, row * n + column);
    if (!(std::abs(got - want) < 0.02 * size)) {
      std::ostringstream text;
      text << "wrong result: " << got << " where " << want << " was expected";
      throw NotOffered(text.str());
    }
  }
};

class Timer {
 public:
  Timer(Work work, int sets) : work_(std::move(work)), sets_(sets) {
    for (int i = 0; i < sets_; i++) sample(1);
    for (;;) {
      const double took = sample(runs_);
      if (took >= kSampleMs) break;
      runs_ = std::max(runs_ + 1,
                       std::min(16 * runs_, long(1.2 * double(runs_) * kSampleMs / std::max(took, 1e-3))));
    }
  }
  const std::string& note() const { return work_.note; }

  std::vector<double> measure(double milliseconds) {
    std::vector<double> each;
    double total = 0;
    while (total < milliseconds || each.size() < 2) {
      const double took = sample(runs_);
      total += took;
      each.push_back(took / double(runs_));
    }
    return each;
  }

 private:
  static constexpr double kSampleMs = 2;

  double sample(long runs) {
    const auto start = std::chrono::steady_clock::now();
    for (long i = 0; i < runs; i++) {
      work_.run(next_);
      next_ = (next_ + 1) % sets_;
    }
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  }

  Work work_;
  int sets_, next_ = 0;
  long runs_ = 1;
};

// Answers requests until stdin ends.
inline int serve(const std::string& version, const std::function<Work(const Question&)>& prepare) {
  std::cout << "hello " << version << std::endl;
  std::unique_ptr<Timer> timer;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string verb;
    words >> verb;
    if (verb == "prepare") {
      Question q;
      std::string type;
      words >> q.op >> type >> q.sets;
      q.type = type == "fp32" ? Type::fp32 : type == "fp16" ? Type::fp16 : Type::bf16;
      for (long dim; words >> dim;) q.dims.push_back(dim);
      timer.reset();
      try {
        timer = std::make_unique<Timer>(prepare(q), q.sets);
        std::cout << "ready " << timer->note() << std::endl;
      } catch (const std::exception& error) {
        std::cout << "none " << error.what() << std::endl;
      }
    } else if (verb == "time") {
      if (!timer) {
        std::cout << "none nothing is prepared" << std::endl;
        continue;
      }
      double milliseconds = 0;
      words >> milliseconds;
      std::cout << "samples";
      for (const double ms : timer->measure(milliseconds)) std::cout << ' ' << ms;
      std::cout << std::endl;
    } else {
      timer.reset();
      std::cout << "dropped" << std::endl;
    }
  }
  return 0;
}

}  // namespace peers
